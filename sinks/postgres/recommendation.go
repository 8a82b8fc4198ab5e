package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed queries/recommendation_companies.sql
	recommendationCompaniesSQL string
	//go:embed queries/recommendations_put.sql
	recommendationsPutSQL string
	//go:embed queries/forecasts_put.sql
	forecastsPutSQL string
	//go:embed queries/recommendations_unpublished.sql
	recommendationsUnpublishedSQL string
	//go:embed queries/recommendations_published.sql
	recommendationsPublishedSQL string
	//go:embed queries/recommendations_unscored.sql
	recommendationsUnscoredSQL string
	//go:embed queries/forecasts_unscored.sql
	forecastsUnscoredSQL string
	//go:embed queries/churn_companies.sql
	churnCompaniesSQL string
	//go:embed queries/churn_score.sql
	churnScoreSQL string
	//go:embed queries/upsell_score.sql
	upsellScoreSQL string
	//go:embed queries/forecasts_score.sql
	forecastsScoreSQL string
)

// The kinds of recommendations.
const (
	KindUpsell = "upsell"
	KindChurn  = "churn"
)

// A Recommendation is what was found about a user at the end of a month.
type Recommendation struct {
	ID      string          `json:"recommendation_id"` // a UUID, which follows from kind, company, user and month
	UserID  string          `json:"user_id"`
	Kind    string          `json:"kind"`
	Tier    string          `json:"tier"`
	Score   int64           `json:"score_hundredths"` // 0 to 10,000
	Flagged bool            `json:"flagged"`          // it is on the list, and to be published
	Idle    *bool           `json:"idle"`             // of churn, and nil of upsell
	Detail  json.RawMessage `json:"detail"`           // the data of the event: an object
}

// A RevenueForecast is what was forecast of a company's charged revenue for one month, in minor units.
type RevenueForecast struct {
	Month    string `json:"month"` // YYYY-MM
	Currency string `json:"currency"`
	Value    int64  `json:"value_minor"`
	Low      int64  `json:"low_minor"`
	High     int64  `json:"high_minor"`
	Naive    int64  `json:"naive_minor"`
	Steps    int64  `json:"steps_minor"`
	History  int    `json:"history_months"`
}

// RecommendationCompanies returns up to limit open companies of which nothing is written for a month, those after a given one, in the order of their ids.
func (s *Store) RecommendationCompanies(ctx context.Context, month, after string, limit int) ([]string, error) {
	return collect(ctx, s, "list companies to recommend for", pgx.RowTo[string], recommendationCompaniesSQL, month, after, limit)
}

// PutRecommendations writes what was found about a company at the end of a month, all of it or nothing. What is there already stays as it is,
// and nothing is written of a company that was purged. It returns how many recommendations and forecasts are new.
func (s *Store) PutRecommendations(ctx context.Context, company, month string, found []Recommendation, forecasts []RevenueForecast) (recommended, forecast int64, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	doing := "write the recommendations for company " + company
	texts := [2]string{}
	for i, list := range []any{found, forecasts} {
		text, err := json.Marshal(list)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", doing, err)
		}
		texts[i] = string(text)
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if len(found) > 0 {
			tag, err := tx.Exec(ctx, recommendationsPutSQL, company, month, texts[0])
			if err != nil {
				return err
			}
			recommended = tag.RowsAffected()
		}
		if len(forecasts) > 0 {
			tag, err := tx.Exec(ctx, forecastsPutSQL, company, month, texts[1])
			if err != nil {
				return err
			}
			forecast = tag.RowsAffected()
		}
		return nil
	})
	if err != nil {
		return 0, 0, s.explain(doing, err)
	}
	return recommended, forecast, nil
}

// An UnpublishedRecommendation is one whose event is not known to be published.
type UnpublishedRecommendation struct {
	ID, CompanyID, UserID, Kind string
	Month                       string
	Detail                      json.RawMessage
}

// UnpublishedRecommendations returns up to limit of them, the oldest first.
func (s *Store) UnpublishedRecommendations(ctx context.Context, limit int) ([]UnpublishedRecommendation, error) {
	return collect(ctx, s, "list recommendations to publish", pgx.RowToStructByName[UnpublishedRecommendation], recommendationsUnpublishedSQL, limit)
}

// NotePublishedRecommendations notes that recommendations are published.
func (s *Store) NotePublishedRecommendations(ctx context.Context, ids []string) error {
	_, err := s.exec(ctx, "note published recommendations", recommendationsPublishedSQL, ids)
	return err
}

// UnscoredMonths returns the months up to one of which a recommendation has no outcome, and those up to another one for which a forecast has no
// actual value, in any order.
func (s *Store) UnscoredMonths(ctx context.Context, recommended, forecast string) (recommendations, forecasts []string, err error) {
	recommendations, err = collect(ctx, s, "list months of recommendations without outcome", pgx.RowTo[string], recommendationsUnscoredSQL, recommended)
	if err != nil {
		return nil, nil, err
	}
	forecasts, err = collect(ctx, s, "list months of forecasts without actual value", pgx.RowTo[string], forecastsUnscoredSQL, forecast)
	return recommendations, forecasts, err
}

// ChurnCompanies returns up to limit companies whose users were judged at the end of a month, those after a given one, in the order of their ids.
func (s *Store) ChurnCompanies(ctx context.Context, month, after string, limit int) ([]string, error) {
	return collect(ctx, s, "list companies whose users were judged", pgx.RowTo[string], churnCompaniesSQL, month, after, limit)
}

// ScoreChurn notes which users of a company, judged at the end of a month, have left: all but those who made calls in the month behind it. It
// returns how many outcomes are new or changed.
func (s *Store) ScoreChurn(ctx context.Context, month, company string, stayed []string) (int64, error) {
	return s.exec(ctx, "note which users of company "+company+" have left", churnScoreSQL, month, company, append([]string{}, stayed...)) // never null
}

// ScoreUpsells notes of which companies a recommendation of a month was followed: by an upgrade from one time on and before another.
func (s *Store) ScoreUpsells(ctx context.Context, month string, from, before time.Time) (int64, error) {
	return s.exec(ctx, "note which companies were upgraded", upsellScoreSQL, month, from, before)
}

// ScoreForecasts notes what companies were charged for a month, which lasts from one time to another.
func (s *Store) ScoreForecasts(ctx context.Context, month string, from, before time.Time) (int64, error) {
	return s.exec(ctx, "note what companies were charged", forecastsScoreSQL, month, from, before)
}

// PruneRecommendations removes recommendations and forecasts that were made at the end of a month before the given one.
func (s *Store) PruneRecommendations(ctx context.Context, before string) error {
	const doing = "remove old recommendations"
	if _, err := s.exec(ctx, doing, "DELETE FROM public.recommendations WHERE month < $1", before); err != nil {
		return err
	}
	_, err := s.exec(ctx, doing, "DELETE FROM public.forecasts WHERE made_month < $1", before)
	return err
}
