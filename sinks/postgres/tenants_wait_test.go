package postgres_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tenantflow/events"
)

func TestEventsWaitForTheirCompanyAndAreAppliedInOrder(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	registration := b.event(events.TypeCompanyRegistered, fmt.Sprintf(`"name":"Acme","billing_email":"pay@acme.example","initial_user":{"user_id":"%s-u1","email":"u1@acme.example"}`, b.company))
	up := b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`)
	more := b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise","expected_tier":"pro"`)
	b.apply(t, up)
	b.apply(t, up) // again: it waits once
	b.apply(t, more)
	if got := b.row(t, "SELECT state, count(*) FROM inbox GROUP BY 1"); got != "(waiting,2)" {
		t.Errorf("inbox: %s", got)
	}
	b.apply(t, registration, "company.created", "subscription.created", "company.config_changed",
		"subscription.upgraded", "company.config_changed", "subscription.upgraded", "company.config_changed")
	if got := b.row(t, "SELECT state, event IS NULL, count(*) FROM inbox GROUP BY 1, 2"); got != "(done,t,3)" {
		t.Errorf("inbox: %s", got)
	}
	b.apply(t, more)
}

func TestAnEventThatWaitsForNobodyIsRefused(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`))
	b.apply(t, b.event(events.TypeUserAdded, `"user_id":"`+b.company+`-u9","email":"u@x"`))
	if none, err := b.tenants.GiveUp(t.Context(), 0, 10); err != nil || len(none) != 0 {
		t.Fatalf("too early: %v, %v", none, err)
	}
	b.exec(t, "UPDATE inbox SET wait_until = now() - interval '1 second'")
	if none, err := b.tenants.GiveUp(t.Context(), time.Minute, 10); err != nil || len(none) != 0 {
		t.Fatalf("not long enough ago: %v, %v", none, err)
	}
	done, err := b.tenants.GiveUp(t.Context(), 0, 10)
	if got := told(t, done); err != nil || !slices.Equal(got, []string{"subscription.rejected unknown_company", "company.rejected unknown_company"}) {
		t.Fatalf("%q, %v", got, err)
	}
	left, err := b.tenants.Unpublished(t.Context(), -time.Hour, 10)
	if got := told(t, left); err != nil || len(got) != 2 {
		t.Errorf("not published yet: %q, %v", got, err)
	}
	for i := range done {
		if string(done[i].Results[0].Event.Data) != string(left[i].Results[0].Event.Data) || done[i].Results[0].Event.ID != left[i].Results[0].Event.ID {
			t.Errorf("published as\n%s\nand again as\n%s", done[i].Results[0].Event.Data, left[i].Results[0].Event.Data)
		}
	}
	if err := b.tenants.MarkPublished(t.Context(), left); err != nil {
		t.Fatal(err)
	}
	if left, err := b.tenants.Unpublished(t.Context(), -time.Hour, 10); err != nil || len(left) != 0 {
		t.Errorf("published: %v, %v", left, err)
	}
}

func TestWhatIsDueComesBeforeAnEventThatHasWaited(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	registration := b.event(events.TypeCompanyRegistered, fmt.Sprintf(`"name":"Acme","billing_email":"pay@acme.example","initial_user":{"user_id":"%s-u1","email":"u1@acme.example"}`, b.company))
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`))
	b.clock = b.clock.AddDate(0, 2, 0)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`))
	b.apply(t, registration, "company.created", "subscription.created", "company.config_changed", "subscription.upgraded", "company.config_changed",
		"subscription.expiry_handled", "notification.requested", "company.config_changed", "subscription.upgraded", "company.config_changed")
}

func TestAChangeThatWaitsDoesNotProlongTheGrace(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.upgraded", "company.config_changed")
	b.apply(t, b.event(events.TypeCancelRequested, ""), "subscription.cancellation_scheduled")
	b.apply(t, b.event(events.TypePaymentFailed, `"payment_id":"`+b.company+`-p"`), "subscription.payment_failure_recorded")
	by := time.Date(2026, 2, 8, 0, 0, 0, 0, time.UTC)
	done := b.settle(t, by, "subscription.expiry_handled", "notification.requested", "company.config_changed")
	if len(done) == 1 && done[0].ID != "due:"+b.company+":payment_grace:2026-02-07T10:04:00Z" {
		t.Errorf("it is called %s", done[0].ID)
	}
	if got := b.subscription(t); got != "(free,expired,0,02-07,03-07,,,enterprise)" {
		t.Errorf("then: %s", got)
	}
}

func TestAWaitingEventThatPostgresRefusesIsHeldAndStopsNobody(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	registration := b.event(events.TypeCompanyRegistered, fmt.Sprintf(`"name":"Acme","billing_email":"pay@acme.example","initial_user":{"user_id":"%s-u1","email":"u1@acme.example"}`, b.company))
	bad := b.event(events.TypePaymentReceived, `"payment_id":"`+b.company+`-bad","amount_minor":1,"currency":"USD","paid_at":"2026-02-01T00:00:00Z"`)
	b.apply(t, bad)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`))
	b.exec(t, "ALTER TABLE payments ADD CONSTRAINT never CHECK (payment_id NOT LIKE '%-bad')") // data that the table can't hold
	b.apply(t, registration, "company.created", "subscription.created", "company.config_changed", "subscription.upgraded", "company.config_changed")
	if got := b.row(t, "SELECT event_id, event IS NOT NULL FROM inbox WHERE state = 'held'"); got != "("+bad.ID+",t)" {
		t.Errorf("held: %s", got)
	}
	again := *bad
	again.ID += "x"
	if _, err := b.tenants.Apply(t.Context(), &again, b.place(0)); !isRejection(err, events.RejectedByStore) {
		t.Errorf("an event with the same: %v", err)
	}
}
