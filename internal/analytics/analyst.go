package analytics

import (
	"context"
	"slices"
	"time"

	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// An Analyst answers from the stores. It may be used by several goroutines at once. Every method takes the time of the analysis, and
// returns directory.ErrUnknown for a company that is not known, was purged or has no subscription.
type Analyst struct {
	companies *postgres.Store
	usage     *Usage
	tiers     *tier.Catalogue
}

// New makes an Analyst. The stores are the caller's to close.
func New(companies *postgres.Store, usage *Usage, tiers *tier.Catalogue) *Analyst {
	return &Analyst{companies: companies, usage: usage, tiers: tiers}
}

// Upsell finds the users of a company who need a larger tier. Only its present, active users count: one who was suspended or has left
// makes no calls that a larger tier would be for. A closed company has none.
func (a *Analyst) Upsell(ctx context.Context, company string, at time.Time) ([]Opportunity, error) {
	plan, open, err := a.plan(ctx, company)
	if err != nil || !open || plan.DailyAPICalls == tier.Unlimited {
		return []Opportunity{}, err
	}
	today := dayOf(at)
	users, err := a.usage.Daily(ctx, company, today.AddDate(0, 0, -UpsellDays), today)
	if err != nil {
		return nil, err
	}
	found := Upsell(a.tiers, plan, users)
	active, err := activeUsers(ctx, a.companies, company, found, func(o Opportunity) string { return o.UserID })
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(o Opportunity) bool { return !active[o.UserID] }), nil
}

// ChurnRisk finds the users of a company who may leave. Only its present, active users count: others have left, or were shut out by their
// company's plan. A closed company has none.
func (a *Analyst) ChurnRisk(ctx context.Context, company string, at time.Time) (*ChurnReport, error) {
	report := &ChurnReport{CompanyID: company, ChurnRisks: []ChurnRisk{}, RecommendedActions: []string{}, AnalysisDate: at.UTC().Truncate(time.Second)}
	plan, open, err := a.plan(ctx, company)
	if err != nil || !open {
		return report, err
	}
	users, err := a.usage.Monthly(ctx, company, at)
	if err != nil {
		return nil, err
	}
	users = slices.DeleteFunc(users, func(u MonthlyUse) bool { return u.TwoMonthsAgo <= 0 })
	active, err := activeUsers(ctx, a.companies, company, users, func(u MonthlyUse) string { return u.UserID })
	if err != nil {
		return nil, err
	}
	users = slices.DeleteFunc(users, func(u MonthlyUse) bool { return !active[u.UserID] })
	report.ChurnRisks = ChurnRisks(plan.Tier, users)
	report.TotalAtRiskUsers = len(report.ChurnRisks)
	report.RecommendedActions = Actions(report.ChurnRisks, len(users))
	return report, nil
}

// plan reads what a company pays and may use, and whether it is open.
func (a *Analyst) plan(ctx context.Context, company string) (p Plan, open bool, err error) {
	s, err := a.companies.Subscription(ctx, company)
	if err != nil {
		return Plan{}, false, err
	}
	limits := s.Overrides.Over(s.Limits)
	return Plan{Tier: s.Tier, PriceMinor: s.PriceMinor, DailyAPICalls: limits.DailyAPICalls}, s.CompanyStatus == tenant.Active, nil
}

// activeUsers says which of the users that a list names belong to a company now and are active.
func activeUsers[T any](ctx context.Context, from *postgres.Store, company string, list []T, idOf func(T) string) (map[string]bool, error) {
	if len(list) == 0 {
		return nil, nil
	}
	ids := make([]string, len(list))
	for i := range list {
		ids[i] = idOf(list[i])
	}
	found, err := from.ActiveUsers(ctx, company, ids)
	if err != nil {
		return nil, err
	}
	active := make(map[string]bool, len(found))
	for _, id := range found {
		active[id] = true
	}
	return active, nil
}
