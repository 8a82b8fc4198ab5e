package directory_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"tenantflow/internal/directory"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// A world is a database and a Redis of the test's own, each behind a proxy that can be shut.
type world struct {
	t        testing.TB
	id       string // part of every user's and company's id
	sql      *pgxpool.Pool
	redis    *redis.Client // past the proxy
	postgres *engine.Proxy
	cache    *engine.Proxy
	dsn      string // of the proxy
}

var worlds atomic.Int64 //nolint:gochecknoglobals // ids must differ over the whole process

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOn(t, postgrestest.New(t))
}

// newWorldOn makes a world of a database that is there.
func newWorldOn(t testing.TB, dsn string) *world {
	t.Helper()
	w := &world{t: t, id: fmt.Sprintf("w%d", worlds.Add(1))}
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w.sql = pool

	address, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	w.postgres = enginetest.Proxy(t, address.Host)
	address.Host = w.postgres.Addr()
	w.dsn = address.String()

	// Its own: a directory deletes from Dragonfly what is of another database.
	own := enginetest.Redis(t)
	w.cache = enginetest.Proxy(t, own.Addr())
	w.redis = redis.NewClient(enginetest.RedisOptions(t, own.URL()))
	t.Cleanup(func() { w.redis.Close() })
	return w
}

func (w *world) company(n int) string { return fmt.Sprintf("%s-c%d", w.id, n) }

func (w *world) user(n int) string { return fmt.Sprintf("%s-u%d", w.id, n) }

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.sql.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatal(err)
	}
}

// register makes a company on a tier with the users first..last.
func (w *world) register(company int, tierName string, first, last int) {
	w.t.Helper()
	id := w.company(company)
	w.exec(`INSERT INTO companies (company_id, name, billing_email) VALUES ($1, 'Name', $1 || '@example.com')`, id)
	w.exec(`INSERT INTO company_config (company_id, config) VALUES ($1, '{"theme": "dark"}')`, id)
	w.exec(`INSERT INTO subscriptions (company_id, tier) VALUES ($1, $2)`, id, tierName)
	w.exec(`INSERT INTO user_directory (user_id, company_id, email)
		SELECT $2 || '-u' || n, $1, 'u' || n || '@example.com' FROM generate_series($3::int, $4::int) n`, id, w.id, first, last)
}

func (w *world) setTier(company int, tierName string) {
	w.t.Helper()
	w.exec(`UPDATE subscriptions SET tier = $2 WHERE company_id = $1`, w.company(company), tierName)
}

// A node is a process with a directory.
type node struct {
	*directory.Directory
	*loader
	log    *logLines
	cache  *dragonfly.Cache
	follow func()
}

// start makes a directory that follows the changes.
func (w *world) start(change ...func(*directory.Config)) *node {
	w.t.Helper()
	n := w.make(change...)
	n.follow()
	// The directory has taken in one poll when it makes the next.
	w.eventually("the feed is read", func() bool { return n.polls.Load() > 1 })
	return n
}

// make makes a directory that does not follow the changes until follow is called.
func (w *world) make(change ...func(*directory.Config)) *node {
	w.t.Helper()
	store, err := postgres.Open(w.t.Context(), postgres.Config{DSN: w.dsn, Timeout: time.Minute})
	if err != nil {
		w.t.Fatal(err)
	}
	options := enginetest.RedisOptions(w.t, "redis://"+w.cache.Addr())
	options.ContextTimeoutEnabled, options.MaxRetries = true, -1
	client := redis.NewClient(options)
	n := &node{loader: &loader{Store: store}, log: &logLines{}, cache: dragonfly.NewCache(client)}
	c := directory.Config{Loader: n.loader, Cache: n.cache, Log: slog.New(slog.NewTextHandler(n.log, nil)), PollInterval: 20 * time.Millisecond,
		// A machine that is busy with other tests is not a store that is away.
		CacheTimeout: time.Minute, LoadTimeout: time.Minute}
	for _, f := range change {
		f(&c)
	}
	n.Directory = directory.New(c)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	n.follow = func() {
		running.Go(func() {
			if err := n.Run(ctx); err != nil {
				w.t.Errorf("follow the changes: %v", err)
			}
		})
	}
	w.t.Cleanup(func() {
		cancel()
		running.Wait()
		n.Close()
		client.Close()
		store.Close()
	})
	return n
}

func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, condition); err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
}

// must looks a user up who is known.
func (n *node) must(t testing.TB, user string) *directory.Subscription {
	t.Helper()
	s, err := n.User(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tierOf returns the tier of a user, or the error as text.
func (n *node) tierOf(ctx context.Context, user string) string {
	s, err := n.User(ctx, user)
	if err != nil {
		return err.Error()
	}
	return s.Tier
}

// A loader is the store, watched, and delayed where a test wants that.
type loader struct {
	*postgres.Store
	queries, asked, companies, polls atomic.Int64
	running, most                    atomic.Int64 // queries for users at the same time

	mu    sync.Mutex
	after func() // runs when Postgres has answered, before any caller has the answer
}

func (l *loader) delay(after func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.after = after
}

func (l *loader) answered() {
	l.mu.Lock()
	after := l.after
	l.mu.Unlock()
	if after != nil {
		after()
	}
}

func (l *loader) Users(ctx context.Context, ids []string) ([]directory.Subscription, error) {
	l.queries.Add(1)
	l.asked.Add(int64(len(ids)))
	now := l.running.Add(1)
	defer l.running.Add(-1)
	for most := l.most.Load(); now > most && !l.most.CompareAndSwap(most, now); most = l.most.Load() {
	}
	found, err := l.Store.Users(ctx, ids)
	l.answered()
	return found, err
}

func (l *loader) Company(ctx context.Context, id string) (directory.Company, error) {
	l.companies.Add(1)
	c, err := l.Store.Company(ctx, id)
	l.answered()
	return c, err
}

func (l *loader) Changes(ctx context.Context, since directory.Position) (directory.Feed, error) {
	page, err := l.Store.Changes(ctx, since)
	if err == nil {
		// Counted when the next one begins at the earliest: the directory takes them in after this.
		defer l.polls.Add(1)
	}
	return page, err
}

// logLines keeps what is logged.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logLines) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), part)
}
