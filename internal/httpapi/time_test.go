package httpapi

import (
	"errors"
	"testing"

	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

func TestTime_EveryAnswerShowsAllItsDigits(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"2026-11-01T00:00:00.123456Z":  `"2026-11-01T00:00:00.123456Z"`,
		"2026-11-01T01:00:00.5+01:00":  `"2026-11-01T00:00:00.5Z"`,
		"2026-11-01T00:00:00.000000Z":  `"2026-11-01T00:00:00Z"`,
		"9998-12-31T23:59:59.999999Z":  `"9998-12-31T23:59:59.999999Z"`,
		"2026-11-01T00:00:00.1000000Z": `"2026-11-01T00:00:00.1Z"`,
	} {
		o := newObject()
		o.time("at", at(text))
		if got := string(o.b); got != `{"at":`+want {
			t.Errorf("%s is written %s, want %s", text, got, want)
		}
	}
}

// A period that versions before this one have taken, or that was set by hand.
func TestPreview_APeriodBeyondTheYear9999IsRefused(t *testing.T) {
	t.Parallel()
	rules := tenant.New(tenant.Config{Catalogue: tier.Default()})
	enterprise, _ := tier.Default().Tier("enterprise")
	s := postgres.CompanySubscription{CompanyID: "acme", CompanyStatus: "active", Subscription: tenant.Subscription{Status: tenant.StatusActive, Currency: tier.Currency,
		Term: tenant.Term{Tier: "enterprise", PriceMinor: enterprise.PriceMinor, Months: 1, Limits: enterprise.Limits,
			PeriodStart: at("9999-11-15T00:00:00Z"), PeriodEnd: at("9999-12-15T00:00:00Z")}}}
	_, err := previewChange(rules, s, "pro", at("9998-12-31T00:00:00Z"))
	var refusal *tier.Refusal
	if !errors.As(err, &refusal) || refusal.Code != invalidPeriod {
		t.Errorf("got %v", err)
	}
	s.PeriodStart, s.PeriodEnd = s.PeriodStart.AddDate(-1, 0, 0), s.PeriodEnd.AddDate(-1, 0, 0)
	if answer, err := previewChange(rules, s, "pro", at("9998-11-20T00:00:00Z")); err != nil || answer.BillingAdjustment.PeriodEnd.Year() != 9999 {
		t.Errorf("%+v, %v", answer, err)
	}
}
