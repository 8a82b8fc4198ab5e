package analytics

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"tenantflow/internal/accuracy"
	"tenantflow/sinks/postgres"
)

// AccuracyMonths is over how many months an AccuracyReport looks.
const AccuracyMonths = 12

// An AccuracyReport says how good recommendations and forecasts were whose month is over. Shares are between 0 and 1. What can't be computed, as
// there is too little to go by, is nil.
type AccuracyReport struct {
	// The months at whose ends the users were judged. Forecasts: the months that they are about.
	FirstMonth Month `json:"first_month"`
	LastMonth  Month `json:"last_month"`

	Churn    ChurnAccuracy    `json:"churn"`
	Upsell   UpsellAccuracy   `json:"upsell"`
	Forecast ForecastAccuracy `json:"forecast"`

	// Findings say in words what is better than its baseline, and what is not.
	Findings     []string  `json:"findings"`
	AnalysisDate time.Time `json:"analysis_date"`
}

// A Predictor is a way to say who leaves, measured.
type Predictor struct {
	Flagged   int64    `json:"flagged"` // users of whom it was said
	Precision *float64 `json:"precision"`
	Recall    *float64 `json:"recall"`
	Lift      *float64 `json:"lift_10_percent"`
	AUC       *float64 `json:"auc"`
	AUCLow    *float64 `json:"auc_low"` // of the 95 % interval
	AUCHigh   *float64 `json:"auc_high"`
	Brier     *float64 `json:"brier"` // of the score, calibrated on earlier months
}

// ChurnAccuracy is how good churn scores were: of users who made calls, who has made none in the month behind.
type ChurnAccuracy struct {
	Users      int64    `json:"users"` // user and month: the same user counts in each
	Left       int64    `json:"left"`
	BaseRate   *float64 `json:"base_rate"`
	BrierUsers int64    `json:"brier_users"` // for whom earlier months gave a calibration
	Late       int64    `json:"late_users"`  // judged when more than three days of the month behind were over, by a run that was late or made up for

	Score Predictor `json:"score"`
	// The baselines: to say the base rate of all, and that those leave who made no call for 14 days.
	ByBaseRate Predictor `json:"base_rate_baseline"`
	ByIdle     Predictor `json:"no_call_14_days_baseline"`

	// Active is the order of scores among those who made a call in the last month: that the others have left can almost be seen.
	Active ActiveRank `json:"active_users"`

	Months []ChurnMonth `json:"months"`
}

// An ActiveRank is how well scores, and the rule of 14 days without a call, put those who leave before the others, among users with a call in the
// month at whose end they were judged.
type ActiveRank struct {
	Users   int64    `json:"users"`
	Left    int64    `json:"left"`
	AUC     *float64 `json:"auc"`
	AUCLow  *float64 `json:"auc_low"` // of the 95 % interval
	AUCHigh *float64 `json:"auc_high"`
	IdleAUC *float64 `json:"no_call_14_days_auc"`
}

// A ChurnMonth is ChurnAccuracy of the users who were judged at the end of one month.
type ChurnMonth struct {
	Month     Month    `json:"month"`
	Users     int64    `json:"users"`
	Left      int64    `json:"left"`
	Flagged   int64    `json:"flagged"`
	Precision *float64 `json:"precision"`
	Recall    *float64 `json:"recall"`
	AUC       *float64 `json:"auc"`
}

// UpsellAccuracy is how often a recommended upgrade was made in the month behind. A company and month counts once, however many of its users the
// recommendation was for.
type UpsellAccuracy struct {
	Users     int64    `json:"users"` // for whom it was recommended
	Companies int64    `json:"companies"`
	Upgraded  int64    `json:"upgraded"`
	Success   *float64 `json:"success_rate"`
	// The baseline: other companies with active users that could be upgraded.
	OtherCompanies int64    `json:"other_companies"`
	OtherUpgraded  int64    `json:"other_upgraded"`
	OtherRate      *float64 `json:"other_rate"`
}

// ForecastAccuracy is how good forecasts of charged revenue were, over all and by how far ahead they looked.
type ForecastAccuracy struct {
	accuracy.Forecasts
	Distances []ForecastDistance `json:"distances"`
}

// A ForecastDistance is the forecasts that looked so many months ahead.
type ForecastDistance struct {
	Months int `json:"months_ahead"`
	accuracy.Forecasts
}

// Accuracy says how good the recommendations and forecasts of AccuracyMonths months were, as far as it is known at a time what came of them: the newest
// users judged are those of the end of the month before the last whole one.
func (a *Analyst) Accuracy(ctx context.Context, at time.Time) (*AccuracyReport, error) {
	last := MonthOf(at) - 2
	first := last - AccuracyMonths + 1
	// Calibrations are fitted on all that is known of before.
	churn, err := a.companies.ChurnOutcomes(ctx, (first - recommendationsKept).String(), last.String())
	if err != nil {
		return nil, err
	}
	upsell, err := a.companies.UpsellOutcomes(ctx, first.String(), last.String())
	if err != nil {
		return nil, err
	}
	forecasts, err := a.companies.ForecastOutcomes(ctx, (first + 1).String(), (last + 1).String())
	if err != nil {
		return nil, err
	}
	r := &AccuracyReport{FirstMonth: first, LastMonth: last, AnalysisDate: at.UTC().Truncate(time.Second), Upsell: a.upsellAccuracy(upsell), Forecast: forecastAccuracy(forecasts)}
	if r.Churn, err = churnAccuracy(churn, first); err != nil {
		return nil, err
	}
	r.Findings = findings(r)
	return r, nil
}

// churnCases are the same users as each predictor sees them, and those of them with a call in the last month.
type churnCases struct{ score, base, idle, active, activeIdle []accuracy.Case }

func (c *churnCases) add(o *postgres.ChurnOutcome) {
	idle := int64(0)
	if o.Idle {
		idle = 1
	}
	byScore := accuracy.Case{Score: o.Score, Flagged: o.Flagged, Happened: o.Outcome, N: o.Users}
	byIdle := accuracy.Case{Score: idle, Flagged: o.Idle, Happened: o.Outcome, N: o.Users}
	c.score, c.idle = append(c.score, byScore), append(c.idle, byIdle)
	c.base = append(c.base, accuracy.Case{Flagged: true, Happened: o.Outcome, N: o.Users})
	if o.Active {
		c.active, c.activeIdle = append(c.active, byScore), append(c.activeIdle, byIdle)
	}
}

// activeRank is the rank of those with a call in the last month.
func (c *churnCases) activeRank() ActiveRank {
	n, p := accuracy.Count(c.active), predictor(c.active)
	return ActiveRank{Users: n.Users, Left: n.Happened, AUC: p.AUC, AUCLow: p.AUCLow, AUCHigh: p.AUCHigh, IdleAUC: predictor(c.activeIdle).AUC}
}

// churnAccuracy judges the months from first on. Earlier ones are known for calibration only.
func churnAccuracy(outcomes []postgres.ChurnOutcome, first Month) (ChurnAccuracy, error) {
	r := ChurnAccuracy{Months: []ChurnMonth{}}
	byMonth := map[Month]*churnCases{}
	for i := range outcomes {
		o := &outcomes[i]
		month, err := ParseMonth(o.Month)
		if err != nil {
			return r, fmt.Errorf("read which users have left: %w", err)
		}
		if byMonth[month] == nil {
			byMonth[month] = &churnCases{}
		}
		byMonth[month].add(o)
		if month >= first {
			r.Late += o.Late
		}
	}
	var all churnCases
	var score, base, idle [][]accuracy.Case
	earlier := 0
	for _, month := range slices.Sorted(maps.Keys(byMonth)) {
		c := byMonth[month]
		score, base, idle = append(score, c.score), append(base, c.base), append(idle, c.idle)
		if month < first {
			earlier++
			continue
		}
		all.score, all.base, all.idle = append(all.score, c.score...), append(all.base, c.base...), append(all.idle, c.idle...)
		all.active, all.activeIdle = append(all.active, c.active...), append(all.activeIdle, c.activeIdle...)
		n := accuracy.Count(c.score)
		one := ChurnMonth{Month: month, Users: n.Users, Left: n.Happened, Flagged: n.Flagged, Precision: n.Precision(), Recall: n.Recall()}
		if rank := accuracy.RankOf(c.score); rank != nil {
			one.AUC = &rank.AUC
		}
		r.Months = append(r.Months, one)
	}
	n := accuracy.Count(all.score)
	r.Users, r.Left, r.BaseRate = n.Users, n.Happened, n.BaseRate()
	r.Active = all.activeRank()
	r.Score, r.ByBaseRate, r.ByIdle = predictor(all.score), predictor(all.base), predictor(all.idle)
	r.Score.Brier, r.BrierUsers = accuracy.Brier(score, earlier)
	r.ByBaseRate.Brier, _ = accuracy.Brier(base, earlier)
	r.ByIdle.Brier, _ = accuracy.Brier(idle, earlier)
	return r, nil
}

func predictor(cases []accuracy.Case) Predictor {
	n := accuracy.Count(cases)
	p := Predictor{Flagged: n.Flagged, Precision: n.Precision(), Recall: n.Recall(), Lift: accuracy.Lift(cases)}
	if rank := accuracy.RankOf(cases); rank != nil {
		p.AUC, p.AUCLow, p.AUCHigh = &rank.AUC, &rank.Low, &rank.High
	}
	return p
}

// upsellAccuracy compares companies with a recommendation with the others, as far as there is a tier that they could be upgraded to.
func (a *Analyst) upsellAccuracy(outcomes []postgres.UpsellOutcome) (r UpsellAccuracy) {
	for i := range outcomes {
		switch o := &outcomes[i]; {
		case o.Recommended:
			r.Users, r.Companies, r.Upgraded = r.Users+o.Users, r.Companies+o.Companies, r.Upgraded+o.Upgraded
		case len(tiersAbove(a.tiers, o.Tier)) > 0:
			r.OtherCompanies, r.OtherUpgraded = r.OtherCompanies+o.Companies, r.OtherUpgraded+o.Upgraded
		}
	}
	r.Success = accuracy.Counts{Users: r.Companies, Happened: r.Upgraded}.BaseRate()
	r.OtherRate = accuracy.Counts{Users: r.OtherCompanies, Happened: r.OtherUpgraded}.BaseRate()
	return r
}

func forecastAccuracy(outcomes []postgres.ForecastOutcome) ForecastAccuracy {
	all, byDistance := []accuracy.Forecast{}, map[int][]accuracy.Forecast{}
	for i := range outcomes {
		o := &outcomes[i]
		one := accuracy.Forecast{Value: o.ValueMinor, Low: o.LowMinor, High: o.HighMinor, Naive: o.NaiveMinor, Actual: o.ActualMinor,
			Steps: o.StepsMinor, Pairs: o.HistoryMonths - int64(o.Distance)}
		all, byDistance[o.Distance] = append(all, one), append(byDistance[o.Distance], one)
	}
	r := ForecastAccuracy{Forecasts: accuracy.ForecastsOf(all), Distances: []ForecastDistance{}}
	for months, some := range byDistance {
		r.Distances = append(r.Distances, ForecastDistance{months, accuracy.ForecastsOf(some)})
	}
	slices.SortFunc(r.Distances, func(a, b ForecastDistance) int { return cmp.Compare(a.Months, b.Months) })
	return r
}
