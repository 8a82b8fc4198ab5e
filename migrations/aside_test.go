package migrations_test

import (
	"os"
	"strings"
	"testing"
)

// What version 19 does to rows that an earlier version has written.
func TestSetAside_HeldEventsLoseUnknownMembers(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	text, err := os.ReadFile("postgres/00019_set_aside.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, update, found := strings.Cut(string(text), "-- An event that is held keeps nothing that its schema does not name.\n")
	if !found {
		t.Fatal("the statement is not there")
	}
	row := func(id, state, data string) string {
		return `INSERT INTO inbox (source, event_id, type, company_id, state, fingerprint, event) VALUES ('/s', '` + id + `', 'company.user_erasure_requested.v1', 'acme', '` + state + `', '',
			'{"source":"/s","id":"` + id + `","type":"company.user_erasure_requested.v1","time":"2026-01-01T00:00:00Z","key":"acme","partition":3,"data":` + data + `}')`
	}
	execPostgres(t, d.tables, row("held", "held", `{"company_id":"acme","user_id":"u-1","email":"ann@x.example"}`),
		row("waiting", "waiting", `{"company_id":"acme","user_id":"u-1"}`), row("nul", "held", `{"company_id":"acme","user_id":"u-1","x":"\u0000"}`), update)
	if got := d.one("postgres", "SELECT event::text LIKE '%ann@%' OR event->'data'->>'user_id' <> 'u-1' OR event->>'partition' <> '3' OR event->>'time' <> '2026-01-01T00:00:00Z' FROM inbox WHERE event_id = 'held'"); got != "false" {
		t.Errorf("the event: %s", d.one("postgres", "SELECT event::text FROM inbox WHERE event_id = 'held'"))
	}
}

// One company's own tables, locked or broken, don't keep the activity of others from being noted.
func TestTouchUsers_ABrokenCompanyIsPassedOver(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	a, b := d.company("a", "free"), d.company("b", "free")
	for _, id := range []string{a, b} {
		execPostgres(t, d.tables, "SELECT tenant_user_put('"+id+"', 'u"+id+"', 'u@x.test', now())")
	}
	execPostgres(t, d.tables, "ALTER TABLE tenant_"+a+".users DROP COLUMN last_activity")
	execPostgres(t, d.tables, "SELECT touch_users(ARRAY['"+a+"', '"+b+"'], ARRAY['u"+a+"', 'u"+b+"'], ARRAY[now(), now()])")
	if got := d.one("postgres", "SELECT last_activity IS NOT NULL FROM tenant_"+b+".users"); got != "true" {
		t.Error("the other company's user is not touched")
	}
	if got := d.one("postgres", "SELECT count(*) FROM user_directory WHERE last_activity IS NOT NULL"); got != "2" {
		t.Errorf("%s users are touched in the directory", got)
	}
}
