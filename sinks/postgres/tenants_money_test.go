package postgres_test

import (
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

const (
	ahead    = `"period_start":"2026-02-28T10:02:00Z","period_end":"2026-03-31T10:02:00Z"` // follows the period of an upgrade that comes second
	received = `,"amount_minor":4900,"currency":"USD","paid_at":"2026-02-01T00:00:00Z"`
)

// named is a payment object, and named alone a payment's id.
func (b *book) named(id string) string { return `"payment_id":"` + b.company + id + `"` }

// payments are the company's, without its id in theirs.
func (b *book) payments(t *testing.T) string {
	t.Helper()
	return strings.ReplaceAll(b.row(t, "SELECT payment_id, status, to_char(period_start AT TIME ZONE 'UTC', 'MM-DD') AS period, transaction_id IS NOT NULL AS pays FROM payments ORDER BY 1"), b.company, "")
}

func TestRenewal_ThatIsDroppedReleasesAllItsPayments(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro","payment":{`+b.named("-a")+`}`), "subscription.upgraded", "company.config_changed")
	for _, id := range []string{"-x", "-y"} {
		b.apply(t, b.event(events.TypeRenewed, ahead+`,"payment":{`+b.named(id)+`}`), "subscription.renewal_recorded")
	}
	b.apply(t, b.event(events.TypePaymentReceived, b.named("-x")+received), "subscription.payment_recorded")
	b.apply(t, b.event(events.TypeCancelRequested, `"effective":"immediate"`), "subscription.cancelled", "subscription.change_withdrawn", "company.config_changed")
	if got := b.payments(t); got != "(-a,pending,01-31,t) ; (-x,received,,f) ; (-y,pending,,f)" {
		t.Errorf("payments: %s", got)
	}
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro","payment":{`+b.named("-x")+`}`), "subscription.upgraded", "company.config_changed")
}

func TestRenewal_BeginsPastDueIfItsPaymentHasFailed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, paid, want string }{
		{"unpaid", "", "(pro,past_due,4900,02-28,03-31,,03-07,)"},
		{"paid by the same payment", "-x", "(pro,active,4900,02-28,03-31,,,)"},
		{"paid for the month", "-y", "(pro,active,4900,02-28,03-31,,,)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBook(t)
			b.register(t)
			b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
			b.apply(t, b.event(events.TypeRenewed, ahead+`,"payment":{`+b.named("-x")+`}`), "subscription.renewal_recorded")
			b.apply(t, b.event(events.TypePaymentFailed, b.named("-x")), "subscription.payment_failure_recorded")
			if got := b.subscription(t); got != "(pro,active,4900,01-31,02-28,,,)" {
				t.Errorf("before: %s", got)
			}
			if c.paid != "" {
				b.apply(t, b.event(events.TypePaymentReceived, b.named(c.paid)+received+`,"billing_period":"2026-02"`), "subscription.payment_recorded")
			}
			b.settle(t, time.Date(2026, 2, 28, 12, 0, 0, 0, time.UTC), "subscription.renewal_recorded")
			if got := b.subscription(t); got != c.want {
				t.Errorf("the period begins as %s, want %s", got, c.want)
			}
			if held, err := b.store.Subscription(t.Context(), b.company); err != nil || held.Ahead != (tenant.Ahead{}) {
				t.Errorf("ahead of it: %+v, %v", held.Ahead, err)
			}
		})
	}
}

func TestRenewal_KeepsTheDowngradeItBeginsWith(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.upgraded", "company.config_changed")
	b.apply(t, b.event(events.TypeDowngradeRequested, `"new_tier":"pro"`), "subscription.downgrade_scheduled")
	b.apply(t, b.event(events.TypeRenewed, ahead), "subscription.renewal_recorded")
	b.apply(t, b.event(events.TypeCancelRequested, ""), "subscription.cancellation_scheduled")
	if got := b.row(t, "SELECT pending_tier, cancel_at_period_end, pending_at, due_at FROM subscriptions"); got != `(free,t,"2026-03-31 10:02:00+00","2026-02-28 10:02:00+00")` {
		t.Errorf("scheduled: %s", got)
	}
	b.settle(t, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), "subscription.downgraded", "company.config_changed", "subscription.renewal_recorded")
	b.settle(t, time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC), "subscription.cancelled", "company.config_changed")
	if got := b.row(t, "SELECT transaction_type, new_tier, amount_minor FROM billing_transactions ORDER BY created_at, transaction_type"); got != "(upgrade,enterprise,49900) ; (downgrade,pro,0) ; (renewal,pro,4900)" {
		t.Errorf("books: %s", got)
	}
}
