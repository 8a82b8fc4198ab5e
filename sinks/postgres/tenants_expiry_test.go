package postgres_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
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
	by := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	if due, err := b.tenants.Due(t.Context(), 3, by, 10); err != nil || !slices.Equal(due, []string{b.company}) {
		t.Fatalf("due %v: %v", due, err)
	}
	if due, err := b.tenants.Due(t.Context(), 2, by, 10); err != nil || len(due) != 0 {
		t.Fatalf("due in another partition %v: %v", due, err)
	}
	for i, want := range [][]string{{"subscription.expiry_handled", "notification.requested", "notification.requested", "notification.requested", "company.config_changed"}, {}} {
		done := b.settle(t, by, want...)
		if i == 0 && !strings.Contains(string(done[0].Results[0].Event.Data), `"users_suspended":{"new":["`+b.company+`-u2","`+b.company+`-u3"],"old":[]}`) &&
			!strings.Contains(string(done[0].Results[0].Event.Data), b.company+`-u3`) {
			t.Errorf("restrictions: %s", done[0].Results[0].Event.Data)
		}
	}
	if got := b.subscription(t); got != "(free,expired,0,02-28,03-28,,,pro)" {
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
	b.clock = time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeExpired, `"expired_at":"2026-02-28T12:00:00Z"`), "subscription.rejected not_expired")
	b.apply(t, b.event(events.TypeRenewed, `"period_start":"2026-02-28T10:02:00Z","period_end":"2026-02-28T10:02:00Z"`), "subscription.rejected invalid_period")
	b.apply(t, b.event(events.TypeRenewed, `"period_start":"2026-02-28T10:02:00Z","period_end":"2027-03-31T10:02:00Z"`), "subscription.rejected invalid_period")
	b.apply(t, b.event(events.TypeRenewed, `"period_start":"2026-02-28T10:02:00Z","period_end":"2026-03-31T10:02:00Z"`), "subscription.renewal_recorded", "company.config_changed")
	if got := b.subscription(t); got != "(pro,active,4900,02-28,03-31,,,)" {
		t.Errorf("reinstated: %s", got)
	}
}

func TestAnExpiryThatIsToldTooEarlyOrOfWhatEndsOtherwiseIsRefused(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.clock = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

	// It ends as it would have by itself.
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	b.clock = time.Date(2026, 4, 10, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeExpired, `"expired_at":"2026-04-01T00:00:00Z"`), "subscription.expiry_handled", "notification.requested", "company.config_changed",
		"subscription.rejected not_expired")
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	b.apply(t, b.event(events.TypeCancelRequested, ""), "subscription.cancellation_scheduled")
	b.clock = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeExpired, ""), "subscription.cancelled", "company.config_changed", "subscription.rejected not_expired")

	// The time of grace may be longer than the period.
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	b.clock = time.Date(2026, 6, 29, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypePaymentFailed, `"payment_id":"`+b.company+`-f"`), "subscription.payment_failure_recorded")
	b.clock = time.Date(2026, 7, 3, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeExpired, ""), "subscription.rejected not_expired")
	b.clock = time.Date(2026, 7, 6, 0, 2, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeExpired, ""), "subscription.expiry_handled", "notification.requested", "company.config_changed")
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
	b.apply(t, b.event(events.TypeExpired, `"expired_at":"2026-02-05T00:00:00Z"`), "subscription.rejected not_expired")
	received := `,"currency":"USD","paid_at":"2026-02-01T00:00:00Z"`
	b.apply(t, b.event(events.TypePaymentReceived, pay("-f1", `,"amount_minor":0`+received)), "subscription.rejected invalid_amount")
	b.apply(t, b.event(events.TypePaymentReceived, pay("-f1", `,"amount_minor":-4900`+received)), "subscription.rejected invalid_amount")
	b.apply(t, b.event(events.TypePaymentReceived, pay("-f1", `,"amount_minor":4900,"currency":"EUR","paid_at":"2026-02-01T00:00:00Z"`)), "subscription.rejected currency_mismatch")
	b.apply(t, b.event(events.TypePaymentReceived, pay("-f1", `,"amount_minor":4900`+received)), "subscription.payment_recorded")
	b.apply(t, b.event(events.TypePaymentReceived, pay("-f1", `,"amount_minor":4900`+received)), "subscription.rejected duplicate_payment")
	b.apply(t, b.event(events.TypePaymentFailed, pay("-f1", "")), "subscription.rejected duplicate_payment")
	if got := b.subscription(t); got != "(pro,active,4900,01-31,02-28,,,)" {
		t.Errorf("paid: %s", got)
	}
	b.apply(t, b.event(events.TypePaymentFailed, pay("-f2", "")), "subscription.payment_failure_recorded")
	b.clock = b.clock.Add(8 * 24 * time.Hour)
	b.apply(t, b.event(events.TypePaymentReceived, pay("-f2", `,"amount_minor":4900`+received)), "subscription.payment_recorded") // late, but money
	b.apply(t, b.event(events.TypePaymentFailed, pay("-f3", "")), "subscription.payment_failure_recorded")
	b.clock = b.clock.Add(8 * 24 * time.Hour)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise","expected_tier":"pro"`),
		"subscription.expiry_handled", "notification.requested", "company.config_changed", "subscription.rejected tier_changed")
}

func TestAnExpiryThatIsToldInTimeIsItsOwnAnswer(t *testing.T) {
	t.Parallel()
	said, found := newBook(t), newBook(t)
	found.world, found.tenants = said.world, said.tenants
	of := func(b *book) string {
		return b.row(t, `SELECT tier, status, period_start, period_end, previous_tier, anchor_day FROM subscriptions WHERE company_id = '`+b.company+`'`)
	}
	for _, b := range []*book{said, found} {
		b.register(t)
		b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	}
	said.clock = time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC)
	e := said.event(events.TypeExpired, `"expired_at":"2026-02-28T10:02:00Z"`)
	done := said.apply(t, e, "subscription.expiry_handled", "notification.requested", "company.config_changed")
	if len(done) != 1 || done[0].Results[0].Event.CausationID != e.ID {
		t.Errorf("caused by another event: %+v", done)
	}
	by := said.clock
	if _, err := found.tenants.ApplyDue(t.Context(), found.company, 3, by); err != nil {
		t.Fatal(err)
	}
	if of(said) != of(found) || !strings.HasPrefix(of(said), `(free,expired,"2026-02-28 10:02:00+00"`) {
		t.Errorf("told: %s, found: %s", of(said), of(found))
	}
	said.settle(t, by) // not both told and found
	found.clock = said.clock
	found.apply(t, found.event(events.TypeExpired, ""), "subscription.rejected not_expired") // it was found before

	// A cancellation is none, and what is said to be over before it was is looked at after what was due.
	for _, b := range []*book{said, found} {
		b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	}
	said.apply(t, said.event(events.TypeCancelRequested, ""), "subscription.cancellation_scheduled")
	said.clock, found.clock = said.clock.AddDate(0, 2, 0), found.clock.AddDate(0, 2, 0)
	said.apply(t, said.event(events.TypeExpired, ""), "subscription.cancelled", "company.config_changed", "subscription.rejected not_expired")
	found.apply(t, found.event(events.TypeExpired, `"expired_at":"2026-03-01T00:00:00Z"`),
		"subscription.expiry_handled", "notification.requested", "company.config_changed", "subscription.rejected not_expired")
}

func TestAPaymentThatComesAfterThePeriodDoesNotEndTheGrace(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	b.clock = time.Date(2026, 2, 27, 0, 0, 0, 0, time.UTC) // the renewal is to be paid, and is not
	b.apply(t, b.event(events.TypePaymentFailed, `"payment_id":"`+b.company+`-p"`), "subscription.payment_failure_recorded")
	b.clock = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypePaymentReceived, `"payment_id":"`+b.company+`-p","amount_minor":4900,"currency":"USD","paid_at":"2026-03-02T00:00:00Z"`), "subscription.payment_recorded")
	// Whoever has just paid is not put on the free tier before the renewal comes.
	b.settle(t, b.clock.Add(time.Hour))
	b.apply(t, b.event(events.TypeRenewed, `"period_start":"2026-02-28T10:02:00Z","period_end":"2026-03-31T10:02:00Z"`), "subscription.renewal_recorded")
	if got := b.subscription(t); got != "(pro,active,4900,02-28,03-31,,,)" {
		t.Errorf("renewed: %s", got)
	}
}

func TestPeriodsFollowTheDayOfARenewal(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.upgraded", "company.config_changed")
	b.apply(t, b.event(events.TypeRenewed, `"period_start":"2026-02-28T10:02:00Z","period_end":"2026-03-15T00:00:00Z"`), "subscription.renewal_recorded")
	b.apply(t, b.event(events.TypeDowngradeRequested, `"new_tier":"pro"`), "subscription.downgrade_scheduled")
	b.clock = time.Date(2026, 3, 15, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeCancelRequested, ""), "subscription.downgraded", "company.config_changed", "subscription.cancellation_scheduled")
	if got := b.subscription(t); got != "(pro,active,4900,03-15,04-15,free,,)" { // a month for a month's price
		t.Errorf("after the downgrade: %s", got)
	}
}

func TestARenewalWithdrawsTheWayToFreeAndTakesTheOneToAPaidTier(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.upgraded", "company.config_changed")
	renewal := func(from, to string) string {
		return fmt.Sprintf(`"period_start":"2026-%sT10:02:00Z","period_end":"2026-%sT10:02:00Z"`, from, to)
	}
	for _, way := range []struct {
		eventType, data, scheduled, period, want string
		changed                                  bool
	}{
		{events.TypeDowngradeRequested, `"new_tier":"free"`, "subscription.downgrade_scheduled", renewal("02-28", "03-31"), "(enterprise,active,49900,02-28,03-31,,,)", false},
		{events.TypeCancelRequested, "", "subscription.cancellation_scheduled", renewal("03-31", "04-30"), "(enterprise,active,49900,03-31,04-30,,,)", false},
		{events.TypeDowngradeRequested, `"new_tier":"pro"`, "subscription.downgrade_scheduled", renewal("04-30", "05-31"), "(pro,active,4900,04-30,05-31,,,)", true},
	} {
		b.apply(t, b.event(way.eventType, way.data), way.scheduled)
		want := []string{"subscription.renewal_recorded"}
		if way.changed {
			want = append(want, "company.config_changed")
		}
		b.apply(t, b.event(events.TypeRenewed, way.period), want...)
		if got := b.subscription(t); got != way.want {
			t.Errorf("renewed after %s %s: %s, want %s", way.eventType, way.data, got, way.want)
		}
	}
}
