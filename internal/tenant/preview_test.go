package tenant_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tenantmodel"
	"tenantflow/internal/tier"
)

// clone returns a ledger that goes its own way from here.
func (l *ledger) clone() *ledger {
	other := *l
	other.last, other.inbox, other.results = maps.Clone(l.last), maps.Clone(l.inbox), maps.Clone(l.results)
	other.transactions, other.paid, other.queue = maps.Clone(l.transactions), slices.Clone(l.paid), slices.Clone(l.queue)
	other.payments = map[string]*tenant.Payment{}
	for id, p := range l.payments {
		payment := *p
		other.payments[id] = &payment
	}
	return &other
}

// previewed is what a preview says of a request.
func (l *ledger) previewed(newTier string, at time.Time) (said string, down bool) {
	l.t.Helper()
	c := cause(l.t, tenantmodel.Event{Topic: events.TopicSubscription, Type: events.TypeUpgradeRequested, Company: l.company, Source: "/s", ID: "preview", Time: at,
		Data: map[string]any{"new_tier": newTier}})
	l.load(c)
	p, err := l.rules.Preview(&l.state, newTier, at)
	if err != nil {
		return "refused", false
	}
	a := p.Change.Transaction.Adjustment
	return moneyOf(a.AmountMinor, p.Change.At, a.PeriodStart, a.PeriodEnd), p.Down
}

// moneyOf is an amount, since when it is charged, and for which period.
func moneyOf(amount int64, times ...any) string {
	text := fmt.Sprint(amount)
	for _, at := range times {
		if moment, ok := at.(time.Time); ok {
			at = moment.UTC().Format(time.RFC3339Nano)
		}
		text += fmt.Sprint(" ", at)
	}
	return text
}

// executed is what comes of a request once it takes effect: at once, or when the period that it is for ends. Empty: its company expires before.
func (l *ledger) executed(kind, newTier string, at time.Time) string {
	l.t.Helper()
	l = l.clone()
	c := &tenant.Cause{Event: &events.Event{Envelope: events.Envelope{Source: "/s", ID: "executed " + newTier}}}
	l.take(tenantmodel.Event{Topic: events.TopicSubscription, Type: kind, Company: l.company, Source: "/s", ID: c.Event.ID, Time: at, Appended: at, Data: map[string]any{"new_tier": newTier}})
	if l.inbox[identity(c)] == "rejected" {
		return "refused"
	}
	scheduled := l.results[events.ResultID(c.Event.Source, c.Event.ID, events.TypeDowngradeScheduled, 0)].Data["effective_date"]
	for {
		for _, done := range []string{events.TypeUpgraded, events.TypeDowngraded} {
			if r, there := l.results[events.ResultID(c.Event.Source, c.Event.ID, done, 0)]; there && (scheduled == nil || scheduled == r.Data["effective_date"]) {
				a, _ := r.Data["billing_adjustment"].(map[string]any)
				amount, _ := a["amount_minor"].(float64)
				return moneyOf(int64(amount), r.Data["effective_date"], a["period_start"], a["period_end"])
			}
		}
		due := l.state.Due()
		if len(due) == 0 || due[0].Kind == tenant.DuePaymentGrace || due[0].Kind == tenant.DueRenewalGrace {
			return ""
		}
		c = tenant.DueCause(l.company, due[0])
		l.take(tenantmodel.Event{Topic: events.TopicSubscription, Type: c.Event.Type, Company: l.company, Source: c.Event.Source, ID: c.Event.ID, Time: due[0].At, Appended: due[0].At,
			Data: map[string]any{"kind": due[0].Kind, "due_at": due[0].At.Format(time.RFC3339Nano)}})
	}
}

// foresee holds a preview against what a request leads to.
func (l *ledger) foresee(t *rapid.T, at time.Time) {
	t.Helper()
	if l.state.Subscription == nil || len(l.queue) > 0 {
		return
	}
	newTier := rapid.SampledFrom([]string{"free", "pro", "enterprise"}).Draw(t, "previewed tier")
	said, down := l.previewed(newTier, at)
	kind := events.TypeUpgradeRequested
	if down {
		kind = events.TypeDowngradeRequested
	}
	if done := l.executed(kind, newTier, at); done != "" && done != said {
		t.Fatalf("a change to %s at %s: the preview is %s, the execution %s", newTier, at, said, done)
	}
}

func TestPreview_WithAPeriodRecordedAhead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		lines []string
		at    string
		want  string
	}{
		{"a period that follows", []string{"11-01 up enterprise", "11-20 renew 12-01 27-01-01"}, "11-25", "4900 2027-01-01T00:00:00Z 2027-01-01T00:00:00Z 2027-02-01T00:00:00Z"},
		{"a year that follows", []string{"11-01 up enterprise", "11-20 renew 12-01 27-12-01"}, "11-25", "4900 2027-12-01T00:00:00Z 2027-12-01T00:00:00Z 2028-01-01T00:00:00Z"},
		{"none", []string{"11-01 up enterprise"}, "11-25", "4900 2026-12-01T00:00:00Z 2026-12-01T00:00:00Z 2027-01-01T00:00:00Z"},
		{"one that has begun by then", []string{"11-01 up enterprise", "11-20 renew 12-01 27-01-01"}, "12-02", "4900 2027-01-01T00:00:00Z 2027-01-01T00:00:00Z 2027-02-01T00:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStory(t, tenant.New(tenant.Config{Catalogue: tier.Default()}))
			for _, line := range c.lines {
				s.tell(line)
			}
			said, _ := s.previewed("pro", when(t, c.at))
			if done := s.executed(events.TypeDowngradeRequested, "pro", when(t, c.at)); said != c.want || done != c.want {
				t.Errorf("the preview is %s, the execution %s, want %s", said, done, c.want)
			}
		})
	}
}
