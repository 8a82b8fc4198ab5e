package postgres_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/directory"
	"tenantflow/internal/tier"
)

func TestASubscriptionIsReadWithItsUsersAndItsLastEffect(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.exec(t,
		"INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('ACME', 'B', 'b@x'), ('bare', 'C', 'c@x'), ('gone', '', '')",
		`INSERT INTO subscriptions (company_id, tier, status, period_start, anchor_day, grace_until, pending_tier, cancel_at_period_end, benefits)
			VALUES ('acme', 'pro', 'past_due', '2026-01-31 10:00:00.123456+02', 31, '2026-02-07 00:00+00', 'free', true, '{"a": {"b": []}}')`,
		"INSERT INTO subscriptions (company_id, tier, period_start) VALUES ('ACME', 'ghost', '2026-01-01 00:00+00'), ('gone', 'pro', '2026-01-01 00:00+00')",
		"INSERT INTO user_directory (user_id, company_id, subscription_status) SELECT 'u-' || i, 'acme', CASE WHEN i <= 25 THEN 'active' ELSE 'suspended' END FROM generate_series(1, 2000) AS i",
		"INSERT INTO company_heads (company_id, last_effect_at, subscription_effect_at, audit_seq, audit_hash) VALUES ('acme', '2026-03-01 00:00+00', '2026-02-01 00:00:00.5+00', 1, '')",
		"UPDATE companies SET status = 'closed' WHERE company_id = 'ACME'", "UPDATE companies SET status = 'purged' WHERE company_id = 'gone'")
	got, err := w.store.Subscription(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	pro, _ := tier.Default().Tier("pro")
	start := time.Date(2026, 1, 31, 8, 0, 0, 123_456_000, time.UTC)
	if got.CompanyID != "acme" || got.CompanyStatus != "active" || got.Tier != "pro" || got.Status != "past_due" || !got.PeriodStart.Equal(start) || got.AnchorDay != 31 ||
		got.PriceMinor != 4900 || got.Currency != "USD" || got.PendingTier != "free" || !got.CancelAtEnd || got.Months != 1 || fmt.Sprint(got.Benefits) != "map[a:map[b:[]]]" || got.RenewalUntil != nil ||
		got.PendingAt == nil || !got.PendingAt.Equal(got.PeriodEnd) || got.Books.Charged != 4900 ||
		!got.GraceUntil.Equal(time.Date(2026, 2, 7, 0, 0, 0, 0, time.UTC)) || !got.LastEffect.Equal(time.Date(2026, 2, 1, 0, 0, 0, 5e8, time.UTC)) ||
		got.Limits.MaxUsers != pro.MaxUsers || len(got.Limits.Features) != len(pro.Features) || got.ActiveUsers != 25 || got.SuspendedUsers != 1975 {
		t.Errorf("got %+v", got)
	}
	twin, err := w.store.Subscription(t.Context(), "ACME")
	if err != nil || twin.CompanyStatus != "closed" || twin.Tier != "ghost" || twin.PriceMinor != 0 || twin.GraceUntil != nil || !twin.LastEffect.IsZero() || twin.ActiveUsers != 0 || len(twin.Benefits) != 0 {
		t.Errorf("the one in capital letters: %+v, %v", twin, err)
	}
	for _, id := range []string{"bare", "gone", "nobody", "", "acme' OR 'a'='a", strings.Repeat("a", 51), "а"} {
		if s, err := w.store.Subscription(t.Context(), id); !errors.Is(err, directory.ErrUnknown) {
			t.Errorf("%q: %+v, %v", id, s, err)
		}
	}
}
