package analytics

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/sinks/postgres"
)

// IdleDays is how many whole days without a call, up to the end of the month, make a user idle: the plain rule that churn scores are compared with.
const IdleDays = 14

// A ChurnJudgement is what is held of a user at the end of a month, on the list of risks or not.
type ChurnJudgement struct {
	ChurnRisk
	Listed       bool
	Idle         bool // no call in the last IdleDays days
	LastActivity time.Time
}

// JudgeChurn judges all users who made calls in one of the last two months before a time, the beginning of a month, in the order of their ids. The
// score of one who is not listed is by the same formula: 0 where calls have not fallen, 50 where there were none two months ago. Those who made no
// calls in both months have left already, and are not judged: to foretell that they stay away would flatter the score.
func JudgeChurn(tierName string, users []JudgedUse, at time.Time) []ChurnJudgement {
	use := make([]MonthlyUse, 0, len(users))
	for i := range users {
		use = append(use, users[i].MonthlyUse)
	}
	listed := map[string]ChurnRisk{}
	for _, r := range ChurnRisks(tierName, use) {
		listed[r.UserID] = r
	}
	judged := []ChurnJudgement{}
	for _, u := range users {
		if u.CurrentMonth <= 0 && u.PreviousMonth <= 0 {
			continue
		}
		j := ChurnJudgement{LastActivity: u.LastActivity, Idle: u.LastActivity.Before(at.AddDate(0, 0, -IdleDays))}
		if j.ChurnRisk, j.Listed = listed[u.UserID]; !j.Listed {
			current, previous := max(u.CurrentMonth, 0), max(u.PreviousMonth, 0)
			j.ChurnRisk = ChurnRisk{UserID: u.UserID, Tier: tierName, Score: ChurnScore(u.TwoMonthsAgo, current),
				Trend: UsageTrend{current, previous, max(u.TwoMonthsAgo, 0), decline(u.TwoMonthsAgo, current)}}
		}
		judged = append(judged, j)
	}
	slices.SortFunc(judged, func(a, b ChurnJudgement) int { return cmp.Compare(a.UserID, b.UserID) })
	return judged
}

// judge judges the users of a company whom ChurnRisk looks at as well. A company that is not open has none.
func (a *Analyst) judge(ctx context.Context, company string, at time.Time) ([]ChurnJudgement, error) {
	plan, open, err := a.plan(ctx, company)
	if err != nil || !open {
		return nil, err
	}
	users, err := a.usage.Judged(ctx, company, at)
	if err != nil {
		return nil, err
	}
	active, err := activeUsers(ctx, a.companies, company, users, func(u JudgedUse) string { return u.UserID })
	if err != nil {
		return nil, err
	}
	return JudgeChurn(plan.Tier, slices.DeleteFunc(users, func(u JudgedUse) bool { return !active[u.UserID] }), at), nil
}

// found is what is to be stored of a company at the end of a month.
func (a *Analyst) found(ctx context.Context, company string, month Month) (all []postgres.Recommendation, forecasts []postgres.RevenueForecast, err error) {
	at := (month + 1).Start()
	opportunities, err := a.Upsell(ctx, company, at)
	if err != nil {
		return nil, nil, err
	}
	judged, err := a.judge(ctx, company, at)
	if err != nil {
		return nil, nil, err
	}
	for _, o := range opportunities {
		id := recommendationID(postgres.KindUpsell, company, o.UserID, month)
		one := postgres.Recommendation{ID: id, UserID: o.UserID, Kind: postgres.KindUpsell, Tier: o.CurrentTier, Score: int64(o.Score), Flagged: true}
		if one.Detail, err = json.Marshal(upsellIdentified{identified{id, company, month}, o}); err != nil {
			return nil, nil, fmt.Errorf("write the opportunity of user %s: %w", o.UserID, err)
		}
		all = append(all, one)
	}
	for i := range judged {
		j := &judged[i]
		id := recommendationID(postgres.KindChurn, company, j.UserID, month)
		one := postgres.Recommendation{ID: id, UserID: j.UserID, Kind: postgres.KindChurn, Tier: j.Tier, Score: int64(j.Score), Flagged: j.Listed, Idle: &j.Idle}
		if one.Detail, err = json.Marshal(churnIdentified{identified{id, company, month}, j.ChurnRisk, j.LastActivity.UTC()}); err != nil {
			return nil, nil, fmt.Errorf("write the risk of user %s: %w", j.UserID, err)
		}
		all = append(all, one)
	}
	forecasts, err = a.forecasts(ctx, company, month)
	return all, forecasts, err
}

// identified is what both kinds of events have.
type identified struct {
	RecommendationID string `json:"recommendation_id"`
	CompanyID        string `json:"company_id"`
	Month            Month  `json:"month"`
}

// upsellIdentified is the data of upsell.opportunity_identified.v1.
type upsellIdentified struct {
	identified
	Opportunity
}

// churnIdentified is the data of churn.risk_identified.v1.
type churnIdentified struct {
	identified
	ChurnRisk
	LastActivity time.Time `json:"last_activity"`
}

// forecasts makes the forecasts of a company's charged revenue that are to be stored. What was charged in the months that they are about has no part in
// them, however late they are made. A company that pays nothing now has none.
func (a *Analyst) forecasts(ctx context.Context, company string, month Month) ([]postgres.RevenueForecast, error) {
	recorded, err := a.companies.Revenue(ctx, company)
	if err != nil {
		return nil, err
	}
	facts, err := factsOf(company, &recorded)
	if err != nil || facts.PaysNow == 0 {
		return nil, err
	}
	own, _ := facts.split(0, 0)
	return storedForecasts(history(own, month+1), facts.Currency, month), nil
}

// storedForecasts are those that a history up to a month gives; none where it is too short.
func storedForecasts(past []Money, currency string, month Month) (all []postgres.RevenueForecast) {
	f, _ := ForecastOf(past, month+1)
	if f == nil {
		return nil
	}
	past = past[len(past)-f.History:]
	for i, m := range f.Months {
		steps := Money(0)
		for n := i + 1; n < len(past); n++ {
			before := past[n-i-1]
			steps += max(past[n]-before, before-past[n])
		}
		all = append(all, postgres.RevenueForecast{Month: m.Month.String(), Currency: currency, Value: int64(m.Revenue), Low: int64(m.Low), High: int64(m.High),
			Naive: int64(past[len(past)-1]), Steps: int64(steps), History: f.History})
	}
	return all
}

// causeOf is what the id of a recommendation's event is made from. It follows from what the recommendation is about, so that making it again gives the same
// event. No event has this identity: what causes all recommendations of a month is the slot of the job.
func causeOf(kind, company, user, month string) *events.Envelope {
	return &events.Envelope{Source: events.SourceOf(events.JobConsumer), ID: "recommendation:" + kind + ":" + company + ":" + user + ":" + month}
}

// typeOf is the type of the event about a recommendation.
func typeOf(kind string) string {
	if kind == postgres.KindUpsell {
		return events.TypeUpsellIdentified
	}
	return events.TypeChurnRiskIdentified
}

func recommendationID(kind, company, user string, month Month) string {
	cause := causeOf(kind, company, user, month.String())
	return events.ResultID(cause.Source, cause.ID, typeOf(kind), 0)
}

// eventOf is the event about a stored recommendation. Its time is the end of its month, and its cause the slot that is due then.
func eventOf(r *postgres.UnpublishedRecommendation) (*events.Envelope, error) {
	month, err := ParseMonth(r.Month)
	if err != nil {
		return nil, fmt.Errorf("read recommendation %s: %w", r.ID, err)
	}
	slot := (month + 1).Start()
	e := events.NewResult(events.JobConsumer, causeOf(r.Kind, r.CompanyID, r.UserID, r.Month), typeOf(r.Kind), 0, slot, r.Detail)
	e.CausationSource, e.CausationID = events.ScheduleSource(), events.SlotID(events.JobRecommendations, slot)
	return e, nil
}
