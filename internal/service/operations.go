package service

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/business"
	"tenantflow/internal/certs"
	"tenantflow/internal/config"
	"tenantflow/internal/operations"
	"tenantflow/internal/task"
	"tenantflow/internal/verify"
	"tenantflow/sinks/postgres"
)

// A board gathers what the operations page shows. It has connections of its own: what the parts do with theirs must not make the page
// wait, nor the page them.
type board struct {
	*operations.Board
	closers []func()
}

// showBoard makes the board that the operations page shows; nil: no part of this process serves the page.
func (s *Service) showBoard(ctx context.Context) (*board, error) {
	if s.api == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	b, err := s.newBoard(ctx)
	if err != nil {
		return nil, err
	}
	s.api.Show(b)
	return b, nil
}

// newBoard makes the board. Nothing is asked before its Run, and no store need be there.
func (s *Service) newBoard(ctx context.Context) (_ *board, err error) {
	b := &board{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	cfg := s.cfg
	all := operations.Config{Version: s.build.Version, Health: s.health, Parts: names(Parts()), Logger: s.log,
		QuotaTopic:   cfg.TopicPrefix + events.TopicQuota,
		ResultTopics: []string{cfg.TopicPrefix + events.TopicSubscriptionResults, cfg.TopicPrefix + events.TopicCompanyResults},
	}
	for _, g := range []struct{ part, topic string }{
		{"usage", events.TopicUsage}, {"quota", events.TopicUsage}, {"subscription", events.TopicSubscription}, {"company", events.TopicCompany},
	} {
		all.Groups = append(all.Groups, operations.Group{Part: g.part, Group: s.group(g.part), Topic: cfg.TopicPrefix + g.topic})
	}
	for _, t := range events.Topics() {
		if t.Input {
			all.Inputs = append(all.Inputs, cfg.TopicPrefix+t.Name)
		}
	}
	pings := map[config.Store]func(context.Context) error{}
	if len(cfg.KafkaBrokers) > 0 {
		client, done, err := cfg.KafkaClient()
		if err != nil {
			return nil, err
		}
		b.closers = append(b.closers, done)
		all.Kafka = client
		if pings[config.Kafka], err = b.pingKafka(cfg); err != nil {
			return nil, err
		}
	}
	if cfg.ClickHouseDSN != "" {
		if pings[config.ClickHouse], err = b.pingClickHouse(cfg); err != nil {
			return nil, err
		}
	}
	if cfg.DragonflyURL != "" {
		if pings[config.Dragonfly], err = b.pingDragonfly(cfg); err != nil {
			return nil, err
		}
	}
	if err := b.readPostgres(ctx, s, &all, pings); err != nil {
		return nil, err
	}
	for _, t := range []struct {
		name  string
		store config.Store
	}{{"Kafka", config.Kafka}, {"ClickHouse", config.ClickHouse}, {"Postgres", config.Postgres}, {"Dragonfly", config.Dragonfly}} {
		all.Stores = append(all.Stores, operations.Target{Name: t.name, Ping: pings[t.store]})
	}
	b.Board = operations.New(all)
	return b, nil
}

// start gathers until ctx ends, and then closes the connections. ended is closed when that is done.
func (b *board) start(ctx context.Context) (ended <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if b != nil {
			b.Run(ctx)
		}
		b.close()
	}()
	return done
}

func (b *board) close() {
	if b == nil {
		return
	}
	for _, c := range b.closers {
		c()
	}
	b.closers = nil
}

// pingKafka asks a broker what it can do, which needs no right and touches no log.
func (b *board) pingKafka(cfg *config.Config) (func(context.Context) error, error) {
	client, done, err := cfg.KafkaClient()
	if err != nil {
		return nil, err
	}
	b.closers = append(b.closers, done)
	return func(ctx context.Context) error {
		_, err := client.ApiVersions(ctx, &kafkago.ApiVersionsRequest{})
		return err
	}, nil
}

func (b *board) pingClickHouse(cfg *config.Config) (func(context.Context) error, error) {
	options, err := cfg.ClickHouseOptions()
	if err != nil {
		return nil, config.Invalidf("reading %sCLICKHOUSE_DSN: %w", config.Prefix, err)
	}
	options.MaxOpenConns, options.MaxIdleConns = 1, 1
	conn, err := clickhouse.Open(options)
	if err != nil {
		return nil, err
	}
	b.closers = append(b.closers, func() { _ = conn.Close() }) // nothing is under way
	return conn.Ping, nil
}

func (b *board) pingDragonfly(cfg *config.Config) (func(context.Context) error, error) {
	options, err := cfg.DragonflyOptions()
	if err != nil {
		return nil, err
	}
	options.PoolSize, options.MaxRetries, options.ContextTimeoutEnabled = 1, -1, true
	client := redis.NewClient(options)
	b.closers = append(b.closers, func() { _ = client.Close() })
	return func(ctx context.Context) error { return client.Ping(ctx).Err() }, nil
}

// readPostgres sets what is read from the tables in Postgres.
func (b *board) readPostgres(ctx context.Context, s *Service, all *operations.Config, pings map[config.Store]func(context.Context) error) error {
	cfg := s.cfg
	if cfg.PostgresDSN == "" {
		unset := operations.UnsetError("Postgres")
		all.Tasks = func(context.Context, int) ([]task.Task, error) { return nil, unset }
		all.Drift = func(context.Context) (operations.Drift, error) { return operations.Drift{}, unset }
		all.Handled = func(context.Context) (map[operations.LetterKind]int64, error) { return nil, unset }
		all.Business = func(context.Context) (*business.Report, error) { return nil, unset }
		return nil
	}
	options, err := certs.Pool(cfg.PostgresDSN.Reveal(), s.log)
	if err != nil {
		return config.Invalidf("%sPOSTGRES_DSN: %w", config.Prefix, err)
	}
	options.MaxConns, options.MinConns = 1, 0
	options.ConnConfig.RuntimeParams["application_name"] = "tenantflow page"
	pool, err := pgxpool.NewWithConfig(ctx, options)
	if err != nil {
		return fmt.Errorf("open Postgres for the operations page: %w", err)
	}
	tasks, err := task.Open(ctx, task.Config{DSN: cfg.PostgresDSN.Reveal(), Logger: s.log})
	if err != nil {
		pool.Close()
		return err
	}
	tables := &lateStore{open: func(ctx context.Context) (*postgres.Store, error) { return OpenPostgres(ctx, cfg, 0, s.log) }}
	b.closers = append(b.closers, pool.Close, tasks.Close, tables.close)
	pings[config.Postgres] = pool.Ping
	all.Tasks = tasks.List
	all.Drift = func(ctx context.Context) (operations.Drift, error) {
		store, err := tables.get(ctx)
		if err != nil {
			return operations.Drift{}, err
		}
		return drift(ctx, store, cfg.VerifyInterval)
	}
	all.Business = func(ctx context.Context) (*business.Report, error) {
		store, err := tables.get(ctx)
		if err != nil {
			return nil, err
		}
		return business.Last(ctx, store)
	}
	handled := &lateStore{open: tables.open}
	b.closers = append(b.closers, handled.close)
	all.Handled = func(ctx context.Context) (map[operations.LetterKind]int64, error) {
		store, err := handled.get(ctx)
		if err != nil {
			return nil, err
		}
		counts, err := store.HandledLetters(ctx)
		if err != nil {
			return nil, err
		}
		out := make(map[operations.LetterKind]int64, len(counts))
		for k, n := range counts {
			out[operations.LetterKind{Topic: k.Topic, Reason: string(k.Reason)}] = n
		}
		return out, nil
	}
	return nil
}

// drift reads what the last scheduled verification found, whichever process made it.
func drift(ctx context.Context, store *postgres.Store, interval time.Duration) (operations.Drift, error) {
	last, err := verify.Last(ctx, store)
	if err != nil {
		return operations.Drift{}, err
	}
	var d operations.Drift
	if interval > 0 {
		d.Interval = interval.String()
	}
	if last == nil {
		return d, nil
	}
	d.StartedAt, d.Seconds, d.Offsets, d.Unproven = last.Started.UTC(), last.Seconds, last.Offsets, last.Unproven
	d.Differences = map[string]int64{}
	for kind, n := range last.Differences {
		if n > 0 {
			d.Differences[string(kind)] = n
		}
	}
	return d, nil
}

// A lateStore is opened when it is needed, and again after that failed: the service starts whatever is away.
type lateStore struct {
	open func(context.Context) (*postgres.Store, error)

	mu    sync.Mutex
	store *postgres.Store
}

func (l *lateStore) get(ctx context.Context) (*postgres.Store, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store == nil {
		store, err := l.open(ctx)
		if err != nil {
			return nil, err
		}
		l.store = store
	}
	return l.store, nil
}

func (l *lateStore) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store != nil {
		l.store.Close()
	}
}
