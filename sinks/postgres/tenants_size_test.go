package postgres_test

import (
	"fmt"
	"strings"
	"testing"

	"tenantflow/events"
	"tenantflow/sinks/postgres"
)

// largestRecord is what a broker takes as it is delivered. A result that is larger is never published, and its partition stands
// still for ever.
const largestRecord = 1 << 20

func sizes(t *testing.T, done []postgres.Applied) {
	t.Helper()
	for _, one := range done {
		for _, r := range one.Results {
			if r.Event == nil {
				continue
			}
			if n := len(r.Event.Data); n > largestRecord-4096 {
				t.Errorf("%s has %d bytes, which no topic takes", r.Event.Type, n)
			}
		}
	}
}

func TestAPurgeLeavesNoAddressInResultsThatWereOnTheirWay(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	registered, err := b.tenants.Apply(t.Context(), b.event(events.TypeCompanyRegistered,
		fmt.Sprintf(`"name":"Acme","billing_email":"pay@acme.example","initial_user":{"user_id":"%s-u1","email":"u1@acme.example"}`, b.company)), b.place(3))
	if err != nil {
		t.Fatal(err)
	}
	b.apply(t, b.event(events.TypeCompanyClosed, `"purge":true`), "subscription.due", "company.archived", "company.config tombstone")
	if err := b.tenants.MarkPublished(t.Context(), registered); err != nil {
		t.Fatal(err)
	}
	if got := b.row(t, "SELECT type, published_at IS NOT NULL, result IS NULL, result::text LIKE '%acme.example%' FROM inbox ORDER BY seq"); got !=
		"(company.registered.v1,t,t,) ; (company.closed.v1,t,f,f)" {
		t.Errorf("inbox: %s", got)
	}
}

func TestNoResultIsLargerThanATopicTakes(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	// Few bytes in an event, many where numbers are written out.
	var members []string
	for i := range 4000 {
		members = append(members, fmt.Sprintf(`"k%d":1e300`, i))
	}
	b.apply(t, b.event(events.TypeConfigUpdated, `"config":{`+strings.Join(members, ",")+`}`), "company.rejected invalid_config")
	b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"x":1e-16000}`), "company.rejected invalid_config")
	b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"x":1E+300,"y":[1.5e-7,-2e3,0]}`), "company.config_changed")

	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.upgraded", "company.config_changed")
	const users = 22000
	b.exec(t, fmt.Sprintf(`INSERT INTO user_directory (user_id, company_id, email, created_at)
			SELECT rpad('%[1]s' || '-' || n, 50, 'x'), '%[1]s', n || '@x', '2026-02-01' FROM generate_series(1, %[2]d) AS n`, b.company, users),
		fmt.Sprintf(`INSERT INTO "tenant_%[1]s".users (user_id, email, created_at) SELECT user_id, email, created_at FROM user_directory
			WHERE company_id = '%[1]s' AND user_id <> '%[1]s-u1'`, b.company))
	for _, tier := range []string{"pro", "free"} {
		done, err := b.tenants.Apply(t.Context(), b.event(events.TypeDowngradeRequested, `"effective":"immediate","new_tier":"`+tier+`"`), b.place(3))
		if err != nil {
			t.Fatal(err)
		}
		sizes(t, done)
		if tier == "pro" && !strings.Contains(string(done[0].Results[0].Event.Data), fmt.Sprintf(`"total": %d`, users+1-25)) {
			t.Errorf("nobody is told how many users are suspended: %.300s", done[0].Results[0].Event.Data)
		}
	}
}
