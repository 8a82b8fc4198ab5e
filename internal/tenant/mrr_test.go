package tenant_test

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/internal/analytics"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
)

// A payingFrom is what the subscription itself says that the company pays a month, from a time on.
type payingFrom struct {
	at  time.Time
	mrr analytics.Money
}

// keep keeps of an effect what subscription_events keeps, read as sinks/postgres/queries/revenue.sql reads it.
func (l *ledger) keep(c *tenant.Cause, d *tenant.Decision) {
	l.t.Helper()
	if !ofSubscription(c) {
		return
	}
	mrr := analytics.Money(0)
	if s := l.state.Subscription; s != nil && s.ClosedAt == nil {
		mrr = analytics.Money(s.PriceMinor)
	}
	l.paying = append(l.paying, payingFrom{d.At, mrr})
	if d.Silent || !strings.HasPrefix(d.Action, "subscription.") {
		return
	}
	details, err := json.Marshal(d.Details)
	if err != nil {
		l.t.Fatalf("%v", err)
	}
	var kept struct {
		To         string `json:"to"`
		Tier       string `json:"tier"`
		PriceMinor *int64 `json:"price_minor"`
		Reinstated bool   `json:"reinstated"`
	}
	if err := json.Unmarshal(details, &kept); err != nil {
		l.t.Fatalf("the details %s: %v", details, err)
	}
	l.history = append(l.history, analytics.Effect{At: d.At, Event: d.Action, Tier: cmp.Or(kept.To, kept.Tier), PriceMinor: (*analytics.Money)(kept.PriceMinor), Reinstated: kept.Reinstated})
}

// The movements of the monthly recurring revenue follow from what is kept of a history: over histories with grace periods, expiries,
// reinstatements, closings and purges, every month begins with the end of the one before, its parts sum to its own end, and that is what the
// subscription itself said then. There is no catalogue to fall back on: the records alone say the prices.
func TestMRR_FollowsFromTheHistory(t *testing.T) {
	t.Parallel()
	rules := tenant.New(tenant.Config{Catalogue: tier.Default()})
	rapid.Check(t, func(t *rapid.T) {
		h := writeHistory(t, rules, "acme")
		l := h.live
		paying := slices.Clone(l.paying)
		if len(paying) == 0 {
			return
		}
		slices.SortStableFunc(paying, func(a, b payingFrom) int { return a.at.Compare(b.at) })
		first, last := analytics.MonthOf(paying[0].at), analytics.MonthOf(paying[len(paying)-1].at)
		before := analytics.Money(0)
		for _, m := range analytics.Movements(l.history, nil, first, last+1) {
			end := analytics.Money(0)
			for _, p := range paying {
				if analytics.MonthOf(p.at) <= m.Month {
					end = p.mrr
				}
			}
			if m.Start != before || m.Start+m.New+m.Expansion+m.Reactivated-m.Contraction-m.Churned != m.End || m.End != end {
				t.Fatalf("%+v after %s, want the end %s\n%+v\n%s", m, before, end, l.history, h)
			}
			before = m.End
		}
	})
}
