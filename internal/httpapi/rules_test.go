package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// execute is what the rules do with a request at a time, and with what is due before it.
func execute(t *rapid.T, rules *tenant.Rules, s *tenant.State, payload any, at time.Time) *tenant.Decision {
	decide := func(c *tenant.Cause) *tenant.Decision {
		d, err := rules.Decide(s, c)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for range 5 {
		h := s.Subscription
		state := tier.State{Current: tier.Current{PriceMinor: h.PriceMinor, PeriodEnd: h.PeriodEnd}, Status: h.Status, PendingTier: h.PendingTier}
		if h.GraceUntil != nil {
			state.GraceUntil = *h.GraceUntil
		}
		h.Due = nil
		if due, ends := state.DueAt(); ends { // which is a column of the table
			h.Due = &due
		}
		if !tenant.IsDue(s, payload, at) {
			break
		}
		d := decide(tenant.DueCause(s))
		s.Subscription, s.LastEffect = d.Subscription, d.At
	}
	return decide(&tenant.Cause{Event: &events.Event{Key: s.CompanyID, Envelope: events.Envelope{Source: "s", ID: "1", Time: at}}, Payload: payload})
}

// The rules that carry a request out come to what the preview has said, whatever state the subscription is in.
func TestAPreviewEqualsTheExecutionToTheCent(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	tiers := tier.Default()
	rules := tenant.New(tiers)
	rapid.Check(t, func(t *rapid.T) {
		of, _ := tiers.Tier(rapid.SampledFrom(tiers.Names()).Draw(t, "tier"))
		price := of.PriceMinor
		if price > 0 {
			price += rapid.Int64Range(-100, 100).Draw(t, "another price of before")
		}
		start := at("2024-01-01T00:00:00Z").Add(time.Duration(rapid.Int64Range(0, 2*366*24*3600*1e6).Draw(t, "start")) * time.Microsecond)
		anchor := rapid.IntRange(0, 31).Draw(t, "anchor")
		held := tier.State{Current: tier.Current{Tier: of.Name, PriceMinor: price, PeriodStart: start, PeriodEnd: tier.NextPeriodEnd(start, anchor), AnchorDay: anchor}, Status: "active"}
		when := start.Add(time.Duration(rapid.Int64Range(-1e12, 100*24*3600*1e6).Draw(t, "at")) * time.Microsecond)
		if price > 0 {
			held.Status = rapid.SampledFrom([]string{"active", "past_due"}).Draw(t, "status")
			held.PendingTier = rapid.SampledFrom([]string{"", "free", "pro"}).Draw(t, "pending")
			held.CancelAtPeriodEnd = held.PendingTier == "free" && rapid.Bool().Draw(t, "cancels")
		} else {
			held.Status = rapid.SampledFrom([]string{"active", "expired", "cancelled"}).Draw(t, "status")
		}
		executed := &tenant.Subscription{Tier: held.Tier, Status: held.Status, PeriodStart: held.PeriodStart, PeriodEnd: held.PeriodEnd, PriceMinor: price, Currency: "USD",
			PendingTier: held.PendingTier, CancelAtEnd: held.CancelAtPeriodEnd, AnchorDay: anchor, Limits: of.Limits}
		if held.Status == "past_due" {
			held.GraceUntil = start.Add(time.Duration(rapid.Int64Range(0, 40*24*3600).Draw(t, "grace")) * time.Second)
			executed.GraceUntil = &held.GraceUntil
		}
		last := start.Add(time.Duration(rapid.Int64Range(0, 10*24*3600).Draw(t, "last effect")) * time.Second)
		if due, ends := held.DueAt(); ends && due.Before(last) {
			last = due // what was due before has been done
		}
		f.world.mu.Lock()
		f.world.companies["any"] = postgres.CompanySubscription{CompanyID: "any", CompanyStatus: "active", State: held, Currency: "USD", Limits: of.Limits, Benefits: json.RawMessage("{}"), LastEffect: last}
		f.world.mu.Unlock()
		to := rapid.SampledFrom(tiers.Names()).Draw(t, "to")
		a := f.ask("/v1/companies/any/subscription/preview?new_tier=" + to + "&at=" + url.QueryEscape(when.Format(time.RFC3339Nano)))

		var said struct {
			Code   string `json:"code"`
			Change string `json:"change"`
			changeAnswer
			Immediate *changeAnswer `json:"immediate"`
		}
		if err := json.Unmarshal([]byte(a.body), &said); err != nil {
			t.Fatal(err)
		}
		state := &tenant.State{CompanyID: "any", Company: &tenant.Company{Status: "active", Currency: "USD"}, Subscription: executed, Config: json.RawMessage("{}"), LastEffect: last}
		var payload any = &events.UpgradeRequested{CompanyID: "any", NewTier: to}
		if said.Change == "downgrade" {
			payload = &events.DowngradeRequested{CompanyID: "any", NewTier: to, Effective: events.EffectiveImmediate}
			said.changeAnswer = *said.Immediate
		}
		done := execute(t, rules, state, payload, tenant.EffectTime(state, when))
		switch {
		case done.Refused != nil:
			if a.status != http.StatusConflict || said.Code != done.Refused.Code {
				t.Fatalf("%d %s, but the rules refuse with %s", a.status, a.body, done.Refused.Code)
			}
		case a.status != http.StatusOK:
			t.Fatalf("%d %s, but the rules do it", a.status, a.body)
		default:
			got, want := said.BillingAdjustment, done.Transaction.Adjustment
			if fmt.Sprint(got) != fmt.Sprint(want) || !said.EffectiveDate.Equal(done.At) {
				t.Fatalf("%+v at %s, but the rules make it %+v at %s", got, said.EffectiveDate, want, done.At)
			}
		}
	})
}
