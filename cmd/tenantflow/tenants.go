package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/directory"
	"tenantflow/internal/health"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// tenants is what several parts need to know of users and companies: opened by the first that asks, closed when the last
// is done with it.
type tenants struct {
	mu        sync.Mutex
	users     int
	counters  *dragonfly.Store
	postgres  *postgres.Store
	directory *directory.Directory
	unfollow  context.CancelFunc // ends the following of changes
	followed  *sync.WaitGroup
	metrics   prometheus.Collector
}

// openTenants opens Dragonfly, Postgres and the directory for a part, waiting for what is down. done is to be called when
// the part has ended. ok is false when ctx ended before.
func (s *service) openTenants(ctx context.Context, part string) (done func(), ok bool, err error) {
	t := &s.tenants
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users == 0 {
		if ok, err := t.open(ctx, s, part); !ok {
			return nil, false, err
		}
	}
	t.users++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.users--; t.users == 0 {
			t.close(s.registry, s.log)
		}
	}, true, nil
}

func (t *tenants) open(ctx context.Context, s *service, part string) (ok bool, err error) {
	options, err := redis.ParseURL(s.cfg.DragonflyURL.Reveal())
	if err != nil {
		return false, fmt.Errorf("reading %sDRAGONFLY_URL: %w", config.Prefix, err)
	}
	t.counters, err = await(ctx, s, part, "Dragonfly", func(err error) bool { return dragonfly.Classify(err) == dragonfly.Fatal }, func() (*dragonfly.Store, error) {
		return dragonfly.Open(ctx, dragonfly.Config{
			Options: options, Topic: s.cfg.TopicPrefix + events.TopicUsage,
			Lateness: s.cfg.QuotaLateness, Bucket: s.cfg.QuotaIdentityBucket, Logger: s.log,
		})
	})
	if err != nil || t.counters == nil {
		return false, err
	}
	t.postgres, err = await(ctx, s, part, "Postgres", func(err error) bool { return postgres.Classify(err) == postgres.Fatal }, func() (*postgres.Store, error) {
		return postgres.Open(ctx, postgres.Config{DSN: s.cfg.PostgresDSN.Reveal(), Logger: s.log})
	})
	if err != nil || t.postgres == nil {
		return false, errors.Join(err, t.counters.Close())
	}
	t.directory = directory.New(directory.Config{
		Loader: t.postgres, Cache: dragonfly.NewCache(t.counters.Client()), Members: t.postgres.Members, Log: s.log, Metrics: s.registry,
		Counters: func(ctx context.Context, user string, day time.Time) (int64, int64, error) {
			c, err := t.counters.Counters(ctx, user, day)
			return c.APICalls, c.DataPoints, err
		},
	})
	t.metrics = t.counters.Collector()
	s.registry.MustRegister(t.metrics)
	// Changes are followed until the last part has ended, not only until it is told to.
	following, unfollow := context.WithCancel(context.WithoutCancel(ctx))
	t.unfollow, t.followed = unfollow, &sync.WaitGroup{}
	t.followed.Go(func() {
		if err := t.directory.Run(following); err != nil && following.Err() == nil {
			s.log.Error("changes of users and companies are no longer followed", slog.Any("error", err))
		}
	})
	t.followed.Go(func() { _ = t.postgres.Run(following) }) // it says itself what it could not do
	return true, nil
}

func (t *tenants) close(registry *prometheus.Registry, log *slog.Logger) {
	registry.Unregister(t.metrics)
	t.unfollow()
	t.followed.Wait()
	t.directory.Close()
	t.postgres.Close()
	if err := t.counters.Close(); err != nil {
		log.Warn("closing Dragonfly", slog.Any("error", err))
	}
}

// await opens a store, and waits for it where it is down: an order in which to start things would be one more way to fail.
// Readiness says meanwhile what a part waits for. It gives nil when ctx ended before there was one.
func await[S any](ctx context.Context, s *service, part, name string, fatal func(error) bool, open func() (*S, error)) (*S, error) {
	delays := openDelays()
	for {
		store, err := open()
		switch {
		case err == nil:
			return store, nil
		case ctx.Err() != nil:
			return nil, nil //nolint:nilerr // asked to stop before there was anything to stop
		case fatal(err):
			return nil, err
		}
		s.health.Set(part, health.Failing, err.Error())
		s.log.Warn("a store does not answer; trying again", slog.String("store", name), slog.Any("error", err))
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(delays.NextBackOff()):
		}
	}
}

// runAPI answers /v1 until ctx ends.
func runAPI(ctx context.Context, s *service) error {
	const name = "api"
	done, ok, err := s.openTenants(ctx, name)
	if !ok {
		return err
	}
	defer done()
	s.api.Attach(s.tenants.directory, s.tenants.counters)
	defer s.api.Detach()
	s.health.Set(name, health.Ready, "")
	<-ctx.Done()
	return nil
}

// runQuota counts usage events until ctx ends.
func runQuota(ctx context.Context, s *service) error {
	const name = "quota"
	done, ok, err := s.openTenants(ctx, name)
	if !ok {
		return err
	}
	defer done()
	cfg := s.cfg
	dialer, err := cfg.KafkaDialer()
	if err != nil {
		return err
	}
	transport, err := cfg.KafkaTransport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	handler := consumers.NewQuota(consumers.QuotaConfig{
		Session: func(topic string, partition int) consumers.QuotaSession {
			return s.tenants.counters.Session(topic, partition)
		},
		Users:    s.tenants.directory,
		Limits:   events.UsageLimits{FutureTolerance: cfg.FutureTolerance, MaxAge: events.DefaultMaxAge},
		Topic:    cfg.TopicPrefix + events.TopicQuota,
		Registry: s.registry,
	})
	return consumers.NewGroup(consumers.Config{
		Name:             name,
		Brokers:          cfg.KafkaBrokers,
		Dialer:           dialer,
		Transport:        transport,
		Group:            cfg.GroupPrefix + "." + name,
		Topics:           []string{cfg.TopicPrefix + events.TopicUsage},
		SessionTimeout:   cfg.KafkaSessionTimeout,
		RebalanceTimeout: cfg.KafkaRebalanceTimeout,
		Drain:            drain(cfg),
		BatchRows:        cfg.QuotaBatchRows,
		BatchInterval:    cfg.QuotaBatchInterval,
		Budget:           consumers.NewBudget(int64(cfg.QuotaMemory)),
		OutOfRange:       consumers.OutOfRange(cfg.OffsetOutOfRange),
		Metrics:          consumers.NewMetrics(s.registry, name),
		Health:           s.health,
		Logger:           s.log,
	}, handler).Run(ctx)
}
