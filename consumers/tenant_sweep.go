package consumers

import (
	"context"
	"log/slog"
	"time"

	"tenantflow/sinks/postgres"
)

const (
	// sweepInterval is how often a process looks for what others have left behind.
	sweepInterval = 2 * time.Second
	// sweepAge is how long the results of an event may be on their way before another process publishes them as well.
	sweepAge = 10 * time.Second
	// sweepAtOnce is how much of it is taken at a time.
	sweepAtOnce = 200
)

// A TenantSweeper finishes work that another process left behind: it publishes results that are not known to be published,
// applies events whose company was registered meanwhile, and refuses those that have waited for too long. Every process has one;
// two at the same time do no harm, because everything they do happens once and has the same ids.
type TenantSweeper struct {
	config  TenantConfig
	results *Results
	log     *slog.Logger
	waiting int64 // events, when it was last looked
}

// NewTenantSweeper returns a sweeper that publishes with the given publisher, which stays the caller's.
func NewTenantSweeper(config TenantConfig, results *Results, log *slog.Logger) *TenantSweeper {
	config.withDefaults()
	return &TenantSweeper{config: config, results: results, log: log}
}

// Run sweeps until ctx is done, and then returns nil. What fails is logged and tried again.
func (s *TenantSweeper) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.LogAttrs(ctx, slog.LevelWarn, "looking for what was left behind failed", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *TenantSweeper) sweep(ctx context.Context) error {
	companies, err := s.config.Store.Stranded(ctx, sweepAtOnce)
	if err != nil {
		return err
	}
	for _, company := range companies {
		done, err := s.config.Store.Drain(ctx, company)
		if publishErr := s.publish(ctx, done); publishErr != nil {
			return publishErr
		}
		if err != nil {
			return err
		}
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
	backlog, err := s.config.Store.Backlog(ctx)
	if err == nil {
		s.waiting = backlog.Waiting
		s.config.Metrics.backlog(backlog)
	}
	return err
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
			s.log.LogAttrs(ctx, slog.LevelWarn, "it is not known how far company events are read, so no event is refused for an unknown company", slog.Any("error", err))
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
	if err := s.results.Publish(ctx, s.config.results(done), func(error) {}); err != nil {
		return err
	}
	return s.config.Store.MarkPublished(ctx, done)
}
