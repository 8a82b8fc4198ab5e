package postgres_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tenant"
	"tenantflow/sinks/postgres"
)

// close closes the company, and returns the event that ends its subscription, as it will be read.
func (b *book) close(t *testing.T, data string, want ...string) *events.Event {
	t.Helper()
	done := b.apply(t, b.event(events.TypeCompanyClosed, data), append([]string{"subscription.due", "company.archived"}, want...)...)
	r := done[0].Results[0]
	if r.Topic != events.TopicSubscription || r.Key != b.company || r.Event.Source != tenant.DueSource {
		t.Fatalf("the closing goes to %s, key %s: %+v", r.Topic, r.Key, r.Event)
	}
	return &events.Event{Key: r.Key, Envelope: *r.Event}
}

func TestClosing_KeepsDataAndAPurgeTheBooks(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	done := b.apply(t, b.event(events.TypeCompanyClosed, `"reason":"moved away"`), "subscription.due", "company.archived")
	closing := done[0].Results[0]
	if closing.Partition == nil || *closing.Partition != 3 {
		t.Errorf("the closing is for partition %v, and the company's events come from 3", closing.Partition)
	}
	if got := b.row(t, "SELECT status, closed_at IS NOT NULL FROM companies"); got != "(closed,t)" {
		t.Errorf("closed: %s", got)
	}
	if users, err := b.store.Users(t.Context(), []string{b.company + "-u1"}); err != nil || len(users) != 1 || users[0].BillingStatus != "closed" {
		t.Errorf("the user of a closed company: %+v, %v", users, err)
	}
	b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"a":1}`), "company.rejected company_closed")
	b.apply(t, &events.Event{Key: closing.Key, Envelope: *closing.Event})
	if got := b.row(t, "SELECT tier, status, closed_at IS NOT NULL, due_at IS NULL FROM subscriptions"); got != "(pro,cancelled,t,t)" {
		t.Errorf("the subscription: %s", got)
	}
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.rejected company_closed")
	b.apply(t, b.event(events.TypeCompanyClosed, ""), "company.rejected company_closed")
	if due, err := b.tenants.Due(t.Context(), 3, time.Time{}, 10); err != nil || len(due) != 0 {
		t.Errorf("due: %v, %v", due, err)
	}
	if _, err := b.conn.Exec(t.Context(), `INSERT INTO recommendations (recommendation_id, company_id, user_id, kind, month, tier, score, flagged, idle, detail)
		SELECT gen_random_uuid(), company_id, 'u', 'churn', '2026-01', 'pro', 50, false, false, '{}' FROM companies`); err != nil {
		t.Fatal(err)
	}
	b.apply(t, b.event(events.TypeCompanyClosed, `"purge":true`), "company.archived", "company.config tombstone")
	b.isPurged(t, "(5)")
	b.apply(t, b.event(events.TypeCompanyClosed, `"purge":true`), "company.rejected company_closed")
	b.apply(t, b.event(events.TypeCompanyRegistered, `"name":"A","billing_email":"a@x","initial_user":{"user_id":"`+b.company+`-u1","email":"z@x"}`), "company.rejected company_exists")
}

// A purge takes what was found about the company's users as well where that is just being written: it waits for the company's row, and looks then.
func TestClosing_APurgeTakesWhatIsWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	put, err := os.ReadFile("queries/recommendations_put.sql")
	if err != nil {
		t.Fatal(err)
	}
	writing, err := b.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := `[{"recommendation_id":"11111111-1111-5111-8111-111111111111","user_id":"u","kind":"churn","tier":"free","score_hundredths":5000,"flagged":true,"idle":true,"detail":{}}]`
	if tag, err := writing.Exec(t.Context(), string(put), b.company, "2026-01", found); err != nil || tag.RowsAffected() != 1 {
		t.Fatal(tag, err)
	}
	purged := make(chan error, 1)
	closing := b.event(events.TypeCompanyClosed, `"purge":true`)
	go func() {
		_, err := b.tenants.Apply(t.Context(), closing, b.place(3))
		purged <- err
	}()
	enginetest.Await(t, "the purge waits for what is written", func() bool {
		waits := false
		if err := writing.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))").Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	})
	if err := writing.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-purged; err != nil {
		t.Fatal(err)
	}
	if got := b.row(t, "SELECT status, (SELECT count(*) FROM recommendations) FROM companies"); got != "(purged,0)" {
		t.Errorf("purged: %s", got)
	}
}

// What is left of a purged company is not published.
func TestRecommendations_OfThePurgedAreNotPublished(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	for status, want := range map[string]int{"closed": 1, "purged": 0} {
		for _, s := range []string{"UPDATE companies SET status = '" + status + "', closed_at = now()", `INSERT INTO recommendations (recommendation_id, company_id, user_id, kind, month, tier, score, flagged, idle, detail)
			SELECT gen_random_uuid(), company_id, 'u', 'churn', '2026-01', 'pro', 50, true, false, '{}' FROM companies ON CONFLICT DO NOTHING`} {
			if _, err := b.conn.Exec(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		if left, err := b.store.UnpublishedRecommendations(t.Context(), 10); err != nil || len(left) != want {
			t.Errorf("of a %s company: %v, %v", status, left, err)
		}
	}
}

// Who has left is looked up in a table of hashes, whatever plan Postgres has for a company's users: a search through all callers for each of them would take minutes.
func TestScoreChurn_HashesTheCallers(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	score, err := os.ReadFile("queries/churn_score.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"SET plan_cache_mode = force_generic_plan", "PREPARE score AS " + string(score)} {
		if _, err := b.conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := b.conn.Query(t.Context(), "EXPLAIN EXECUTE score ('2026-01', 'acme', '{a,b}')")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if text := strings.Join(plan, "\n"); err != nil || strings.Count(text, "hashed SubPlan") < 1 || strings.Contains(text, "ANY ($3)") {
		t.Errorf("the plan:\n%s\n%v", text, err)
	}
}

// isPurged checks that nothing is left of the company but its books.
func (b *book) isPurged(t *testing.T, records string) {
	t.Helper()
	for query, want := range map[string]string{
		"SELECT status, name, billing_email FROM companies":                                                                         "(purged,\"\",\"\")",
		"SELECT (SELECT count(*) FROM user_directory), (SELECT count(*) FROM subscriptions), (SELECT count(*) FROM company_config)": "(0,0,0)",
		"SELECT count(*) FROM pg_namespace WHERE nspname = 'tenant_" + b.company + "'":                                              "(0)",
		"SELECT count(*) FROM pg_roles WHERE rolname = 'tenant_" + b.company + "'":                                                  "(0)",
		"SELECT count(*) FROM billing_transactions":                                                                                 "(1)",
		"SELECT count(*) FROM recommendations":                                                                                      "(0)",
		"SELECT count(*) FROM audit_log":                                                                                            records,
		"SELECT count(*) FROM inbox WHERE result::text LIKE '%acme.example%'":                                                       "(0)",
	} {
		if got := b.row(t, query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

// What was sent before the closing is in the log before it, and has its effect however late it is read: also where everything is read
// again and company.events is far ahead, and where it is a purge that has left no users and no configuration.
func TestClosing_EventsBeforeItHaveTheirEffect(t *testing.T) {
	t.Parallel()
	for name, purge := range map[string]bool{"closed": false, "purged": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBook(t)
			b.register(t)
			upgrade := b.event(events.TypeUpgradeRequested, `"new_tier":"pro","payment":{"payment_id":"`+b.company+`-p"}`)
			paid := b.event(events.TypePaymentReceived, `"payment_id":"`+b.company+`-p","amount_minor":4900,"currency":"USD","paid_at":"2026-01-31T10:03:00Z"`)
			renewal := b.event(events.TypeRenewed, `"period_start":"2026-02-28T10:02:00Z","period_end":"2026-03-31T10:02:00Z"`)
			var closing *events.Event
			elsewhere := func() { // no partition waits for another
				t.Helper()
				for range 2 {
					if done, err := b.tenants.Apply(t.Context(), closing, b.place(5)); err != nil || len(told(t, done)) > 0 {
						t.Fatalf("the closing in another partition leads to %q, %v", told(t, done), err)
					}
				}
			}
			if purge {
				closing = b.close(t, `"purge":true`, "company.config tombstone")
				elsewhere()
				b.apply(t, upgrade, "subscription.upgraded")
			} else {
				closing = b.close(t, "")
				elsewhere()
				b.apply(t, upgrade, "subscription.upgraded", "company.config_changed")
			}
			b.apply(t, paid, "subscription.payment_recorded")
			elsewhere()
			b.apply(t, renewal, "subscription.renewal_recorded")
			b.apply(t, closing, "subscription.change_withdrawn")
			b.apply(t, closing) // it comes at least once
			b.apply(t, b.event(events.TypePaymentReceived, `"payment_id":"`+b.company+`-q","amount_minor":1,"currency":"USD","paid_at":"2026-01-31T10:03:00Z"`), "subscription.rejected company_closed")
			if got := b.row(t, "SELECT t.amount_minor, p.status, p.amount_minor FROM billing_transactions AS t JOIN payments AS p USING (transaction_id)"); got != "(4900,received,4900)" {
				t.Errorf("the books: %s", got)
			}
			if purge {
				b.isPurged(t, "(7)")
			} else if got := b.row(t, "SELECT config ->> 'subscription_tier' FROM company_config"); got != "(pro)" {
				t.Errorf("the configuration: %s", got)
			}
		})
	}
}

// Where subscription.events is read first, the subscription ends before the company does.
func TestClosing_ReadBeforeTheCompanyIsClosed(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	at := b.clock.Add(time.Hour).UTC()
	// Its events may be in another partition than the one that is read.
	closing := tenant.DueCause(b.company, tenant.Due{Kind: tenant.DueClosing, At: at}).Event
	b.apply(t, closing)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.rejected company_closed")
	b.apply(t, b.event(events.TypeUserRemoved, `"user_id":"`+b.company+`-u1"`), "company.user_deprovisioned")
	b.clock = at.Add(-time.Minute)
	b.apply(t, b.event(events.TypeCompanyClosed, `"purge":true`), "company.archived", "company.config tombstone")
	if got := b.row(t, "SELECT (SELECT closed_in FROM subscriptions), (SELECT status FROM companies)"); got != "({3},purged)" {
		t.Errorf("after the closing: %s", got)
	}
}

// The closing is a result like any other until it is published: a process that dies before leaves it to another.
func TestClosing_IsPublishedByAnotherProcess(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	e := b.event(events.TypeCompanyClosed, "")
	done, err := b.tenants.Apply(t.Context(), e, b.place(3))
	if err != nil {
		t.Fatal(err)
	}
	left, err := b.tenants.Unpublished(t.Context(), 0, 10)
	if err != nil || len(left) != 1 || len(left[0].Results) != 2 {
		t.Fatalf("left: %+v, %v", left, err)
	}
	was, is := done[0].Results[0], left[0].Results[0]
	if is.Event.ID != was.Event.ID || is.Event.Source != was.Event.Source || !is.Event.Time.Equal(e.Time) || is.Event.Type != events.TypeSubscriptionDue ||
		string(is.Event.Data) != string(was.Event.Data) {
		t.Errorf("published again: %+v, was %+v", is.Event, was.Event)
	}
	b.apply(t, &events.Event{Key: is.Key, Envelope: *is.Event})
	if got := b.row(t, "SELECT status, closed_at FROM subscriptions"); got != `(cancelled,"2026-01-31 10:02:00+00")` {
		t.Errorf("the subscription: %s", got)
	}
	if _, err := b.tenants.Apply(t.Context(), &events.Event{Key: b.company, Envelope: events.Envelope{Source: "/test", ID: is.Event.ID, Type: events.TypeSubscriptionDue,
		Time: e.Time, Data: is.Event.Data}}, postgres.Place{}); !isRejection(err, events.MalformedEnvelope) {
		t.Errorf("of another source: %v", err)
	}
}

// An end of a subscription that is lost comes again, until it is read; and verify says that it is awaited.
func TestClosing_ComesAgainUntilItIsRead(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	closing := b.close(t, "")
	due := func() (found []*events.Event) {
		t.Helper()
		found, err := b.tenants.Due(t.Context(), 3, time.Time{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	b.exec(t, "UPDATE subscriptions SET renewal_until = now() - interval '1 day'")
	if found := due(); len(found) != 0 {
		t.Errorf("due right after it, and of a closed company: %v", found[0].ID)
	}
	b.exec(t, "ALTER TABLE subscriptions DISABLE TRIGGER USER", "ALTER TABLE companies DISABLE TRIGGER USER",
		"UPDATE subscriptions SET updated_at = now() - interval '1 hour'", "UPDATE companies SET updated_at = now() - interval '1 hour'")
	found := due()
	if len(found) != 1 || found[0].ID != closing.ID || !found[0].Time.Equal(closing.Time) {
		t.Fatalf("an hour later: %v, want the closing %s", found, closing.ID)
	}
	if books, err := b.store.Books(t.Context(), b.company); err != nil || !books.Unclosed || books.ClosedAlone {
		t.Errorf("books: %+v, %v", books, err)
	}
	if err := b.tenants.MarkDue(t.Context(), found); err != nil {
		t.Fatal(err)
	}
	if found := due(); len(found) != 0 {
		t.Errorf("published a moment ago, and again: %v", found[0].ID)
	}
	b.exec(t, "ALTER TABLE subscriptions ENABLE TRIGGER USER", "ALTER TABLE companies ENABLE TRIGGER USER")
	b.apply(t, found[0])
	if books, err := b.store.Books(t.Context(), b.company); err != nil || books.Unclosed || books.ClosedAlone {
		t.Errorf("books: %+v, %v", books, err)
	}
}

// A company without a row in subscriptions is refused what is sent for it, and can be purged.
func TestClosing_WithoutASubscription(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.exec(t, "DELETE FROM subscriptions")
	b.apply(t, b.event(events.TypeCompanyClosed, ""), "company.archived")
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.rejected company_closed")
	b.apply(t, b.event(events.TypeCompanyClosed, `"purge":true`), "company.archived", "company.config tombstone")
}
