package analytics

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"tenantflow/sinks/postgres"
)

//go:embed queries/revenue_usage.sql
var revenueUsageSQL string

// Revenue analyses what a company was charged in a number of months, 1 to MaxMonths, of which the present one is the last. A closed company has
// what it had.
func (a *Analyst) Revenue(ctx context.Context, company string, months int, at time.Time) (*Revenue, error) {
	recorded, err := a.companies.Revenue(ctx, company)
	if err != nil {
		return nil, err
	}
	facts, err := factsOf(company, &recorded)
	if err != nil {
		return nil, err
	}
	present := MonthOf(at)
	if facts.Usage, err = a.usage.ByMonth(ctx, company, present-Month(months)+1, present); err != nil {
		return nil, err
	}
	return RevenueOf(facts, months, at), nil
}

// factsOf takes over what is recorded of a company.
func factsOf(company string, recorded *postgres.CompanyRevenue) (*RevenueFacts, error) {
	facts := &RevenueFacts{CompanyID: company, Currency: recorded.Currency, Since: recorded.CreatedAt, PaysNow: Money(recorded.PriceMinor), Prices: map[string]Money{}}
	var err error
	if facts.Charges, err = ChargesOf(recorded.Charges); err != nil {
		return nil, fmt.Errorf("read what company %s was charged: %w", company, err)
	}
	facts.Effects = EffectsOf(recorded.Effects, facts.PaysNow)
	for name, price := range recorded.Prices {
		facts.Prices[name] = Money(price)
	}
	return facts, nil
}

// ChargesOf takes over recorded charges.
func ChargesOf(recorded []postgres.MonthCharge) ([]Charge, error) {
	var all []Charge
	for _, c := range recorded {
		month, err := ParseMonth(c.Month)
		if err != nil {
			return nil, err
		}
		all = append(all, Charge{month, c.Tier, c.Currency, Money(c.AmountMinor)})
	}
	return all, nil
}

// EffectsOf takes over the recorded effects of a company that pays an amount a month now. That is the price since the last of them, also where that is of before
// prices were recorded.
func EffectsOf(recorded []postgres.PriceEffect, paysNow Money) []Effect {
	var all []Effect
	for _, e := range recorded {
		all = append(all, Effect{e.At, e.Event, e.Tier, (*Money)(e.PriceMinor), e.Reinstated})
	}
	if n := len(all); n > 0 && all[n-1].PriceMinor == nil {
		all[n-1].PriceMinor = &paysNow
	}
	return all
}

// ByMonth returns the usage of a company in each of the months from first to last, by tier and over all of them, in any order. Months without
// usage are left out.
func (u *Usage) ByMonth(ctx context.Context, company string, first, last Month) ([]MonthUsage, error) {
	var all []MonthUsage
	var one MonthUsage
	var month uint32 // as 202611
	err := u.Each(ctx, revenueUsageSQL, "toUInt32(0), '', toUInt64(0), toInt64(0), toDecimal128(0, 6)",
		[]any{company, day(first.Start()), day((last + 1).Start())},
		[]any{&month, &one.Tier, &one.ActiveUsers, &one.Calls, &one.Attributed.Decimal}, func() {
			one.Month = Month(month/100*12 + month%100 - 1)
			all = append(all, one)
		})
	if err != nil {
		return nil, fmt.Errorf("read the usage of company %s by month: %w", company, err)
	}
	return all, nil
}
