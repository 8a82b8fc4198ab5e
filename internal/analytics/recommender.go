package analytics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/kafka"
)

const (
	// recommendWorkers is how many companies are worked on at a time.
	recommendWorkers = 4
	// companiesAtOnce is how many are listed at a time.
	companiesAtOnce = 100
	// publishAtOnce is how many events are published before that is noted.
	publishAtOnce = 500
	// failuresNamed is how many companies that could not be worked on are named.
	failuresNamed = 10
	// recommendationsKept is for how many months recommendations and forecasts are kept.
	recommendationsKept = 36
)

// RecommendGrace is for how long after the end of a month usage of it may still come in before it is judged: what is judged is never changed. Quotas wait for
// late events as long, unless TENANTFLOW_QUOTA_LATENESS says otherwise.
const RecommendGrace = 48 * time.Hour

// RecommenderConfig is what a Recommender needs.
type RecommenderConfig struct {
	Analyst     *Analyst
	Publish     func(context.Context, []kafka.Result) error // returns when the events are durable
	TopicPrefix string
	Now         func(context.Context) (time.Time, error) // default: the clock of Postgres
	// UsageUntil says up to when usage is stored: every event that was appended to the log before is. Required.
	UsageUntil func(context.Context) (time.Time, error)
	Logger     *slog.Logger
	// Step is called when something is done that a crash may follow; nil: not. For tests.
	Step func(RecommendStep)
}

// A RecommendStep is a step of Recommend.
type RecommendStep string

// The steps.
const (
	StepStored    RecommendStep = "stored"    // what was found about a company
	StepPublished RecommendStep = "published" // some events, which is not noted yet
	StepScored    RecommendStep = "scored"    // the users of a company
)

// A Recommender stores at the end of each month what is found about the users of all companies, publishes it, and says of what was found earlier
// what came of it.
//
// Everything it writes is keyed by company, user, kind and month, or is looked up again with the same answer, and the ids of events follow
// from the same. So a run that was killed is simply run again, by any process: what is stored stays as it is, what is not noted as published is
// published (again, with the same id), and the rest goes on.
type Recommender struct{ RecommenderConfig }

// NewRecommender makes a Recommender.
func NewRecommender(cfg RecommenderConfig) *Recommender {
	if cfg.Now == nil {
		cfg.Now = cfg.Analyst.companies.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Step == nil {
		cfg.Step = func(RecommendStep) {}
	}
	return &Recommender{cfg}
}

// Recommended is what came of a run.
type Recommended struct {
	Month           Month    `json:"month"`           // that ended when the run was due
	Companies       int      `json:"companies"`       // that were looked at in this run
	Recommendations int64    `json:"recommendations"` // new rows, listed or not
	Forecasts       int64    `json:"forecasts"`       // new rows
	Published       int      `json:"published"`       // events
	Outcomes        int64    `json:"outcomes"`        // of recommendations: new, or other than before
	Actuals         int64    `json:"actuals"`         // of forecasts: new, or other than before
	Failed          int      `json:"failed"`          // companies
	Failures        []string `json:"failures,omitempty"`
}

// Recommend does the monthly work of a slot, the beginning of a month, about the month before it; the result is a *Recommended. What it can't do for one company
// it says in the result and in the error, and does for the others all the same: run it again for the rest.
func (r *Recommender) Recommend(ctx context.Context, slot time.Time) (any, error) {
	month := MonthOf(slot) - 1
	done := &Recommended{Month: month}
	now, err := r.Now(ctx)
	if err != nil {
		return done, err
	}
	if err := r.complete(ctx, month, now); err != nil {
		return done, err
	}
	failed := &failures{log: r.Logger}
	// None of these needs what another one could not do.
	for _, step := range []func() error{
		func() error { return r.find(ctx, month, done, failed) },
		func() error { return r.publish(ctx, done) },
		func() error { return r.score(ctx, month, done, failed) },
		func() error {
			return r.Analyst.companies.PruneRecommendations(ctx, (month - recommendationsKept).String())
		},
	} {
		if ctx.Err() == nil {
			err = errors.Join(err, step())
		}
	}
	done.Failed, done.Failures = failed.total, failed.named
	if failed.total > 0 {
		err = errors.Join(err, fmt.Errorf("recommend at the end of %s: %d companies failed; the first: %s", month, failed.total, failed.named[0]))
	}
	return done, err
}

// lookAgain is after how long it is looked again up to when usage is stored.
const lookAgain = 10 * time.Minute

// A NotYetError says why a month can't be judged yet, and when to look again.
type NotYetError struct {
	Month Month
	Until time.Time
	Why   string
}

func (e *NotYetError) Error() string {
	return fmt.Sprintf("recommend at the end of %s: not yet: %s", e.Month, e.Why)
}

// complete is a *NotYetError while usage of a month may still come in, or waits in the log: a month that is judged too early stays judged wrongly.
func (r *Recommender) complete(ctx context.Context, month Month, now time.Time) error {
	until := (month + 1).Start().Add(RecommendGrace)
	if now.Before(until) {
		return &NotYetError{Month: month, Until: until, Why: "its usage may come in until " + until.Format(time.RFC3339)}
	}
	stored, err := r.UsageUntil(ctx)
	if err != nil {
		return fmt.Errorf("recommend at the end of %s: ask up to when usage is stored: %w", month, err)
	}
	if stored.Before(until) {
		return &NotYetError{Month: month, Until: now.Add(lookAgain), Why: fmt.Sprintf("usage is stored up to %s, and is needed up to %s", stored.UTC().Format(time.RFC3339), until.Format(time.RFC3339))}
	}
	return nil
}

// probe asks both stores something that has to do with no company.
func (r *Recommender) probe(ctx context.Context) error {
	if _, err := r.Analyst.companies.Now(ctx); err != nil {
		return err
	}
	return r.Analyst.usage.Ping(ctx)
}

// find stores what is found about the companies of which nothing is stored yet.
func (r *Recommender) find(ctx context.Context, month Month, done *Recommended, failed *failures) error {
	var mu sync.Mutex
	list := func(after string) ([]string, error) {
		return r.Analyst.companies.RecommendationCompanies(ctx, month.String(), after, companiesAtOnce)
	}
	return each(ctx, list, r.probe, failed, func(ctx context.Context, company string) error {
		found, forecasts, err := r.Analyst.found(ctx, company, month)
		if errors.Is(err, directory.ErrUnknown) { // it was purged meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		recommended, forecast, err := r.Analyst.companies.PutRecommendations(ctx, company, month.String(), found, forecasts)
		if err != nil {
			return err
		}
		r.Step(StepStored)
		mu.Lock()
		defer mu.Unlock()
		done.Companies++
		done.Recommendations += recommended
		done.Forecasts += forecast
		return nil
	})
}

// publish publishes every listed recommendation that is not known to be published, of whatever month.
func (r *Recommender) publish(ctx context.Context, done *Recommended) error {
	for {
		left, err := r.Analyst.companies.UnpublishedRecommendations(ctx, publishAtOnce)
		if err != nil || len(left) == 0 {
			return err
		}
		results, ids := make([]kafka.Result, len(left)), make([]string, len(left))
		for i := range left {
			event, err := eventOf(&left[i])
			if err != nil {
				return err
			}
			results[i], ids[i] = kafka.Result{Topic: r.TopicPrefix + events.TopicBusinessMetrics, Key: left[i].CompanyID, Event: event}, left[i].ID
		}
		if err := r.Publish(ctx, results); err != nil {
			return err
		}
		r.Step(StepPublished)
		if err := r.Analyst.companies.NotePublishedRecommendations(ctx, ids); err != nil {
			return err
		}
		done.Published += len(left)
	}
}

// score says what came of what was found before: of each month whose next one is over and that has no outcome yet, and once more of the month before the
// newest of these, for usage, voids and charges that came late.
func (r *Recommender) score(ctx context.Context, month Month, done *Recommended, failed *failures) error {
	store := r.Analyst.companies
	recommended, forecast, err := store.UnscoredMonths(ctx, (month - 1).String(), month.String())
	if err != nil {
		return err
	}
	var all []error // of one month, which are not another one's
	for _, name := range withLast(recommended, month-1) {
		all = append(all, r.scoreRecommended(ctx, name, done, failed))
	}
	for _, name := range withLast(forecast, month) {
		all = append(all, r.scoreForecasts(ctx, name, done))
	}
	return errors.Join(all...)
}

func (r *Recommender) scoreRecommended(ctx context.Context, name string, done *Recommended, failed *failures) error {
	m, err := ParseMonth(name)
	if err != nil {
		return err
	}
	n, err := r.Analyst.companies.ScoreUpsells(ctx, name, (m + 1).Start(), (m + 2).Start())
	done.Outcomes += n
	if ctx.Err() != nil {
		return err
	}
	return errors.Join(err, r.scoreChurn(ctx, m, done, failed))
}

func (r *Recommender) scoreForecasts(ctx context.Context, name string, done *Recommended) error {
	m, err := ParseMonth(name)
	if err != nil {
		return err
	}
	n, err := r.Analyst.companies.ScoreForecasts(ctx, name, m.Start(), (m + 1).Start())
	done.Actuals += n
	return err
}

// withLast adds a month and the one before it to some, and brings all into their order.
func withLast(months []string, last Month) []string {
	all := append(slices.Clone(months), (last - 1).String(), last.String())
	slices.Sort(all)
	return slices.Compact(all)
}

// scoreChurn notes who of the users judged at the end of a month made calls in the month behind it.
func (r *Recommender) scoreChurn(ctx context.Context, month Month, done *Recommended, failed *failures) error {
	var mu sync.Mutex
	list := func(after string) ([]string, error) {
		return r.Analyst.companies.ChurnCompanies(ctx, month.String(), after, companiesAtOnce)
	}
	return each(ctx, list, r.probe, failed, func(ctx context.Context, company string) error {
		stayed, err := r.Analyst.usage.UsersWithCalls(ctx, company, month+1)
		if err != nil {
			return err
		}
		n, err := r.Analyst.companies.ScoreChurn(ctx, month.String(), company, stayed)
		if err != nil {
			return err
		}
		r.Step(StepScored)
		mu.Lock()
		defer mu.Unlock()
		done.Outcomes += n
		return nil
	})
}

// failures are the companies that could not be worked on.
type failures struct {
	log   *slog.Logger
	mu    sync.Mutex
	total int
	named []string
}

func (f *failures) add(company string, err error) {
	f.log.Warn("a company's recommendations failed", slog.String("company_id", company), slog.Any("error", err))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.total++; len(f.named) < failuresNamed {
		f.named = append(f.named, company+": "+err.Error())
	}
}

// each works on companies that are listed page by page, several at a time. One that fails is noted, and keeps the others from nothing, however many do. Only if
// a whole page has failed and the stores fail without any company as well does each give up.
func each(ctx context.Context, list func(after string) ([]string, error), probe func(context.Context) error, failed *failures, work func(context.Context, string) error) error {
	for after := ""; ; {
		page, err := list(after)
		if err != nil || len(page) == 0 {
			return err
		}
		var broken atomic.Int64
		workers := make(chan struct{}, recommendWorkers)
		var all sync.WaitGroup
		for _, company := range page {
			workers <- struct{}{}
			all.Go(func() {
				defer func() { <-workers }()
				if ctx.Err() != nil {
					return // said below
				}
				if err := work(ctx, company); err != nil && ctx.Err() == nil {
					failed.add(company, err)
					broken.Add(1)
				}
			})
		}
		all.Wait()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if broken.Load() == int64(len(page)) {
			if err := probe(ctx); err != nil {
				return fmt.Errorf("each of %d companies failed: %w", len(page), err)
			}
		}
		after = page[len(page)-1]
	}
}
