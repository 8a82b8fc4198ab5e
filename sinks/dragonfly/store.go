package dragonfly

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/trace"
)

// Config is what a Store needs.
type Config struct {
	// Options say where the server is. What they leave out gets defaults that fit the service.
	Options *redis.Options

	// Topic is the one whose events are counted, prefix included: progress is kept under a hash of its name.
	Topic string

	// Lateness is how long after its UTC day a counter is kept. Default: DefaultLateness.
	Lateness time.Duration

	// LongestHold is how long a reservation can be held at most. Default: LongestHold.
	LongestHold time.Duration

	Logger *slog.Logger  // default: none
	Tracer *trace.Tracer // of the commands; nil: none
}

// DefaultLateness is how long after its UTC day a counter is kept.
const DefaultLateness = 48 * time.Hour

// A Store is the counters and everything that makes them exact.
type Store struct {
	cfg     Config
	client  *redis.Client // for all who ask and may be asked to wait and try again
	counter *redis.Client // for sessions: never retries on its own
	log     *slog.Logger
	scripts scripts

	seen      atomic.Pointer[sighting] // of the server that answers, at the last look or new connection
	looking   sync.Mutex               // held by one who looks for all
	counting  chan struct{}            // a slot for each session that counts
	beginning sync.Mutex               // held by a session that begins an epoch
	doubtful  atomic.Bool              // counters were being rebuilt, or holds forgotten, at the last reservation

	clock func() any       // the time that reservations go by, in milliseconds; "": the server's own
	now   func() time.Time // which day it most likely is there
}

// Open connects and checks that the server is fit for counting: it must not evict. The error is to be classified.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg.Lateness, cfg.LongestHold = cmp.Or(cfg.Lateness, DefaultLateness), cmp.Or(cfg.LongestHold, LongestHold)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	asking, counting := *cfg.Options, *cfg.Options
	for _, o := range []*redis.Options{&asking, &counting} {
		o.Protocol = 2 // all that is needed, and the same everywhere
		o.DisableIdentity = true
	}
	asking.ContextTimeoutEnabled = true
	if asking.PoolSize == 0 {
		asking.PoolSize = 64 // requests wait for answers, not for processors
	}
	// A command sent twice would do no harm, but a session must know when its connection was lost.
	counting.MaxRetries = -1
	counting.PoolSize = 1024 // one connection a partition; idle ones are not kept
	counting.ContextTimeoutEnabled = true
	s := &Store{cfg: cfg, counter: redis.NewClient(&counting), log: cfg.Logger, scripts: newScripts(), counting: make(chan struct{}, maxCounting),
		clock: func() any { return "" }, now: time.Now}
	asking.OnConnect = s.connected
	s.client = redis.NewClient(&asking)
	for _, c := range []*redis.Client{s.client, s.counter} {
		c.AddHook(patience{cfg.Options.Addr})
		if err := cfg.Tracer.TraceRedis(c); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := s.check(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// random is the low bits of an epoch's number.
func (s *Store) random() int64 { return rand.Int64N(1 << epochBits) } // #nosec G404 -- it need not be hard to guess

// Close gives the connections back. Sessions must be closed before.
func (s *Store) Close() error { return errors.Join(s.client.Close(), s.counter.Close()) }

// Client is a connection pool to the same server, for others who keep things there.
func (s *Store) Client() redis.UniversalClient { return s.client }

// Memory is what the server says of its memory.
type Memory struct {
	Used, Max int64 // bytes; Max 0: no limit
}

// Memory asks the server.
func (s *Store) Memory(ctx context.Context) (Memory, error) {
	text, err := s.client.Info(ctx, "memory").Result()
	if err != nil {
		return Memory{}, fmt.Errorf("ask the counter store about its memory: %w", err)
	}
	fields := infoFields(text)
	var m Memory
	for name, to := range map[string]*int64{"used_memory": &m.Used, "maxmemory": &m.Max} {
		if fields[name] == "" {
			continue // not said
		}
		if *to, err = strconv.ParseInt(fields[name], 10, 64); err != nil {
			return Memory{}, fmt.Errorf("ask the counter store about its memory: %s: %w", name, err)
		}
	}
	return m, nil
}
