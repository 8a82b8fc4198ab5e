package tier_test

import (
	"testing"
	"time"

	"tenantflow/internal/tier"
)

func TestWhatIsDueIsAppliedInItsOrder(t *testing.T) {
	t.Parallel()
	start, end := instant(t, "2024-01-31T10:00:00Z"), instant(t, "2024-02-29T10:00:00Z")
	paid := func(name string, price int64) tier.Current {
		return tier.Current{Tier: name, PriceMinor: price, PeriodStart: start, PeriodEnd: end, AnchorDay: 31}
	}
	for _, c := range []struct {
		name                     string
		state                    tier.State
		at, tier, status, period string
		price                    int64
	}{
		{"nothing is due before the end", tier.State{Current: paid("pro", 4900), Status: "active", PendingTier: "free"}, "2024-02-29T09:59:59Z", "pro", "active", "2024-02-29T10:00:00Z", 4900},
		{"a paid period ends", tier.State{Current: paid("pro", 4900), Status: "active"}, "2024-02-29T10:00:00Z", "free", "expired", "2024-03-29T10:00:00Z", 0},
		{"a free one does not", tier.State{Current: paid("free", 0), Status: "active"}, "2030-01-01T00:00:00Z", "free", "active", "2024-02-29T10:00:00Z", 0},
		{"an expired one has ended", tier.State{Current: paid("pro", 4900), Status: "expired"}, "2030-01-01T00:00:00Z", "pro", "expired", "2024-02-29T10:00:00Z", 4900},
		{"a cancellation", tier.State{Current: paid("enterprise", 49900), Status: "active", PendingTier: "free", CancelAtPeriodEnd: true}, "2024-03-01T00:00:00Z", "free", "cancelled", "2024-03-29T10:00:00Z", 0},
		{"a downgrade to free", tier.State{Current: paid("enterprise", 49900), Status: "active", PendingTier: "free"}, "2030-03-01T00:00:00Z", "free", "active", "2024-03-29T10:00:00Z", 0},
		{"a downgrade keeps the anchor", tier.State{Current: paid("enterprise", 49900), Status: "active", PendingTier: "pro"}, "2024-03-30T00:00:00Z", "pro", "active", "2024-03-31T10:00:00Z", 4900},
		{"and its period ends too", tier.State{Current: paid("enterprise", 49900), Status: "active", PendingTier: "pro"}, "2024-03-31T10:00:00Z", "free", "expired", "2024-04-30T10:00:00Z", 0},
		{"a tier that is gone is free", tier.State{Current: paid("enterprise", 49900), Status: "active", PendingTier: "gone"}, "2024-03-01T00:00:00Z", "free", "active", "2024-03-29T10:00:00Z", 0},
		{"grace goes on after the period", tier.State{Current: paid("pro", 4900), Status: "past_due", GraceUntil: instant(t, "2024-03-04T00:00:00Z")}, "2024-03-03T00:00:00Z", "pro", "past_due", "2024-02-29T10:00:00Z", 4900},
		{"and ends", tier.State{Current: paid("pro", 4900), Status: "past_due", GraceUntil: instant(t, "2024-03-04T00:00:00Z")}, "2024-03-04T00:00:00Z", "free", "expired", "2024-04-04T00:00:00Z", 0},
		{"grace goes over into the next tier", tier.State{Current: paid("enterprise", 49900), Status: "past_due", PendingTier: "pro", GraceUntil: instant(t, "2024-03-04T00:00:00Z")},
			"2024-03-01T00:00:00Z", "pro", "past_due", "2024-03-31T10:00:00Z", 4900},
		{"grace ends before a change that waits", tier.State{Current: paid("enterprise", 49900), Status: "past_due", PendingTier: "pro", GraceUntil: instant(t, "2024-02-20T00:00:00Z")},
			"2024-02-21T00:00:00Z", "free", "expired", "2024-03-20T00:00:00Z", 0},
		{"and ends there", tier.State{Current: paid("enterprise", 49900), Status: "past_due", PendingTier: "pro", GraceUntil: instant(t, "2024-03-04T00:00:00Z")},
			"2024-03-05T00:00:00Z", "free", "expired", "2024-04-04T00:00:00Z", 0},
	} {
		got := tier.Default().Settle(c.state, instant(t, c.at))
		if got.Tier != c.tier || got.Status != c.status || got.PeriodEnd.Format(time.RFC3339) != c.period || got.PriceMinor != c.price {
			t.Errorf("%s: %+v", c.name, got)
		}
		if due, ok := got.DueAt(); ok && !due.After(instant(t, c.at)) {
			t.Errorf("%s: something is still due at %s", c.name, due)
		}
	}
}
