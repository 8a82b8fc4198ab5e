package service

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// tenants holds the stores and caches of users and companies that several parts share: opened by the first part that asks,
// closed when the last is done.
type tenants struct {
	mu        sync.Mutex
	refs      int
	counters  *dragonfly.Store
	postgres  *postgres.Store
	directory *directory.Directory
	unfollow  context.CancelFunc // ends the following of changes
	followed  *sync.WaitGroup
	metrics   prometheus.Collector
	forget    func() // closes the connections that say how far company events are applied
}

// openTenants opens Dragonfly, Postgres and the directory for a part. done is to be called when the part has ended.
func (s *Service) openTenants(ctx context.Context) (done func(), err error) {
	t := &s.tenants
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refs == 0 {
		if err := t.open(ctx, s); err != nil {
			return nil, err
		}
	}
	t.refs++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.refs--; t.refs == 0 {
			t.close(s.registry, s.log)
		}
	}, nil
}

func (t *tenants) open(ctx context.Context, s *Service) (err error) {
	if t.counters, err = openCounters(ctx, s.cfg, s.log, s.tracer); err != nil {
		return err
	}
	if t.postgres, err = openPostgres(ctx, s.cfg, 0, s.log, s.tracer); err != nil {
		return errors.Join(err, t.counters.Close())
	}
	applied, err := t.applied(s)
	if err != nil {
		t.postgres.Close()
		return errors.Join(err, t.counters.Close())
	}
	t.directory = directory.New(directory.Config{
		Applied: applied,
		Loader:  t.postgres, Cache: dragonfly.NewCache(t.counters.Client()), Members: t.postgres.Members, Log: s.log, Metrics: s.registry,
	})
	t.metrics = t.counters.Collector()
	s.registry.MustRegister(t.metrics)
	// Changes are followed until the last part has ended, not only until it is asked to stop.
	following, unfollow := context.WithCancel(context.WithoutCancel(ctx))
	t.unfollow, t.followed = unfollow, &sync.WaitGroup{}
	t.followed.Go(func() {
		if err := t.directory.Run(following); err != nil && following.Err() == nil {
			s.log.Error("changes of users and companies are no longer followed", slog.Any("error", err))
		}
	})
	t.followed.Go(func() { _ = t.postgres.Run(following) }) // it says itself what it could not do
	return nil
}

// applied returns a function that reports how far company events are applied, which decides whether usage under another company is
// refused for good; nil where no usage is counted.
func (t *tenants) applied(s *Service) (func(context.Context) (time.Time, error), error) {
	if t.forget = func() {}; !s.has("quota") {
		return nil, nil
	}
	client, done, err := s.cfg.KafkaClient()
	if err != nil {
		return nil, err
	}
	t.forget = done
	reading := &kafka.TopicReading{Client: client, Topic: s.cfg.TopicPrefix + events.TopicCompany, Group: s.group("company")}
	return reading.Through, nil
}

func (t *tenants) close(registry *prometheus.Registry, log *slog.Logger) {
	registry.Unregister(t.metrics)
	t.unfollow()
	t.followed.Wait()
	t.directory.Close()
	t.forget()
	t.postgres.Close()
	if err := t.counters.Close(); err != nil {
		log.Warn("closing Dragonfly", slog.Any("error", err))
	}
}
