package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"tenantflow/events"
)

// Config is what a Directory is made of. Loader and Log are needed.
type Config struct {
	Loader Loader
	// Cache is Dragonfly. Nil: there is none, and what the process does not hold itself is asked of Postgres.
	Cache Cache
	Log   *slog.Logger
	// Metrics is where the metrics are registered. Nil: nowhere.
	Metrics prometheus.Registerer

	// Members returns up to limit users of a company, those that come after the given one, in the order of their ids. With
	// it a change of a company deletes its users' entries from Dragonfly, for programs that read the keys directly. A
	// Directory has no need of that: it sees by their versions that they are stale. Nil: they stay there until they expire.
	Members func(ctx context.Context, company, after string, limit int) ([]string, error)

	// Applied returns the time up to which company events, by the times of their records, are applied in Postgres: what
	// consumers.TopicReading follows. Nil: nothing applies any, and AppliedThrough is AsOf.
	Applied func(ctx context.Context) (time.Time, error)

	// MaxUsers is about how many users the process holds in its own memory, at around 1 KiB each. Default 100,000.
	MaxUsers int
	// Life is how long the process answers from its own memory without looking further, even if the feed reports no change.
	// Default 5 minutes.
	Life time.Duration
	// Loads bounds the queries to Postgres at the same time: those for users, as many again for companies, and as many for users in a
	// scope. Two more may be made for the changes. Default 2, so that changes find a connection in a pool of pgx' usual size.
	Loads int
	// LoadUsers is how many users one query asks for at most. Default 500.
	LoadUsers int
	// LoadTimeout bounds one query. Default 5 s.
	LoadTimeout time.Duration
	// CacheTimeout bounds one request to Dragonfly. Default 500 ms.
	CacheTimeout time.Duration
	// PollInterval is the pause between two reads of the change feed. Default 250 ms.
	PollInterval time.Duration
}

func (c Config) withDefaults() Config {
	number := func(n *int, otherwise int) {
		if *n <= 0 {
			*n = otherwise
		}
	}
	period := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	number(&c.MaxUsers, 100_000)
	period(&c.Life, 5*time.Minute)
	number(&c.Loads, 2)
	number(&c.LoadUsers, 500)
	period(&c.LoadTimeout, 5*time.Second)
	period(&c.CacheTimeout, 500*time.Millisecond)
	period(&c.PollInterval, 250*time.Millisecond)
	return c
}

const (
	// unknownLife is how long the process remembers that Postgres does not know a user or a company.
	unknownLife = time.Second
	// maxUnknown bounds those; requests for made-up ids must not drive real ones out of memory.
	maxUnknown = 50_000
	// maxCompanies is how many companies the process holds in its own memory.
	maxCompanies = 20_000
)

// A Directory answers who a user is. Its methods may be called by many goroutines.
type Directory struct {
	config  Config
	log     *slog.Logger
	metrics *metrics
	started time.Time

	known   *known
	users   *memory[Subscription]
	configs *memory[CompanyConfig]
	periods *memory[BillingPeriod]
	unknown *memory[struct{}] // users by id, companies by ":" and id
	outside *memory[struct{}] // by the key of a scope and a user's id
	show    shower
	applied applied

	cacheDownUntil atomic.Int64 // nanoseconds since started; 0: it was well last time
	lastRead       atomic.Int64 // of the feed: nanoseconds since started

	ctx    context.Context // of loads: they are shared, so no caller's end may end them
	cancel context.CancelFunc
	loads  sync.WaitGroup

	mu      sync.Mutex // for what follows
	closed  bool
	flights map[string]*flight
	pending []*flight // of flights, those that no worker has taken yet
	workers int

	companyFlights singleflight.Group
	companyLoads   chan struct{} // a semaphore
	scopedFlights  singleflight.Group
	scopedLoads    chan struct{} // likewise
}

// New makes a directory. It answers at once, from Dragonfly only after Run has read the change feed for the first time,
// because until then it can't know which entries there are stale.
func New(c Config) *Directory {
	c = c.withDefaults()
	d := &Directory{
		config: c, log: c.Log, started: time.Now(), known: newKnown(),
		users: newMemory[Subscription](c.MaxUsers), unknown: newMemory[struct{}](maxUnknown), outside: newMemory[struct{}](maxUnknown),
		configs: newMemory[CompanyConfig](maxCompanies), periods: newMemory[BillingPeriod](maxCompanies),
		flights: map[string]*flight{}, companyLoads: make(chan struct{}, c.Loads), scopedLoads: make(chan struct{}, c.Loads),
		show: shower{wake: make(chan struct{}, 1)},
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.metrics = newMetrics(c.Metrics, d)
	return d
}

// errClosed is what look-ups return that Close has found unfinished.
var errClosed = errors.New("the directory is closed")

// Close ends the loads that are under way and waits for them. Callers that wait for one get an error. It may be called more
// than once. Run has to end before.
func (d *Directory) Close() {
	d.mu.Lock()
	d.closed = true
	waiting := d.pending
	d.pending = nil
	for _, f := range waiting {
		delete(d.flights, f.user)
	}
	d.mu.Unlock()
	for _, f := range waiting {
		f.err = errClosed
		close(f.done)
	}
	d.cancel()
	d.loads.Wait()
	d.metrics.unregister()
}

// now is the time as entries count it.
func (d *Directory) now() int64 { return int64(time.Since(d.started)) }

// Resolve looks up many users at once: out[i] is what is known of users[i], nil if there is no such user. The
// subscriptions are shared with others. An error is transient; out is then incomplete. out must be as long as users.
func (d *Directory) Resolve(ctx context.Context, users []string, out []*Subscription) error {
	err := d.resolve(ctx, users, out)
	for i, s := range out {
		if s != nil && s.former() {
			out[i] = nil
		}
	}
	return err
}

func (d *Directory) resolve(ctx context.Context, users []string, out []*Subscription) error {
	if len(out) != len(users) {
		return fmt.Errorf("resolve %d users into %d places", len(users), len(out))
	}
	now := d.now()
	var missing []int
	for i, user := range users {
		if e := usable(d, d.users.get(user), now); e != nil {
			out[i] = e.value
			continue
		}
		out[i] = nil
		if !d.isUnknown(user, user, "", now) {
			missing = append(missing, i)
		}
	}
	d.metrics.process.Add(float64(len(users) - len(missing)))
	if len(missing) == 0 {
		return nil
	}
	for i, f := range d.join(users, missing) {
		sub, err := f.wait(ctx)
		if err != nil {
			return fmt.Errorf("resolve %d users: %w", len(users), err)
		}
		out[missing[i]] = sub
	}
	return nil
}

// User looks up one user. The error is ErrUnknown if there is no such user; any other one is transient.
func (d *Directory) User(ctx context.Context, id string) (*Subscription, error) {
	one := [1]*Subscription{}
	if err := d.Resolve(ctx, []string{id}, one[:]); err != nil {
		return nil, fmt.Errorf("look up a user: %w", err)
	}
	if one[0] == nil {
		return nil, fmt.Errorf("user %q: %w", id, ErrUnknown)
	}
	return one[0], nil
}

// usable returns the entry if it may still be used, else nil.
func usable[T any](d *Directory, e *entry[T], now int64) *entry[T] {
	if e == nil || now >= e.expires {
		return nil
	}
	epoch := d.known.epoch.Load()
	if e.seen.Load() == epoch {
		return e
	}
	if d.known.changedSince(e.company, e.user, e.seen.Load()) {
		return nil
	}
	e.seen.Store(epoch)
	return e
}

// isUnknown reports whether Postgres has said lately that it does not know the user or the company.
func (d *Directory) isUnknown(key, user, company string, now int64) bool {
	e := usable(d, d.unknown.get(key), now)
	// What is no id can't be known, and must not get into a key.
	return e != nil || !events.ValidID(user+company)
}

// rememberUnknown keeps for a moment that a user or a company is not known.
func (d *Directory) rememberUnknown(key, user, company string, epoch uint64) {
	e := &entry[struct{}]{user: user, company: company, expires: d.now() + int64(unknownLife)}
	e.seen.Store(epoch)
	d.unknown.put(key, e)
}

// FeedAge is the time since the change feed was last read, or since New if it never was. Changes made since then are not
// seen.
func (d *Directory) FeedAge() time.Duration {
	return time.Duration(d.now() - d.lastRead.Load())
}
