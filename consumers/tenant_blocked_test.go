package consumers_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
)

// hold opens a transaction as a company's own login that holds its first user, as an account that is being made does.
func (f *tenantFixture) hold(t *testing.T, company string) (release func()) {
	t.Helper()
	login := "login_" + strings.ReplaceAll(company, "-", "_")
	f.exec(t, fmt.Sprintf(`CREATE ROLE %s LOGIN; GRANT "tenant_%s" TO %[1]s`, login, company))
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), f.dsn)
		if err != nil {
			return // the server is gone, and the role with it
		}
		_, _ = conn.Exec(context.Background(), "DROP ROLE "+login)
		_ = conn.Close(context.Background())
	})
	address, err := url.Parse(f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	address.User = url.User(login)
	conn, err := pgx.Connect(t.Context(), address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), fmt.Sprintf(`INSERT INTO "tenant_%s".mt5_accounts (account_id, user_id, account_number) VALUES (1, '%[1]s-u1', 'n')`, company)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBlocked_NeighboursGoOnAndItCatchesUpInOrder(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	id, now := unique(), time.Now().Add(-time.Hour)
	var note atomic.Value
	note.Store("")
	stop := f.start(t, tenantService{blocked: func(s string) { note.Store(s) }})
	const locked, neighbours = 4, 12
	missing, broken := id+"-missing", id+"-broken"
	var companies []string
	for i := range locked {
		companies = append(companies, fmt.Sprintf("%s-locked%d", id, i))
	}
	for _, c := range append([]string{missing, broken}, companies...) {
		f.send(t, registration(c, now))
	}
	f.awaitConsumed(t)
	var release []func()
	for _, c := range companies {
		release = append(release, f.hold(t, c))
	}
	f.exec(t, "CREATE TABLE kept AS SELECT company_id, tier, period_start, period_end, price_minor, limits FROM subscriptions WHERE company_id = '"+missing+"'")
	f.exec(t, "DELETE FROM subscriptions WHERE company_id = '"+missing+"'")
	f.exec(t, fmt.Sprintf(`DROP SCHEMA "tenant_%s" CASCADE`, broken))

	at := func(minutes int) time.Time { return now.Add(time.Duration(minutes) * time.Minute) }
	for _, c := range companies {
		f.send(t, tenantEvent(c+"-gone", events.TypeUserRemoved, c, fmt.Sprintf(`"user_id":"%s-u1"`, c), at(1)))
		f.send(t, tenantEvent(c+"-config", events.TypeConfigUpdated, c, `"config":{"a":1}`, at(2)))
	}
	f.send(t, tenantEvent(missing+"-up", events.TypeUpgradeRequested, missing, `"new_tier":"pro"`, at(1)),
		tenantEvent(missing+"-down", events.TypeDowngradeRequested, missing, `"new_tier":"free"`, at(2)),
		tenantEvent(broken+"-schema", events.TypeSchemaUpgradeRequested, broken, "", at(1)),
		tenantEvent(broken+"-config", events.TypeConfigUpdated, broken, `"config":{"a":1}`, at(2)))
	for i := range neighbours {
		c := fmt.Sprintf("%s-n%d", id, i)
		f.send(t, registration(c, at(3)), tenantEvent(c+"-up", events.TypeUpgradeRequested, c, `"new_tier":"pro"`, at(4)))
	}
	// None of the locks is released before this.
	f.awaitConsumed(t)
	enginetest.Await(t, "the neighbours to be done", func() bool {
		return f.query(t, "SELECT count(*) FROM subscriptions WHERE tier = 'pro' AND company_id LIKE '"+id+"-n%'")[0] == fmt.Sprintf("(%d)", neighbours)
	})
	if got := f.query(t, "SELECT count(*), count(*) FILTER (WHERE state = 'waiting') FROM inbox WHERE company_id LIKE '"+id+"-locked%'"); got[0] != fmt.Sprintf("(%d,%d)", 3*locked, 2*locked) {
		t.Errorf("of the companies that can't go on: %v", got)
	}
	if got := f.query(t, "SELECT state FROM inbox WHERE event_id IN ('"+broken+"-schema', '"+broken+"-config') ORDER BY seq"); fmt.Sprint(got) != "[(rejected) (done)]" {
		t.Errorf("of the company without a schema: %v", got)
	}
	enginetest.Await(t, "readiness to name them", func() bool {
		text, _ := note.Load().(string)
		for _, c := range append([]string{missing}, companies...) {
			if !strings.Contains(text, "company "+c+" can't go on") {
				return false
			}
		}
		return strings.Contains(text, "blocked by login_")
	})

	for _, free := range release {
		free()
	}
	f.exec(t, "INSERT INTO subscriptions (company_id, tier, period_start, period_end, price_minor, limits) SELECT * FROM kept")
	enginetest.Await(t, "all to catch up", func() bool {
		return f.query(t, "SELECT count(*) FROM inbox WHERE state = 'waiting'")[0] == "(0)"
	})
	for _, c := range companies {
		if got := f.query(t, "SELECT string_agg(action, ' ' ORDER BY seq) FROM audit_log WHERE company_id = '"+c+"'"); got[0] != `("company.created company.user_removed company.config_changed")` {
			t.Errorf("%s: %v", c, got)
		}
	}
	if got := f.query(t, "SELECT string_agg(action, ' ' ORDER BY seq) FROM audit_log WHERE company_id = '"+missing+"'"); got[0] != `("company.created subscription.upgraded subscription.downgrade_scheduled")` {
		t.Errorf("%s: %v", missing, got)
	}
	enginetest.Await(t, "readiness to name nothing", func() bool { return note.Load() == "" })
	f.awaitPublished(t)
	f.checkAudit(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestBlocked_AnEventOfNoYearStopsNothing(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	id, now := unique(), time.Now().Add(-time.Hour)
	f.start(t, tenantService{})
	bad := tenantEvent(id+"-bad", events.TypeUpgradeRequested, id+"-stranger", `"new_tier":"pro"`, now)
	far := tenantEvent(id+"-far", events.TypePaymentReceived, id, fmt.Sprintf(`"payment_id":"%s-p","amount_minor":1,"currency":"USD","paid_at":"9999-12-31T23:59:59-01:00"`, id), now)
	for i := range bad.Head {
		if bad.Head[i].Key == "ce_time" {
			bad.Head[i].Value = []byte("0000-01-01T00:00:00+01:00")
		}
	}
	f.send(t, bad, far, tenantEvent(id+"-up", events.TypeUpgradeRequested, id, `"new_tier":"pro"`, now.Add(time.Minute)), registration(id, now))
	f.awaitConsumed(t)
	enginetest.Await(t, "the upgrade", func() bool { return len(f.query(t, "SELECT FROM subscriptions WHERE tier = 'pro'")) == 1 })
	if got := f.log(events.TopicSubscription).Letters(t); got[events.TimestampTooOld] != 1 || got[events.InvalidData] != 1 || len(got) != 2 {
		t.Errorf("dead letters: %v", got)
	}
}

// A statement that fails for one company, whatever the cause, is not the others' trouble when what was left behind is swept.
func TestSweep_GoesOnBehindACompanyThatFails(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	id, now := unique(), time.Now().Add(-time.Hour)
	stop := f.start(t, tenantService{})
	bad, good := id+"-bad", id+"-good"
	f.send(t, registration(bad, now), registration(good, now))
	f.awaitConsumed(t)
	release := []func(){f.hold(t, bad), f.hold(t, good)}
	for _, c := range []string{bad, good} {
		f.send(t, tenantEvent(c+"-gone", events.TypeUserRemoved, c, fmt.Sprintf(`"user_id":"%s-u1"`, c), now.Add(time.Minute)))
		f.awaitConsumed(t)
	}
	failing := func(like string) {
		f.exec(t, "CREATE OR REPLACE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.company_id LIKE ''"+like+"'' THEN RAISE EXCEPTION ''no''; END IF; RETURN NEW; END'")
	}
	failing("%")
	f.exec(t, "CREATE TRIGGER no BEFORE INSERT ON public.audit_log FOR EACH ROW EXECUTE FUNCTION public.no()")
	for _, free := range release {
		free()
	}
	f.exec(t, "DELETE FROM company_blocks") // as if the process that was to try again had died
	failing(bad)
	waiting := func(company string) bool {
		return f.query(t, "SELECT count(*) FROM inbox WHERE state = 'waiting' AND company_id = '"+company+"'")[0] != "(0)"
	}
	enginetest.Await(t, "the other company to go on", func() bool { return !waiting(good) })
	if !waiting(bad) {
		t.Error("the statement did not fail")
	}
	f.exec(t, "DROP TRIGGER no ON public.audit_log")
	enginetest.Await(t, "both to be done", func() bool { return !waiting(bad) })
	f.awaitPublished(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
}
