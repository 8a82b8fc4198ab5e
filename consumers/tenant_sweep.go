package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"tenantflow/internal/kafka"
	"tenantflow/internal/logs"
	"tenantflow/sinks/postgres"
)

const (
	// sweepInterval is how often a process looks for what others have left behind.
	sweepInterval = 2 * time.Second
	// sweepAge is how long the results of an event may be on their way before another process publishes them as well.
	sweepAge = 10 * time.Second
	// sweepAtOnce is how much of it is taken at a time.
	sweepAtOnce = 200
	// blockedAtOnce is how many companies that still can't go on end a round: each of them may cost a lock's timeout.
	blockedAtOnce = 5
	// reportShare is how many times as long as a report has taken the next one waits: counting what waits takes the longer the more there is.
	reportShare = 50
	// reportWithin is how old a report may be at most.
	reportWithin = 30 * time.Second
	// blockedNamed is how many companies that can't go on are named.
	blockedNamed = 10
)

// A TenantSweeper finishes work that another process left behind: it publishes results that are not known to be published,
// applies events whose company was registered meanwhile, and refuses those that have waited for too long. Every process has one;
// two at the same time do no harm, because everything they do happens once and has the same ids.
type TenantSweeper struct {
	config   TenantConfig
	results  *kafka.Results
	log      *slog.Logger
	troubles *logs.Troubles
	waiting  int64 // events, when it was last looked
	reported time.Time
	took     time.Duration // to report
}

// NewTenantSweeper returns a sweeper that publishes with the given publisher, which stays the caller's.
func NewTenantSweeper(config TenantConfig, results *kafka.Results, log *slog.Logger) *TenantSweeper {
	config.withDefaults()
	return &TenantSweeper{config: config, results: results, log: log, troubles: logs.NewTroubles(log)}
}

// Run sweeps until ctx is done, and then returns nil. What fails is logged and tried again. Only where Postgres refuses the login, it
// returns that: partitions without events do not ask Postgres, and nothing else would say so.
func (s *TenantSweeper) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		switch err := s.sweep(ctx); {
		case ctx.Err() != nil:
		case err == nil:
			s.troubles.Over(ctx, sweepFailed, "")
		case postgres.Refused(err):
			return fmt.Errorf("look for what was left behind: %w", err)
		default:
			s.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: sweepFailed, Err: err})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// What the log says of a sweep that fails.
const (
	sweepFailed = "looking for what was left behind failed"
	readUnknown = "it is not known how far company events are read, so no event is refused for an unknown company"
)

func (s *TenantSweeper) sweep(ctx context.Context) error {
	some := s.drain(ctx)
	if some != nil && !ofOne(some) {
		return some
	}
	if err := s.giveUp(ctx); err != nil {
		return err
	}
	for {
		left, err := s.config.Store.Unpublished(ctx, sweepAge, sweepAtOnce)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			s.log.LogAttrs(ctx, slog.LevelInfo, "publishing results that another process left behind", slog.Int("events", len(left)))
		}
		if err := s.publish(ctx, left); err != nil {
			return err
		}
		if len(left) < sweepAtOnce {
			break
		}
	}
	return errors.Join(some, s.report(ctx))
}

// ofOne reports whether an error may be that of one company. One for which Postgres gives no answer is not passed over: another would not get one
// either, after a wait for each.
func ofOne(err error) bool {
	return postgres.Separable(err) && !errors.Is(err, context.DeadlineExceeded)
}

// drain applies what waits for companies that are registered or may go on by now. Those that can't are passed over, and so are those for which
// a statement fails: that is the error then, if Postgres answers the others.
func (s *TenantSweeper) drain(ctx context.Context) error {
	stranded, err := s.config.Store.Stranded(ctx, sweepAtOnce)
	if err != nil {
		return err
	}
	blocked := 0
	var failed []error
	apply := func(companies []string) error {
		for _, company := range companies {
			for more := true; more; {
				done, err := s.config.Store.Drain(ctx, company)
				if err := s.publish(ctx, done); err != nil {
					return err
				}
				more = len(done) >= postgres.DrainAtOnce
				var still *postgres.BlockedError
				switch {
				case errors.As(err, &still):
					blocked, more = blocked+1, false
				case err == nil:
				case ofOne(err):
					failed, more = append(failed, err), false
				default:
					return err
				}
			}
		}
		return nil
	}
	if err := apply(stranded); err != nil {
		return err
	}
	for blocked < blockedAtOnce {
		again, err := s.config.Store.Retry(ctx, blockedAtOnce)
		if err != nil {
			return err
		}
		if len(again) == 0 {
			break
		}
		if err := apply(again); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

// report tells metrics and readiness what is not at its end, unless it has done so a short while ago.
func (s *TenantSweeper) report(ctx context.Context) error {
	began := time.Now()
	if began.Sub(s.reported) < min(reportShare*s.took, reportWithin) {
		return nil
	}
	backlog, err := s.config.Store.Backlog(ctx)
	if err != nil {
		return err
	}
	s.waiting = backlog.Waiting
	blocked, err := s.config.Store.Blocked(ctx, blockedNamed)
	if err != nil {
		return err
	}
	overridden, err := s.config.Store.Overridden(ctx)
	if err != nil {
		return err
	}
	s.config.Metrics.backlog(backlog, blocked)
	s.config.Metrics.overridden(overridden)
	s.config.Blocked(blockedNote(backlog, blocked))
	s.reported, s.took = time.Now(), time.Since(began)
	return nil
}

// blockedNote says which companies can't go on.
func blockedNote(all postgres.Backlog, named []postgres.Block) string {
	var lines []string
	for _, b := range named {
		lines = append(lines, b.String())
	}
	if more := all.Blocked - int64(len(named)); more > 0 && len(named) > 0 {
		lines = append(lines, fmt.Sprintf("and %d more companies", more))
	}
	if all.Faulty > 0 {
		lines = append(lines, fmt.Sprintf("%d rows of the inbox have a fault and wait for a person", all.Faulty))
	}
	return strings.Join(lines, "; ")
}

// giveUp refuses what has waited for too long. The time is not enough: after an outage, or far behind in its topic, a registration
// that was published long ago may be still to come.
func (s *TenantSweeper) giveUp(ctx context.Context) error {
	if s.waiting == 0 {
		return nil
	}
	var ago time.Duration
	if s.config.Companies != nil {
		through, err := s.config.Companies.Through(ctx)
		if err != nil {
			s.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: readUnknown, Err: err})
		} else {
			s.troubles.Over(ctx, readUnknown, "")
		}
		if through.IsZero() {
			return nil
		}
		ago = time.Since(through)
	}
	for {
		refused, err := s.config.Store.GiveUp(ctx, ago, sweepAtOnce)
		if publishErr := s.publish(ctx, refused); publishErr != nil {
			return publishErr
		}
		if err != nil || len(refused) < sweepAtOnce {
			return err
		}
	}
}

func (s *TenantSweeper) publish(ctx context.Context, done []postgres.Applied) error {
	if len(done) == 0 {
		return nil
	}
	s.config.Applied(ctx, done)
	ctx, cancel := outlive(ctx)
	defer cancel()
	publish := func(ctx context.Context, results []kafka.Result) error {
		return s.results.PublishFitting(ctx, results, func(error) {})
	}
	_, err := s.config.publishEach(ctx, done, func(TenantStep) {}, publish)
	return err
}
