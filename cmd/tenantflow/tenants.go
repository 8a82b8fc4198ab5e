package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/directory"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// tenants holds the stores and caches of users and companies that several parts share: opened by the first part that asks,
// closed when the last is done.
type tenants struct {
	mu        sync.Mutex
	users     int
	counters  *dragonfly.Store
	postgres  *postgres.Store
	directory *directory.Directory
	unfollow  context.CancelFunc // ends the following of changes
	followed  *sync.WaitGroup
	metrics   prometheus.Collector
	kafka     *kafkago.Transport // reads how far company events are applied; nil where no usage is counted
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

// countersOf is how the counter store of a configuration is opened.
func countersOf(cfg *config.Config) (dragonfly.Config, error) {
	options, err := redis.ParseURL(cfg.DragonflyURL.Reveal())
	if err != nil { // it was checked before
		return dragonfly.Config{}, invalid("%sDRAGONFLY_URL is no address of Dragonfly", config.Prefix)
	}
	return dragonfly.Config{Options: options, Topic: cfg.TopicPrefix + events.TopicUsage, Lateness: exactly(cfg.QuotaLateness)}, nil
}

func (t *tenants) open(ctx context.Context, s *service, part string) (ok bool, err error) {
	counters, err := countersOf(s.cfg)
	if err != nil {
		return false, err
	}
	counters.Logger = s.log
	t.counters, err = await(ctx, s, part, "Dragonfly", func(err error) bool { return dragonfly.Classify(err) == dragonfly.Fatal }, func() (*dragonfly.Store, error) {
		return dragonfly.Open(ctx, counters)
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
	applied, err := t.applied(s)
	if err != nil {
		t.postgres.Close()
		return false, errors.Join(err, t.counters.Close())
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
	return true, nil
}

// applied returns a function that reports how far company events are applied, which decides whether usage under another company is
// refused for good; nil where no usage is counted.
func (t *tenants) applied(s *service) (func(context.Context) (time.Time, error), error) {
	t.kafka = nil
	if !slices.ContainsFunc(s.parts, func(p part) bool { return p.name == "quota" }) {
		return nil, nil
	}
	var err error
	if t.kafka, err = s.cfg.KafkaTransport(); err != nil {
		return nil, err
	}
	reading := &kafka.TopicReading{Client: &kafkago.Client{Addr: kafkago.TCP(s.cfg.KafkaBrokers...), Transport: t.kafka},
		Topic: s.cfg.TopicPrefix + events.TopicCompany, Group: s.cfg.GroupPrefix + ".company"}
	return reading.Through, nil
}

func (t *tenants) close(registry *prometheus.Registry, log *slog.Logger) {
	registry.Unregister(t.metrics)
	t.unfollow()
	t.followed.Wait()
	t.directory.Close()
	if t.kafka != nil {
		t.kafka.CloseIdleConnections()
	}
	t.postgres.Close()
	if err := t.counters.Close(); err != nil {
		log.Warn("closing Dragonfly", slog.Any("error", err))
	}
}
