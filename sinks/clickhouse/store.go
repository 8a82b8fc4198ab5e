// Package clickhouse writes usage events to ClickHouse, each exactly once.
//
// ClickHouse commits one block into one partition atomically and drops a block whose deduplication token it has
// seen, but it has no transaction over the table and the views it feeds, and no transaction with Kafka. What makes
// the effect exact is the order of steps around it:
//
//   - An [Intent] is committed to Kafka before anything is sent ([Block.Intent]).
//   - [Store.Insert] sends one block per month, with the intent's tokens and a deadline that the server enforces.
//   - When the outcome is unknown, [Store.Await] waits until nothing can be under way any more and looks what is
//     there, and [Store.Complete] completes it.
//   - [Store.Find] says which events the table holds already, so that an event published twice is stored once.
//
// The caller of these four steps is the usage consumer.
package clickhouse

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a Store needs.
type Config struct {
	// Options are the connection's. The protocol must be HTTP.
	Options *chgo.Options

	// InsertTimeout is how long the server may take over one insert, and how far ahead the deadline of an insert
	// lies. After a crash the rows under way are settled once it has passed. Default: DefaultInsertTimeout.
	InsertTimeout time.Duration

	// Inserts bounds the inserts that run at the same time in this process. Default: 4.
	Inserts int

	// OnPart, if set, is called after each month's part of an insert has landed.
	OnPart func(month int)

	Logger *slog.Logger
}

// A Store is the table usage_tracking with the views it feeds. It may be used by several goroutines at once.
type Store struct {
	conn     driver.Conn
	timeout  time.Duration
	slots    chan struct{}
	encoders chan *encoder
	onPart   func(month int)
	log      *slog.Logger

	// clock is the server's clock as it was read last. Deadlines are the server's business, so they are made by its
	// clock.
	clock    atomic.Pointer[reading]
	reopened atomic.Pointer[reopening] // nil: the clock was not set back lately
	steps    atomic.Int64              // how often the clock was set

	// patience multiplies the timeout: 1, and up to maxPatience while inserts come too late. A server that needs
	// longer than the timeout for every insert would otherwise never finish one.
	patience atomic.Int64
}

const maxPatience = 4

// DefaultInsertTimeout is how long one insert may take.
const DefaultInsertTimeout = 15 * time.Second

// Open connects to ClickHouse and measures its clock.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg.InsertTimeout = cmp.Or(cfg.InsertTimeout, DefaultInsertTimeout)
	if cfg.Inserts == 0 {
		cfg.Inserts = 4
	}
	if cfg.OnPart == nil {
		cfg.OnPart = func(int) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	conn, err := Connect(cfg.Options)
	if err != nil {
		return nil, err
	}
	s := &Store{
		conn:     conn,
		timeout:  cfg.InsertTimeout,
		slots:    make(chan struct{}, cfg.Inserts),
		encoders: make(chan *encoder, cfg.Inserts),
		onPart:   cfg.OnPart,
		log:      cfg.Logger,
	}
	s.patience.Store(1)
	if err := s.SyncClock(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

// Close closes the connections.
func (s *Store) Close() error { return s.conn.Close() }

// Collector gives the metrics of the store.
func (s *Store) Collector() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tenantflow_clickhouse_clock_steps_total",
		Help: "How often ClickHouse's clock was found to have been set, forwards or back.",
	}, func() float64 { return float64(s.steps.Load()) })
}

// Ping asks the server for an answer.
func (s *Store) Ping(ctx context.Context) error {
	var one uint8
	if err := s.conn.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		return fmt.Errorf("ping ClickHouse: %w", err)
	}
	return nil
}

// hurried notes whether an insert ran out of time.
func (s *Store) hurried(ranOut bool) {
	if !ranOut {
		s.patience.Store(1)
		return
	}
	s.patience.Store(min(maxPatience, 2*s.patience.Load()))
}

// Newest is the largest timestamp that the table holds, whatever topic and partition it came from, in milliseconds since
// the epoch; math.MinInt64 when the table is empty. The server answers it from the borders of the parts, however many
// rows there are.
func (s *Store) Newest(ctx context.Context) (int64, error) {
	var newest int64
	var rows uint64
	err := s.conn.QueryRow(wholeContext(ctx), "SELECT toUnixTimestamp64Milli(max(timestamp)), count() FROM usage_tracking").Scan(&newest, &rows)
	if err != nil {
		return 0, fmt.Errorf("read the newest stored timestamp: %w", err)
	}
	if rows == 0 {
		return math.MinInt64, nil
	}
	return newest, nil
}
