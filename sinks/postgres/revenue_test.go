package postgres_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/directory"
)

// revenue is what the store says of the company: its charges, and its effects as "day event tier price".
func (b *book) revenue(t *testing.T) (charges, effects string) {
	t.Helper()
	r, err := b.store.Revenue(t.Context(), b.company)
	if err != nil {
		t.Fatal(err)
	}
	if r.Currency != "USD" || r.CreatedAt.IsZero() || r.Prices["pro"] != 4900 || len(r.Prices) != 3 {
		t.Errorf("%+v", r)
	}
	text, err := json.Marshal(r.Charges)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range r.Effects {
		price := "-"
		if e.PriceMinor != nil {
			price = fmt.Sprint(*e.PriceMinor)
		}
		line := fmt.Sprintf("%s %s %s %s", e.At.UTC().Format("01-02"), strings.TrimPrefix(e.Event, "subscription."), e.Tier, price)
		if e.Reinstated {
			line += " reinstated"
		}
		lines = append(lines, line)
	}
	return string(text), strings.Join(lines, "; ")
}

// Charges are by the month in which their period begins and by the tier that they are for, and the effects say what the company pays from
// then on: also after a payment that brings back what has expired.
func TestRevenue_IsReadFromTheBooks(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	if charges, effects := b.revenue(t); charges != "[]" || effects != "" {
		t.Errorf("of a new company: %s, %s", charges, effects)
	}
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	b.clock = time.Date(2026, 2, 14, 10, 1, 0, 0, time.UTC) // half of the period that has begun in January is over
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.upgraded", "company.config_changed")
	b.apply(t, b.event(events.TypeDowngradeRequested, `"new_tier":"pro"`), "subscription.downgrade_scheduled")
	b.clock = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypePaymentFailed, `"payment_id":"`+b.company+`-p1","reason":"card"`), "subscription.downgraded", "company.config_changed", "subscription.payment_failure_recorded")
	late := b.event(events.TypePaymentReceived, `"payment_id":"`+b.company+`-p1","amount_minor":4900,"currency":"USD","paid_at":"2026-03-08T00:00:00Z"`)
	b.settle(t, time.Date(2026, 3, 20, 0, 0, 0, 0, time.UTC), "subscription.expiry_handled", "notification.requested", "company.config_changed")
	b.apply(t, late, "subscription.payment_recorded", "company.config_changed")
	b.clock = time.Date(2026, 3, 21, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeRenewed, `"period_start":"2026-03-31T10:02:00Z","period_end":"2027-03-31T10:02:00Z"`), "subscription.renewal_recorded")
	b.settle(t, time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC), "subscription.renewal_recorded")
	b.clock = time.Date(2026, 4, 10, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeCancelRequested, `"effective":"immediate"`), "subscription.cancelled", "company.config_changed")
	charges, effects := b.revenue(t)
	if want := `[{"month":"2026-01","tier":"enterprise","currency":"USD","amount_minor":22500},{"month":"2026-01","tier":"pro","currency":"USD","amount_minor":4900},` +
		`{"month":"2026-02","tier":"pro","currency":"USD","amount_minor":4900},{"month":"2026-03","tier":"pro","currency":"USD","amount_minor":58800}]`; charges != want {
		t.Errorf("charges: got\n%s\nwant\n%s", charges, want)
	}
	if want := "01-31 upgraded pro 4900; 02-14 upgraded enterprise 49900; 02-28 downgraded pro 4900; 03-09 expired pro -; 03-09 payment_recorded pro 4900 reinstated; " +
		"03-31 renewed pro 4900; 04-10 cancelled pro -"; effects != want {
		t.Errorf("effects: got\n%s\nwant\n%s", effects, want)
	}
}

func TestRevenue_OfWhatOthersHaveWritten(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.exec(t,
		`INSERT INTO billing_transactions (transaction_id, company_id, transaction_type, new_tier, amount_minor, currency, lines, period_start, created_at) VALUES
			('t1', '`+b.company+`', 'upgrade', 'pro', 10, 'USD', '[]', '2026-01-31 23:59:59.999+00', '2026-06-01'), ('t2', '`+b.company+`', 'renewal', 'pro', 20, 'USD', '[]', '2026-02-01 00:30:00+01', '2026-06-01'),
			('t3', '`+b.company+`', 'renewal', 'pro', 40, 'EUR', '[]', '2026-01-01', '2026-06-01'), ('t4', '`+b.company+`', 'downgrade', NULL, -3, 'USD', '[]', NULL, '2026-02-01'), ('t5', '`+b.company+`', 'renewal', 'pro', 0, 'USD', '[]', NULL, '2026-05-01')`,
		// Rows of before prices were kept, and such as no version writes.
		`INSERT INTO subscription_events (company_id, event, event_time, data) VALUES ('`+b.company+`', 'subscription.upgraded', '2026-02-01', '{"from": "free", "to": "pro", "amount_minor": 4900}'),
			('`+b.company+`', 'subscription.downgraded', '2026-02-02', NULL), ('`+b.company+`', 'subscription.renewed', '2026-02-03', '[1]'), ('`+b.company+`', 'subscription.renewed', '2026-02-04', '{"tier": "pro", "price_minor": 1.5, "reinstated": "maybe"}'),
			('`+b.company+`', 'subscription.payment_recorded', '2026-02-05', '{"payment_id": "p"}'), ('`+b.company+`', 'subscription.payment_failed', '2026-02-05', '{}'), ('other', 'subscription.upgraded', '2026-02-05', '{"to": "pro"}')`)
	charges, effects := b.revenue(t)
	if want := `[{"month":"2026-01","tier":"pro","currency":"EUR","amount_minor":40},{"month":"2026-01","tier":"pro","currency":"USD","amount_minor":30},{"month":"2026-02","tier":"free","currency":"USD","amount_minor":-3}]`; charges != want {
		t.Errorf("charges: got\n%s\nwant\n%s", charges, want)
	}
	if want := "02-01 upgraded pro -; 02-02 downgraded  -; 02-03 renewed  -; 02-04 renewed pro -"; effects != want {
		t.Errorf("effects: got\n%s\nwant\n%s", effects, want)
	}
}

func TestRevenue_OfNoSuchCompany(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('bare', 'B', 'b@x')")
	for _, unknown := range []string{"stranger", "bare", strings.ToUpper(b.company)} {
		if r, err := b.store.Revenue(t.Context(), unknown); !errors.Is(err, directory.ErrUnknown) {
			t.Errorf("%s: %+v, %v, want an unknown company", unknown, r, err)
		}
	}
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	b.apply(t, b.close(t, ""))
	if _, effects := b.revenue(t); !strings.HasSuffix(effects, "closed pro -") {
		t.Errorf("of a closed company: %s", effects)
	}
	b.apply(t, b.event(events.TypeCompanyClosed, `"purge":true`), "company.archived", "company.config tombstone")
	if r, err := b.store.Revenue(t.Context(), b.company); !errors.Is(err, directory.ErrUnknown) {
		t.Errorf("of a purged company: %+v, %v", r, err)
	}
}
