package business

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"tenantflow/internal/logs"
	"tenantflow/sinks/postgres"
)

const (
	// samplesEach is how many queries of one route are kept of each interval: a busy route must not fill the table.
	samplesEach = 8
	// samplesEvery is how often they are written.
	samplesEvery = time.Minute
	// samplesLast bounds the last write of a process that ends.
	samplesLast = time.Second
)

const unsampled = "samples of queries were not kept"

// Samples keeps a sample of the queries that a process answers, of which the latency by tier is taken. Of each route every query of an interval
// has the same chance to be in it. It may be used by several goroutines at once.
type Samples struct {
	store *postgres.Store
	log   *slog.Logger

	mu     sync.Mutex
	routes map[string]*reservoir
}

// A reservoir is a uniform sample of a stream of unknown length (Vitter's algorithm R).
type reservoir struct {
	seen int
	kept []postgres.QuerySample
}

// NewSamples makes a Samples that writes into a store. Run writes.
func NewSamples(store *postgres.Store, log *slog.Logger) *Samples {
	return &Samples{store: store, log: log, routes: map[string]*reservoir{}}
}

// Observe notes a query about a company. Routes are few: they are patterns and not paths.
func (s *Samples) Observe(route, company string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.routes[route]
	if r == nil {
		r = &reservoir{}
		s.routes[route] = r
	}
	r.seen++
	one := postgres.QuerySample{Company: company, Route: route, Took: max(took, 0)}
	if len(r.kept) < samplesEach {
		r.kept = append(r.kept, one)
	} else if i := rand.IntN(r.seen); i < samplesEach {
		r.kept[i] = one
	}
}

// Run writes the samples now and then, until ctx ends, and then what is left.
func (s *Samples) Run(ctx context.Context) {
	tick := time.NewTicker(samplesEvery)
	defer tick.Stop()
	troubles := logs.NewTroubles(s.log)
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), samplesLast)
			defer cancel()
			if err := s.Flush(last); err != nil {
				s.log.LogAttrs(last, slog.LevelDebug, unsampled, slog.Any("error", err))
			}
			return
		case <-tick.C:
		}
		if err := s.Flush(ctx); err != nil && ctx.Err() == nil {
			troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: unsampled, Err: err})
		} else {
			troubles.Over(ctx, unsampled, "")
		}
	}
}

// Flush writes what was sampled since the last time. What can't be written is lost: it is a sample.
func (s *Samples) Flush(ctx context.Context) error {
	s.mu.Lock()
	routes := s.routes
	s.routes = map[string]*reservoir{}
	s.mu.Unlock()
	var all []postgres.QuerySample
	for _, r := range routes {
		for _, one := range r.kept {
			one.Weight = float64(r.seen) / float64(len(r.kept))
			all = append(all, one)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return s.store.AddQuerySamples(ctx, all)
}
