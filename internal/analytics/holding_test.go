package analytics

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestHoldings_FollowTheEffects(t *testing.T) {
	t.Parallel()
	day := func(d int) time.Time { return time.Date(2026, 3, d, 0, 0, 0, 0, time.UTC) }
	price := func(m Money) *Money { return &m }
	got := Holdings(day(2), []Effect{
		{At: day(3), Event: "subscription.upgraded", Tier: "pro", PriceMinor: price(4900)},
		{At: day(4), Event: "subscription.renewed", PriceMinor: price(3900)}, // a record that does not say of which tier
		{At: day(5), Event: "subscription.downgraded", Tier: "free", PriceMinor: price(0)},
		{At: day(5), Event: "subscription.upgraded", Tier: "enterprise"}, // of before prices were recorded
		{At: day(6), Event: "subscription.payment_recorded", Tier: "pro"},
		{At: day(7), Event: "subscription.expired", Tier: "enterprise"},
		{At: day(8), Event: "subscription.closed", Tier: "free"},
	}, map[string]Money{"enterprise": 49900})
	var lines []string
	for _, h := range got {
		lines = append(lines, fmt.Sprintf("%d %s %s", h.From.Day(), h.Tier, h.Price))
	}
	if got, want := strings.Join(lines, "; "), "2 free 0.00; 3 pro 49.00; 4 pro 39.00; 5 enterprise 499.00; 7 free 0.00; 8  0.00"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if h, ok := HeldBefore(got, day(5)); !ok || h.Tier != "pro" || h.Price != 3900 {
		t.Errorf("before the 5th: %+v", h)
	}
	if h, ok := HeldBefore(got, day(2)); ok {
		t.Errorf("before the registration: %+v", h)
	}
	early := Holdings(day(4), []Effect{{At: day(3), Event: "subscription.upgraded", Tier: "pro", PriceMinor: price(1)}}, nil)
	if len(early) != 1 || early[0].Tier != "pro" || !early[0].From.Equal(day(3)) {
		t.Errorf("an event that has waited for its company: %+v", early)
	}
}
