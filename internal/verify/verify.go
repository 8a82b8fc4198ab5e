// Package verify proves that the usage stores hold what the log says: nothing lost, nothing doubled, every total right.
//
// Three checks of usage, each of which stands alone:
//
//   - The log against the rows (log.go). Every offset that the group has committed is exactly one of: a row with that
//     place, that identity and that content; a known duplicate, whose identity is stored with the same content from
//     another place; a dead letter with its very bytes. And every row stands at the place of its own event.
//   - No event twice (double.go). No identity has two rows, whatever keys and partitions it came by. And every row that takes usage
//     back has its usage (void.go).
//   - The aggregates against the rows ([totals]). Every hourly, daily and monthly total is what the rows add up to.
//
// One of quotas (counters.go): what is counted of every user's day is what the log says.
//
// And those of companies (tenants.go): every event is in the inbox or a dead letter (inbox.go); every result is on its topic, once by its
// id (results.go); the audit log of each is a whole chain, and its books, its users and their limits are what that chain says (books.go);
// the last configuration that was published of each is the one that is stored.
//
// The service may run meanwhile: what is under way is not judged, see [Partition] and [totals.Aggregate].
//
//	v, err := verify.Open(ctx, verify.Config{...})
//	defer v.Close()
//	report, err := v.Run(ctx, false)
//	if report.Differences() > 0 { ... }
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/recent"
	"tenantflow/internal/totals"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// Config is what a Verifier needs.
type Config struct {
	// Client reaches the brokers.
	Client *kafka.Client

	// ClickHouse are the options of the connection. The protocol must be HTTP.
	ClickHouse *chgo.Options

	// Topic is the topic of usage events, with its prefix. Its dead letters are expected in <Topic>.dlq.
	Topic string

	// Group is the consumer group that writes the rows.
	Group string

	// Tenants, if set, is where companies are: their audit logs are checked as well, and ConfigTopic, with its prefix, is
	// compared with their configurations.
	Tenants     *postgres.Store
	ConfigTopic string

	// TopicPrefix, CompanyGroup and SubscriptionGroup say where company and subscription events are, who applies them, and where their
	// results are published. Without groups the events and results are not compared with the inbox.
	TopicPrefix                     string
	CompanyGroup, SubscriptionGroup string

	// Since, if set, makes a run cheap: only what came since then is looked at.
	Since time.Time

	// Counting, if set, is how usage is counted: the counters are checked as well.
	Counting *Counting

	// InsertTimeout is the service's own setting: how long an insert may take. Two looks at a total that differs lie
	// further apart than this. Default: 15s.
	InsertTimeout time.Duration

	// FutureTolerance is the service's own setting: how far the timestamp of an event may lie ahead of the broker's time.
	// Default: 1h.
	FutureTolerance time.Duration

	// Lower lets a repair lower totals that are higher than their rows also where rows may be missing.
	Lower bool

	// Approve, if set, is asked before a repair changes anything, with what it is about to do: in the first round, and in a later one that
	// is about to do something else as well. If it says no, nothing (more) is repaired.
	Approve func(Plan) (bool, error)

	// Stretch is how many offsets are compared at a time, with one query for their rows. Memory does not depend on it,
	// but ClickHouse sorts that many rows. Default: 1,000,000.
	Stretch int64

	// Letters is how many dead letters are held in memory, about 40 bytes each. When there are more, their topic is
	// read more than once. Default: 1,000,000.
	Letters int

	// Results is how many results of company and subscription events are held in memory, about 150 bytes each. When there are more, their
	// topics are read more than once. Default: 1,000,000.
	Results int

	// Progress, if set, is called now and then with how far a run is.
	Progress func(Progress)

	Logger *slog.Logger
}

// Progress is how far a run is.
type Progress struct {
	Stage       string // "log", "doubles", "aggregates", "counters", "repair"
	Done, Total int64  // offsets of the log; passes; partitions of an aggregate; totals to repair
	Differences int64  // found so far
}

// A Verifier compares the stores of one installation with its log.
type Verifier struct {
	cfg    Config
	conn   driver.Conn
	store  *clickhouse.Store
	totals *totals.Checker
	log    *slog.Logger
	begun  bool            // the counters are being recounted, because of a repair
	voids  map[string]bool // the ids of those that a repair has published again: when they are stored is not known
}

// ErrNotThere is returned when the topic or the tables do not exist. Running the migrations is what helps.
var ErrNotThere = totals.ErrNotThere

// Open connects to ClickHouse.
func Open(ctx context.Context, cfg Config) (*Verifier, error) {
	cfg.InsertTimeout = cmp.Or(cfg.InsertTimeout, clickhouse.DefaultInsertTimeout)
	cfg.FutureTolerance = cmp.Or(cfg.FutureTolerance, events.DefaultFutureTolerance)
	cfg.Stretch = cmp.Or(cfg.Stretch, 1_000_000)
	cfg.Letters = cmp.Or(cfg.Letters, 1_000_000)
	cfg.Results = cmp.Or(cfg.Results, 1_000_000)
	if cfg.Progress == nil {
		cfg.Progress = func(Progress) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Counting != nil {
		counting := *cfg.Counting
		counting.Store.Lateness = cmp.Or(counting.Store.Lateness, dragonfly.DefaultLateness)
		counting.ResendWindow = cmp.Or(counting.ResendWindow, recent.DefaultWindow)
		counting.ResendRecords = cmp.Or(counting.ResendRecords, recent.DefaultRecords)
		counting.Limits.FutureTolerance = cmp.Or(counting.Limits.FutureTolerance, events.DefaultFutureTolerance)
		cfg.Counting = &counting
	}
	options := totals.Pinned(cfg.ClickHouse)
	store, err := clickhouse.Open(ctx, clickhouse.Config{Options: options, InsertTimeout: cfg.InsertTimeout, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	conn, err := clickhouse.Connect(options)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	v := &Verifier{cfg: cfg, conn: conn, store: store, log: cfg.Logger, voids: map[string]bool{}}
	v.totals, err = totals.Open(totals.Config{
		Client: cfg.Client, ClickHouse: options, Topic: cfg.Topic, Group: cfg.Group, InsertTimeout: cfg.InsertTimeout, Logger: cfg.Logger,
		Progress: func(stage string, done, total int64) { cfg.Progress(Progress{Stage: stage, Done: done, Total: total}) },
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close(), store.Close())
	}
	if err := v.checkTables(ctx); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

func (v *Verifier) checkTables(ctx context.Context) error {
	const want = 6
	var found uint64
	err := v.conn.QueryRow(ctx, statement("tables", nil)).Scan(&found)
	if err != nil {
		return fmt.Errorf("look for the usage tables: %w", err)
	}
	if found != want {
		return fmt.Errorf("look for the usage tables: %d of %d are there: %w", found, want, ErrNotThere)
	}
	return nil
}

// Close closes the connections to ClickHouse. The Kafka client is the caller's.
func (v *Verifier) Close() error {
	return errors.Join(v.totals.Close(), v.conn.Close(), v.store.Close())
}

// Run makes all checks once. With repair it then mends what can be mended, and checks once more: the report is of the
// last check, with what was mended before it.
func (v *Verifier) Run(ctx context.Context, repair bool) (*Report, error) {
	started := time.Now()
	var repairs Repairs
	removed := totals.Sums{} // by this run
	var approved []Action
	for round := 1; ; round++ {
		report, todo, err := v.check(ctx, removed)
		if err != nil {
			return nil, err
		}
		report.Plan = todo.plan()
		// Each round mends as much as it has listed; more rounds follow while that helps.
		const rounds = 20
		if repair && round < rounds && !todo.empty() {
			if v.cfg.Approve != nil && report.Plan.adds(approved) {
				if repair, err = v.cfg.Approve(report.Plan); err != nil {
					return nil, err
				}
				approved = append(approved, report.Plan.actions()...)
			}
		}
		if repair && round < rounds && !todo.empty() {
			mended, err := v.repair(ctx, todo, removed)
			if err != nil {
				return nil, err
			}
			repairs.add(mended)
			if !mended.empty() {
				continue
			}
		}
		report.Repairs = repairs
		report.Started = started.UTC()
		report.Seconds = float64(time.Since(started).Milliseconds()) / 1000
		return report, nil
	}
}

// todo is what a check has found that can be mended.
type todo struct {
	at      *positions
	doubles []double
	totals  []totals.Total
	why     *totals.Lowering  // what may be lowered
	configs []string          // companies; not published as they are
	results []postgres.Result // not on their topics

	counters *wrongCounters
}

func (t *todo) empty() bool {
	return len(t.doubles) == 0 && len(t.totals) == 0 && len(t.configs) == 0 && len(t.results) == 0 && t.counters.empty()
}

// check makes all checks once. The rows that this run has removed explain totals that are higher than their rows.
func (v *Verifier) check(ctx context.Context, removed totals.Sums) (*Report, *todo, error) {
	report := &Report{Topic: v.cfg.Topic, Group: v.cfg.Group, Unproven: []string{}, Since: v.cfg.Since}
	v.noteSince(report)
	at, err := v.positions(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := v.checkLog(ctx, at, report); err != nil {
		return nil, nil, err
	}
	doubles, err := v.findDoubles(ctx, at, report)
	if err != nil {
		return nil, nil, err
	}
	if err := v.checkVoids(ctx, at, report); err != nil {
		return nil, nil, err
	}
	compared, err := v.compareTotals(ctx, at)
	if err != nil {
		return nil, nil, err
	}
	report.Aggregates = compared.Aggregates
	todo := &todo{at: at, doubles: doubles}
	if todo.why, err = v.lowering(ctx, at, report, removed); err != nil {
		return nil, nil, err
	}
	todo.why.Mark(compared.Wrong)
	for i := range compared.Wrong {
		t := &compared.Wrong[i]
		report.Findings.add(Finding{Kind: WrongTotal, Where: t.View() + " " + t.Name(), Detail: t.String()})
		if t.Correctable() {
			todo.totals = append(todo.totals, *t)
		}
	}
	for _, a := range compared.Aggregates {
		report.Findings.raise(WrongTotal, a.Different-compared.Listed(a.View))
	}
	if todo.counters, err = v.checkCounters(ctx, report); err != nil {
		return nil, nil, err
	}
	if err := v.checkTenants(ctx, report, todo); err != nil {
		return nil, nil, err
	}
	report.Findings = report.Findings.Sorted()
	return report, todo, nil
}

// CompareAggregates makes the third check alone: are all totals what the rows add up to? The sum of Different is the
// drift. It waits longer than the insert timeout if, and only if, something seems to differ.
func (v *Verifier) CompareAggregates(ctx context.Context) ([]totals.Aggregate, error) {
	compared, err := v.totals.Compare(ctx)
	if err != nil {
		return nil, err
	}
	return compared.Aggregates, nil
}
