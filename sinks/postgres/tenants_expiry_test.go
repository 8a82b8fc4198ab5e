package postgres_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

func TestASubscriptionExpiresOnceAndALateRenewalReinstatesIt(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	for i := 2; i <= 3; i++ {
		b.apply(t, b.event(events.TypeUserAdded, fmt.Sprintf(`"user_id":"%s-u%d","email":"u%d@acme.example"`, b.company, i, i)), "company.user_provisioned")
	}
	b.apply(t, b.event(events.TypeExpired, ""), "subscription.rejected not_expired")
	by := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC) // the period ends on 28 February, and a renewal is waited for until 3 March
	if due, err := b.tenants.Due(t.Context(), 3, by, 10); err != nil || len(due) != 1 || due[0].ID != "due:"+b.company+":renewal_grace:2026-03-03T10:02:00Z" ||
		due[0].Source != "/tenantflow/schedule" || due[0].Type != "subscription.due.v1" || due[0].Key != b.company || !due[0].Time.Equal(time.Date(2026, 3, 3, 10, 2, 0, 0, time.UTC)) {
		t.Fatalf("due %+v: %v", due, err)
	}
	for _, none := range []struct {
		partition int
		by        time.Time
	}{{2, by}, {3, by.AddDate(0, 0, -1)}} {
		if due, err := b.tenants.Due(t.Context(), none.partition, none.by, 10); err != nil || len(due) != 0 {
			t.Fatalf("due in partition %d by %s: %v, %v", none.partition, none.by, due, err)
		}
	}
	for i, want := range [][]string{{"subscription.expiry_handled", "notification.requested", "notification.requested", "notification.requested", "company.config_changed"}, {}} {
		done := b.settle(t, by, want...)
		if i == 0 && !strings.Contains(string(done[0].Results[0].Event.Data), b.company+`-u3`) {
			t.Errorf("restrictions: %s", done[0].Results[0].Event.Data)
		}
	}
	if got := b.subscription(t); got != "(free,expired,0,03-03,04-03,,,pro)" {
		t.Errorf("expired: %s", got)
	}
	if got := b.row(t, `SELECT user_id, subscription_tier, subscription_status FROM "tenant_`+b.company+`".users ORDER BY user_id`); got !=
		strings.ReplaceAll("(C-u1,free,active) ; (C-u2,free,suspended) ; (C-u3,free,suspended)", "C", b.company) {
		t.Errorf("users: %s", got)
	}
	b.apply(t, b.event(events.TypeUserRemoved, `"user_id":"`+b.company+`-u1"`), "company.user_deprovisioned")
	if got := b.row(t, "SELECT user_id, subscription_status FROM user_directory ORDER BY user_id"); got !=
		strings.ReplaceAll("(C-u2,active) ; (C-u3,suspended)", "C", b.company) {
		t.Errorf("the oldest of the suspended does not take the place: %s", got)
	}
	b.clock = time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeExpired, `"expired_at":"2026-02-28T12:00:00Z"`), "subscription.expiry_handled") // recorded, and no more
	b.apply(t, b.event(events.TypeRenewed, `"period_start":"2026-02-28T10:02:00Z","period_end":"2026-02-28T10:02:00Z"`), "subscription.rejected invalid_period")
	b.apply(t, b.event(events.TypeRenewed, `"period_start":"2026-02-28T10:02:00Z","period_end":"2026-04-01T10:02:00Z"`), "subscription.rejected invalid_period")
	b.apply(t, b.event(events.TypeRenewed, `"period_start":"2026-02-28T10:02:00Z","period_end":"2026-03-31T10:02:00Z"`), "subscription.renewal_recorded", "company.config_changed")
	if got := b.subscription(t); got != "(pro,active,4900,02-28,03-31,,,)" {
		t.Errorf("reinstated: %s", got)
	}
}

func TestAFailedPaymentIsFollowedByGraceAndThenByExpiry(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	pay := func(id, more string) string { return `"payment_id":"` + b.company + id + `"` + more }
	b.apply(t, b.event(events.TypePaymentFailed, pay("-f0", "")), "subscription.payment_failure_recorded")
	if got := b.subscription(t); got != "(free,active,0,01-31,02-28,,,)" {
		t.Errorf("a free company has no grace: %s", got)
	}
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	b.apply(t, b.event(events.TypePaymentFailed, pay("-f1", `,"reason":"card"`)), "subscription.payment_failure_recorded")
	if got := b.subscription(t); got != "(pro,past_due,4900,01-31,02-28,,02-07,)" {
		t.Errorf("past due: %s", got)
	}
	received := `,"currency":"USD","paid_at":"2026-02-01T00:00:00Z"`
	b.apply(t, b.event(events.TypePaymentReceived, pay("-f1", `,"amount_minor":0`+received)), "subscription.rejected invalid_amount")
	b.apply(t, b.event(events.TypePaymentReceived, pay("-f1", `,"amount_minor":-4900`+received)), "subscription.rejected invalid_amount")
	b.apply(t, b.event(events.TypePaymentReceived, pay("-f1", `,"amount_minor":4900,"currency":"EUR","paid_at":"2026-02-01T00:00:00Z"`)), "subscription.rejected currency_mismatch")
	b.apply(t, b.event(events.TypePaymentReceived, pay("-c", `,"amount_minor":1,"billing_period":"2026-01"`+received)), "subscription.payment_recorded")
	b.apply(t, b.event(events.TypePaymentReceived, pay("-x", `,"amount_minor":4900,"billing_period":"2026-02"`+received)), "subscription.payment_recorded")
	if got := b.subscription(t); got != "(pro,past_due,4900,01-31,02-28,,02-07,)" {
		t.Errorf("a cent, and what belongs to another month: %s", got)
	}
	b.apply(t, b.event(events.TypePaymentReceived, pay("-f1", `,"amount_minor":4899`+received)), "subscription.payment_recorded")
	b.apply(t, b.event(events.TypePaymentReceived, pay("-f1", `,"amount_minor":4899`+received)), "subscription.rejected duplicate_payment")
	b.apply(t, b.event(events.TypePaymentFailed, pay("-f1", "")), "subscription.rejected duplicate_payment")
	if got := b.subscription(t); got != "(pro,active,4900,01-31,02-28,,,)" {
		t.Errorf("paid: %s", got)
	}
	b.apply(t, b.event(events.TypePaymentFailed, pay("-f2", "")), "subscription.payment_failure_recorded") // all of it is paid
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.upgraded", "company.config_changed")
	b.apply(t, b.event(events.TypePaymentFailed, pay("-f3", "")), "subscription.payment_failure_recorded")
	if got := b.subscription(t); got != "(enterprise,past_due,49900,01-31,02-28,,02-07,)" {
		t.Errorf("the upgrade is not paid: %s", got)
	}
	b.clock = b.clock.Add(8 * 24 * time.Hour)
	b.apply(t, b.event(events.TypePaymentReceived, pay("-f3", `,"amount_minor":50000`+received)),
		"subscription.expiry_handled", "notification.requested", "company.config_changed", "subscription.payment_recorded") // late, but money
	late := b.event(events.TypePaymentReceived, pay("-f4", `,"amount_minor":50000,"billing_period":"2026-01"`+received))
	late.Time = time.Date(2026, 2, 6, 0, 0, 0, 0, time.UTC) // it was in time, and comes late
	b.apply(t, late, "subscription.payment_recorded", "company.config_changed")
	if got := b.subscription(t); got != "(enterprise,active,49900,01-31,02-28,,,)" {
		t.Errorf("reinstated: %s", got)
	}
}

func TestRenewal_IsRecordedAheadAndBegins(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.upgraded", "company.config_changed")
	b.apply(t, b.event(events.TypeDowngradeRequested, `"new_tier":"pro"`), "subscription.downgrade_scheduled")
	paid := func(id, month string) string {
		return `"payment_id":"` + b.company + id + `","amount_minor":4900,"currency":"USD","paid_at":"2026-02-01T00:00:00Z","billing_period":"` + month + `"`
	}
	b.apply(t, b.event(events.TypePaymentReceived, paid("-early", "2026-02")), "subscription.payment_recorded")
	renewal := `"period_start":"2026-02-28T10:02:00Z","period_end":"2027-02-28T10:02:00Z","payment":{"payment_id":"` + b.company + `-p","reference":7}`
	b.apply(t, b.event(events.TypeRenewed, strings.Replace(renewal, "2027-02-28", "2027-02-27", 1)), "subscription.rejected invalid_period")
	done := b.apply(t, b.event(events.TypeRenewed, renewal), "subscription.renewal_recorded")
	if data := string(done[0].Results[0].Event.Data); !strings.Contains(data, `"effective_date": "2026-02-28T10:02:00Z"`) || strings.Contains(data, "amount_minor") {
		t.Errorf("recorded ahead: %s", data)
	}
	if got := b.subscription(t); got != "(enterprise,active,49900,01-31,02-28,pro,,)" {
		t.Errorf("until then everything stays: %s", got)
	}
	done = b.settle(t, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), "subscription.downgraded", "company.config_changed", "subscription.renewal_recorded")
	if data := string(done[1].Results[0].Event.Data); !strings.Contains(data, `"began": true`) || !strings.Contains(data, `"amount_minor": 58800`) || !strings.Contains(data, `"transaction_id"`) ||
		!strings.Contains(data, `"handled_at"`) || done[1].ID != "due:"+b.company+":renewal:2026-02-28T10:02:00Z" || !done[1].Results[0].Event.Time.Equal(time.Date(2026, 2, 28, 10, 2, 0, 0, time.UTC)) {
		t.Errorf("it began: %s", data)
	}
	if got := b.row(t, "SELECT tier, period_months, period_start, period_end, price_minor, renewal_until, next_period_start FROM subscriptions"); got !=
		`(pro,12,"2026-02-28 10:02:00+00","2027-02-28 10:02:00+00",4900,"2027-03-03 10:02:00+00",)` {
		t.Errorf("begun: %s", got)
	}
	if got := b.row(t, "SELECT amount_minor, payment_data ->> 'reference' FROM billing_transactions WHERE transaction_type = 'renewal'"); got != "(58800,7)" {
		t.Errorf("books: %s", got)
	}
	if got := b.row(t, "SELECT payment_id, status, transaction_id IS NOT NULL, to_char(period_start, 'MM-DD') FROM payments ORDER BY 1"); got !=
		"("+b.company+"-early,received,f,02-28) ; ("+b.company+"-p,pending,t,02-28)" {
		t.Errorf("payments: %s", got)
	}

	// One that can't begin any more is dropped, and its payment is free again.
	b.clock = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	next := `"period_start":"2027-02-28T10:02:00Z","period_end":"2027-03-31T10:02:00Z","payment":{"payment_id":"` + b.company + `-q"}`
	b.apply(t, b.event(events.TypeRenewed, next), "subscription.renewal_recorded")
	b.apply(t, b.event(events.TypeCancelRequested, `"effective":"immediate"`), "subscription.cancelled", "subscription.change_withdrawn", "company.config_changed")
	if got := b.row(t, "SELECT period_start FROM payments WHERE payment_id LIKE '%-q'"); got != "()" {
		t.Errorf("the payment of the dropped renewal: %s", got)
	}
	b.apply(t, b.event(events.TypeRenewed, next), "subscription.rejected nothing_to_renew")
}

func TestClock_CompanyEventsDoNotMoveIt(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	later := b.event(events.TypeConfigUpdated, `"config":{"a":1}`)
	later.Time = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC) // long after the period's end
	b.apply(t, later, "company.config_changed")
	if got := b.subscription(t); got != "(pro,active,4900,01-31,02-28,,,)" {
		t.Errorf("after a company event of June: %s", got)
	}
	b.clock = time.Date(2026, 2, 14, 10, 1, 0, 0, time.UTC) // half of the period
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.upgraded", "company.config_changed")
	if got := b.row(t, "SELECT amount_minor FROM billing_transactions ORDER BY created_at"); got != "(4900) ; (22500)" {
		t.Errorf("books: %s", got)
	}
	if got := b.row(t, "SELECT subscription_effect_at, company_effect_at, last_effect_at FROM company_heads"); got !=
		`("2026-02-14 10:02:00+00","2026-06-01 00:00:00+00","2026-06-01 00:00:00+00")` {
		t.Errorf("heads: %s", got)
	}
}

func TestTier_ThatLeftTheCatalogueKeepsItsPrice(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.exec(t, "UPDATE subscriptions SET tier = 'gold', price_minor = 9900, period_start = '2026-02-01 00:00+00', period_end = '2026-03-01 00:00+00', anchor_day = 1")
	b.clock = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeRenewed, `"period_start":"2026-03-01T00:00:00Z","period_end":"2026-05-01T00:00:00Z"`), "subscription.renewal_recorded", "company.config_changed")
	if got := b.row(t, "SELECT tier, price_minor, limits ->> 'max_users', (SELECT amount_minor FROM billing_transactions) FROM subscriptions"); got != "(gold,9900,1,19800)" {
		t.Errorf("renewed: %s", got)
	}
	b.apply(t, b.event(events.TypeDowngradeRequested, `"new_tier":"pro"`), "subscription.downgrade_scheduled")
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.upgraded", "company.config_changed")
}

func TestDue_IsPublishedAgainWithoutEffect(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	due := func() []*events.Event {
		t.Helper()
		found, err := b.tenants.Due(t.Context(), 3, time.Time{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	first := due()
	if len(first) != 1 {
		t.Fatalf("due: %v", first)
	}
	if err := b.tenants.MarkDue(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if again := due(); len(again) != 0 {
		t.Errorf("at once again: %v", again)
	}
	// The broker's clock is behind: no effect, and no trace.
	early := b.place(3)
	early.Appended = first[0].Time.Add(-time.Millisecond)
	if done, err := b.tenants.Apply(t.Context(), first[0], early); err != nil || len(done) != 0 {
		t.Errorf("taken before its time: %v, %v", done, err)
	}
	if got := b.row(t, "SELECT count(*) FROM inbox"); got != "(2)" {
		t.Errorf("inbox: %s", got)
	}
	b.exec(t, "UPDATE due_events SET published_at = published_at - interval '10 minutes'")
	if again := due(); len(again) != 1 {
		t.Errorf("after ten minutes: %v", again)
	}
	// An event in another partition moves the company there, also one that is refused.
	if _, err := b.tenants.Apply(t.Context(), b.event(events.TypeDowngradeRequested, `"new_tier":"pro"`), b.place(5)); err != nil {
		t.Fatal(err)
	}
	if found, err := b.tenants.Due(t.Context(), 5, time.Time{}, 10); err != nil || len(found) != 1 {
		t.Errorf("in the partition of the last event: %v, %v", found, err)
	}
	for i, want := range [][]string{{"subscription.expiry_handled", "notification.requested", "company.config_changed"}, {}} {
		done, err := b.tenants.Apply(t.Context(), first[0], b.place(5))
		if err != nil {
			t.Fatal(err)
		}
		b.expect(t, fmt.Sprintf("the %d. copy", i+1), done, want)
	}
	if got := b.row(t, "SELECT count(*) FROM due_events"); got != "(0)" {
		t.Errorf("what is done is still noted as published: %s", got)
	}
}

func TestDue_TheSameTimeMayComeTwice(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	b.apply(t, b.event(events.TypeCancelRequested, ""), "subscription.cancellation_scheduled")
	by := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	b.settle(t, by, "subscription.cancelled", "company.config_changed")
	b.exec(t, `UPDATE subscriptions SET tier = 'pro', status = 'active', price_minor = 4900, period_start = '2026-01-31 10:02+00', period_end = '2026-02-28 10:02+00',
		pending_tier = 'free', cancel_at_period_end = true`) // as it was
	b.settle(t, by, "subscription.cancelled")
	if got := b.row(t, "SELECT count(*), count(published_at) FROM inbox WHERE source = '/tenantflow/schedule'"); got != "(1,1)" {
		t.Errorf("inbox: %s", got)
	}
}

func TestDue_IsTheServicesOwn(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	due := tenant.DueCause(b.company, tenant.Due{Kind: tenant.DueRenewalGrace, At: time.Date(2026, 3, 3, 10, 2, 0, 0, time.UTC)}).Event
	for name, change := range map[string]func(e *events.Event){
		"another source": func(e *events.Event) { e.Source = "/billing" },
		"another id":     func(e *events.Event) { e.ID += "0" },
		"another time":   func(e *events.Event) { e.Time = e.Time.Add(time.Second) },
		"another type":   func(e *events.Event) { e.Type = events.TypeCancelRequested },
	} {
		forged := *due
		change(&forged)
		if _, err := b.tenants.Apply(t.Context(), &forged, b.place(3)); !isRejection(err, events.MalformedEnvelope) {
			t.Errorf("%s: %v", name, err)
		}
	}
	done, err := b.tenants.Apply(t.Context(), due, b.place(3))
	if err != nil {
		t.Fatal(err)
	}
	b.expect(t, "the service's own", done, []string{"subscription.expiry_handled", "notification.requested", "company.config_changed"})
}

func TestDue_WaitsInTheQueueOfItsCompany(t *testing.T) {
	t.Parallel()
	b, again := newBook(t), newBook(t)
	registration := b.event(events.TypeCompanyRegistered, fmt.Sprintf(`"name":"Acme","billing_email":"pay@acme.example","initial_user":{"user_id":"%s-u1","email":"u1@acme.example"}`, b.company))
	up := b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`)
	due := tenant.DueCause(b.company, tenant.Due{Kind: tenant.DueRenewalGrace, At: time.Date(2026, 3, 3, 10, 2, 0, 0, time.UTC)}).Event
	old := b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`) // older than what is due, and behind it in the log
	play := func(b *book, all ...*events.Event) {
		t.Helper()
		for _, e := range all {
			if _, err := b.tenants.Apply(t.Context(), e, b.place(3)); err != nil {
				t.Fatal(err)
			}
		}
	}
	play(b, registration, up, due, due, old)
	again.company = b.company + "x"
	renamed := func(e *events.Event) *events.Event {
		other := *e
		other.Key, other.ID, other.Data = again.company, strings.Replace(e.ID, b.company, again.company, 1), []byte(strings.ReplaceAll(string(e.Data), b.company, again.company))
		return &other
	}
	play(again, renamed(up), renamed(due), renamed(due), renamed(old), renamed(registration)) // the registration was read last
	if first, second := b.subscription(t), again.subscription(t); first != second || first != "(enterprise,active,49900,03-03,04-03,,,)" {
		t.Errorf("one after the other: %s, from the queue: %s", first, second)
	}
	if got := again.row(t, "SELECT state, count(*) FROM inbox GROUP BY 1"); got != "(done,4)" {
		t.Errorf("inbox: %s", got)
	}
}

func TestRenewalGrace_CanBeNone(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.tenants = b.store.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default(), RenewalGrace: -1})})
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	if got := b.row(t, "SELECT period_end = due_at, due_at = renewal_until FROM subscriptions"); got != "(t,t)" {
		t.Errorf("without a grace period: %s", got)
	}
}
