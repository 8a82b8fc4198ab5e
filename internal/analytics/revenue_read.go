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
	for _, c := range recorded.Charges {
		month, err := ParseMonth(c.Month)
		if err != nil {
			return nil, fmt.Errorf("read what company %s was charged: %w", company, err)
		}
		facts.Charges = append(facts.Charges, Charge{month, c.Tier, c.Currency, Money(c.AmountMinor)})
	}
	for _, e := range recorded.Effects {
		facts.Effects = append(facts.Effects, Effect{e.At, e.Event, e.Tier, (*Money)(e.PriceMinor), e.Reinstated})
	}
	// What is paid now is the price since the last effect, also where that is of before prices were recorded.
	if n := len(facts.Effects); n > 0 && facts.Effects[n-1].PriceMinor == nil {
		facts.Effects[n-1].PriceMinor = &facts.PaysNow
	}
	for name, price := range recorded.Prices {
		facts.Prices[name] = Money(price)
	}
	return facts, nil
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
