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

// execute is what the rules do with a request, and with what is due before it, one decision after the other as the ledger makes them.
func execute(t *rapid.T, rules *tenant.Rules, s *tenant.State, payload any, at time.Time) *tenant.Decision {
	c := &tenant.Cause{Event: &events.Event{Key: s.CompanyID, Envelope: events.Envelope{Source: "s", ID: "1", Time: at}}, Payload: payload}
	for {
		one := c
		step := tenant.Next(s, c)
		if step == tenant.DueFirst {
			one = tenant.DueCause(s.CompanyID, s.Due()[0])
		}
		d, err := rules.Decide(s, one)
		if err != nil {
			t.Fatal(err)
		}
		if step == tenant.Apply {
			return d
		}
		if !d.Subscription.PeriodStart.Equal(s.Subscription.PeriodStart) {
			s.Books = tenant.Books{}
		}
		s.Subscription, s.LastEffect = d.Subscription, d.At
	}
}

// The rules that carry a request out come to what the preview has said, whatever state the subscription is in.
func TestAPreviewEqualsTheExecutionToTheCent(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	tiers := tier.Default()
	rules := tenant.New(tenant.Config{Catalogue: tiers})
	rapid.Check(t, func(t *rapid.T) {
		of, _ := tiers.Tier(rapid.SampledFrom(tiers.Names()).Draw(t, "tier"))
		price := of.PriceMinor
		if price > 0 {
			price += rapid.Int64Range(-100, 100).Draw(t, "another price of before")
		}
		start := at("2024-01-01T00:00:00Z").Add(time.Duration(rapid.Int64Range(0, 2*366*24*3600*1e6).Draw(t, "start")) * time.Microsecond)
		anchor, months := rapid.IntRange(0, 31).Draw(t, "anchor"), rapid.SampledFrom([]int{1, 1, 12}).Draw(t, "months")
		end := tier.AddMonths(start, months, anchor)
		status := rapid.SampledFrom([]string{"active", "expired", "cancelled"}).Draw(t, "status")
		if price > 0 {
			status = "active"
		}
		sub := held(of, status, price, start, end)
		sub.Months, sub.AnchorDay = months, anchor
		if price > 0 {
			if sub.PendingTier = rapid.SampledFrom([]string{"", "free", "pro"}).Draw(t, "pending"); sub.PendingTier != "" {
				sub.PendingAt, sub.CancelAtEnd = &end, sub.PendingTier == "free" && rapid.Bool().Draw(t, "cancels")
			}
			if sub.PendingTier != "free" && rapid.Bool().Draw(t, "renewed") {
				sub.Renewal = &tenant.Renewal{Start: end, End: tier.AddMonths(end, 1, anchor), Months: 1}
			}
			if grace := start.Add(time.Duration(rapid.Int64Range(0, 40*24*3600).Draw(t, "grace")) * time.Second); rapid.Bool().Draw(t, "past due") {
				sub.Status, sub.GraceUntil, sub.RenewalUntil = "past_due", &grace, nil
			}
		}
		when := start.Add(time.Duration(rapid.Int64Range(-1e12, 100*24*3600*1e6).Draw(t, "at")) * time.Microsecond)
		company := postgres.CompanySubscription{CompanyID: "any", CompanyStatus: "active", Subscription: sub,
			LastEffect: start.Add(time.Duration(rapid.Int64Range(0, 10*24*3600).Draw(t, "last effect")) * time.Second)}
		if due := company.State().Due(); len(due) > 0 && due[0].At.Before(company.LastEffect) {
			company.LastEffect = due[0].At // what was due before has been done
		}
		f.world.mu.Lock()
		f.world.companies["any"] = company
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
		var payload any = &events.UpgradeRequested{CompanyID: "any", NewTier: to}
		if said.Change == "downgrade" {
			payload = &events.DowngradeRequested{CompanyID: "any", NewTier: to, Effective: events.EffectiveImmediate}
			said.changeAnswer = *said.Immediate
		}
		if said.Code == tier.InvalidDowngradePath { // the period recorded ahead begins with that tier
			payload = &events.DowngradeRequested{CompanyID: "any", NewTier: to, Effective: events.EffectivePeriodEnd}
		}
		done := execute(t, rules, company.State(), payload, when)
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
