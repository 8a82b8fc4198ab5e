// Package postgres stores companies, their users and subscriptions in Postgres. It applies events to them
// ([Tenants]), reads what is known of them and what has changed of it, and keeps the catalogue of tiers.
//
//	store, err := postgres.Open(ctx, postgres.Config{DSN: dsn, Logger: log})
//	defer store.Close()
//	known, err := store.Users(ctx, []string{"u-1", "u-2"})
//
// The tables are those of migrations/postgres. Every statement names them with their schema, so a search path changes
// nothing.
package postgres

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"tenantflow/internal/certs"
	"tenantflow/internal/trace"
)

// Config is what a Store needs.
type Config struct {
	// DSN is the address in pgx's form. What it says itself (pool_max_conns, connect_timeout, ...) stays.
	DSN string

	// Pool, if set, is taken in place of DSN, as it is.
	Pool *pgxpool.Config

	// Timeout is how long one look-up may take, with the wait for a connection. Default: 5s.
	Timeout time.Duration

	// ChangesPage is how many changes Changes reads at once. Default: 10,000.
	ChangesPage int

	Logger *slog.Logger
	Tracer *trace.Tracer // of the statements; nil: none
}

const (
	defaultTimeout = 5 * time.Second
	connectTimeout = 5 * time.Second
	connLifetime   = 10 * time.Minute // so that a load balancer's changes are followed
	connIdle       = 2 * time.Minute
	application    = "tenantflow" // how the connections are called in pg_stat_activity
)

// A Store is the public tables of one database. It may be used by several goroutines at once.
type Store struct {
	pool    *pgxpool.Pool
	timeout time.Duration
	log     *slog.Logger
	dials   *dials

	// prunable is the oldest transaction at the time of the last PruneChanges: every reader has read up to it by now.
	prunable    atomic.Uint64
	changesPage int
	// unlisted is when it was said of a tier that it is not in the catalogue.
	unlisted sync.Map
}

// Open connects to Postgres and waits for an answer. Close the result.
//
// The pool has at most pool_max_conns connections of the DSN, by default 4 or the number of processors if that is more;
// connections that are not used are closed.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.ChangesPage == 0 {
		cfg.ChangesPage = changesPage
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	options := cfg.Pool
	if options == nil {
		var err error
		if options, err = poolOf(cfg.DSN, cfg.Logger); err != nil {
			return nil, explain("open the tables", err)
		}
	}
	cfg.Tracer.TracePostgres(options.ConnConfig)
	if options.AfterRelease == nil {
		options.AfterRelease = func(conn *pgx.Conn) bool { return !worn(conn) }
	}
	watched := watchDials(options.ConnConfig)
	pool, err := pgxpool.NewWithConfig(ctx, options)
	if err != nil {
		return nil, explain("open the tables", err)
	}
	s := &Store{pool: pool, timeout: cfg.Timeout, log: cfg.Logger, dials: watched, changesPage: cfg.ChangesPage}
	if err := s.Ping(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return s, nil
}

func poolOf(dsn string, log *slog.Logger) (*pgxpool.Config, error) {
	options, err := certs.Pool(dsn, log)
	if err != nil {
		return nil, err
	}
	conn := options.ConnConfig
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = connectTimeout
	}
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = application
	}
	options.MaxConnLifetime = min(options.MaxConnLifetime, connLifetime)
	options.MaxConnLifetimeJitter = max(options.MaxConnLifetimeJitter, connLifetime/10)
	options.MaxConnIdleTime = min(options.MaxConnIdleTime, connIdle)
	return options, nil
}

// Close closes the connections, when those in use are given back.
func (s *Store) Close() { s.pool.Close() }

// Ping asks the server for an answer.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if err := s.pool.Ping(ctx); err != nil {
		return s.explain("ping", err)
	}
	return nil
}

// bounded gives a look-up its time. When that is over the connection is closed.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.timeout)
}
