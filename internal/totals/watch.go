package totals

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/logs"
	"tenantflow/internal/retry"
	"tenantflow/sinks/clickhouse"
)

// A Queue is where the ranges are whose totals are to be compared: *clickhouse.Store.
type Queue interface {
	// PendingRechecks reads the entries that are not finished, the oldest first, and how many of them are due.
	PendingRechecks(ctx context.Context, topic string) (pending []clickhouse.Recheck, due int, err error)
	// FinishRecheck marks an entry as done.
	FinishRecheck(ctx context.Context, r clickhouse.Recheck) error
}

// WatchConfig is what a Watcher needs besides a Checker.
type WatchConfig struct {
	// Interval is how often the queue is looked at. Default: 5s.
	Interval time.Duration

	// Registry takes the metrics; nil: nowhere.
	Registry prometheus.Registerer
}

// A Watcher corrects the totals of inserts that had to be settled. It takes the ranges of offsets from the queue,
// compares the totals that their rows are part of, and corrects what is wrong: raising without further reason, lowering
// only by what rows add up to that stood there twice, or were sent once more. Every process of the service may run one.
type Watcher struct {
	c         *Checker
	queue     Queue
	interval  time.Duration
	log       *slog.Logger
	troubles  *logs.Troubles
	pending   prometheus.Gauge
	corrected prometheus.Counter
}

// NewWatcher makes a Watcher of a Checker, which must be open while it runs.
func NewWatcher(c *Checker, queue Queue, cfg WatchConfig) *Watcher {
	if cfg.Interval == 0 {
		cfg.Interval = 5 * time.Second
	}
	w := &Watcher{
		c: c, queue: queue, interval: cfg.Interval, log: c.log, troubles: logs.NewTroubles(c.log),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tenantflow_usage_rechecks_pending",
			Help: "Settled inserts whose totals are still to be compared with the rows, up to 1000."}),
		corrected: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_usage_totals_corrected_total",
			Help: "Totals that were not what the rows add up to, and were corrected."}),
	}
	if cfg.Registry != nil {
		cfg.Registry.MustRegister(w.pending, w.corrected)
	}
	return w
}

// Run works until ctx ends. What fails is logged and tried again.
func (w *Watcher) Run(ctx context.Context) {
	for {
		// Processes that were started together should not ask together.
		pause := w.interval/2 + time.Duration(rand.Int64N(int64(w.interval))) // #nosec G404 -- a pause
		if retry.Pause(ctx, pause) != nil {
			return
		}
		switch err := w.once(ctx); {
		case ctx.Err() != nil:
		case err != nil:
			w.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: compareFailed, Err: err})
		default:
			w.troubles.Over(ctx, compareFailed, "")
		}
	}
}

const compareFailed = "comparing the totals of settled inserts failed; it is tried again"

// once deals with the entries that are due.
func (w *Watcher) once(ctx context.Context) error {
	pending, due, err := w.queue.PendingRechecks(ctx, w.c.cfg.Topic)
	if err != nil {
		return err
	}
	w.pending.Set(float64(len(pending)))
	if due == 0 {
		return nil
	}
	positions, _, err := ReadPositions(ctx, w.c.cfg.Client, w.c.cfg.Group, w.c.cfg.Topic)
	if err != nil {
		return err
	}
	// From the committed offset on, rows may belong to an insert that is still to be settled.
	ready := slices.DeleteFunc(slices.Clone(pending[:due]), func(r clickhouse.Recheck) bool {
		return !slices.ContainsFunc(positions, func(p Position) bool { return p.Partition == r.Partition && r.To <= p.Committed })
	})
	finished := 0
	for some := range slices.Chunk(ready, MaxRanges) {
		judged, err := w.recheck(ctx, some)
		if err != nil {
			return err
		}
		for _, r := range some {
			if !judged {
				continue
			}
			if err := w.queue.FinishRecheck(ctx, r); err != nil {
				return err
			}
			finished++
		}
	}
	w.pending.Set(float64(len(pending) - finished))
	return nil
}

// recheck compares and corrects the totals that the rows of some ranges are part of. It reports whether all of them could
// be judged, and needed no correction or got it.
func (w *Watcher) recheck(ctx context.Context, ranges []clickhouse.Recheck) (all bool, err error) {
	found, _, err := w.c.touched(ctx, ranges)
	if err != nil || len(found) == 0 {
		return err == nil, err
	}
	border, err := w.c.border(ctx)
	if err != nil {
		return false, err
	}
	if err := w.c.judge(ctx, found, border); err != nil {
		return false, err
	}
	why, err := w.why(ctx, ranges, found)
	if err != nil {
		return false, err
	}
	all = true
	for _, s := range found {
		all = all && len(s.cases) == 0 && s.unlisted == 0
		why.Mark(s.wrong)
		w.report(ctx, s.wrong)
		done, err := w.c.Correct(ctx, s.wrong, why, "recheck")
		w.corrected.Add(float64(done.Added + done.Lowered))
		if err != nil {
			return false, err
		}
		all = all && done.Open == 0
	}
	return all, nil
}

// why finds out by how much the totals of some ranges may be lowered. Where rows stood there twice, by what they add up to.
// Where rows were sent once more, to complete their totals, the server may have forgotten that a view has them already:
// by exactly what the rows of one such range add up to.
func (w *Watcher) why(ctx context.Context, ranges []clickhouse.Recheck, found []*suspects) (*Lowering, error) {
	why := &Lowering{Explained: Sums{}}
	lowers := func(s *suspects) bool { return slices.ContainsFunc(s.wrong, func(t Total) bool { return t.lowers() }) }
	if !slices.ContainsFunc(found, lowers) {
		return why, nil
	}
	for _, r := range ranges {
		condition, args := Places([]clickhouse.Recheck{r})
		sums, err := w.c.SumsOf(ctx, condition, args...)
		if err != nil {
			return nil, err
		}
		if r.Reason == clickhouse.RecheckDoubled {
			why.Explained.Add(sums)
		} else {
			why.Repeated = append(why.Repeated, sums)
		}
	}
	return why, nil
}

// report logs what is wrong: a few of many.
func (w *Watcher) report(ctx context.Context, wrong []Total) {
	const samples = 10
	for i := range wrong[:min(samples, len(wrong))] {
		t := &wrong[i]
		w.log.ErrorContext(ctx, "a total is not what the rows add up to",
			slog.String("total", t.View()+" "+t.Name()), slog.String("difference", t.String()), slog.Bool("is_corrected", t.Correctable()))
	}
	if more := len(wrong) - samples; more > 0 {
		w.log.ErrorContext(ctx, "more totals of the view are not what the rows add up to", slog.String("view", wrong[0].View()), slog.Int("totals", more))
	}
}

// MaxRanges is how many ranges of offsets a query names at most.
const MaxRanges = 200

// Places is the SQL condition that a row stands in one of some ranges, with its arguments.
func Places(ranges []clickhouse.Recheck) (condition string, args []any) {
	conditions := make([]string, len(ranges))
	for i, r := range ranges {
		conditions[i] = "(_topic = ? AND _partition = ? AND _offset >= ? AND _offset < ?)"
		args = append(args, r.Topic, r.Partition, r.From, r.To)
	}
	return "(" + strings.Join(conditions, " OR ") + ")", args
}

// touched has a first look at the totals that the rows of some ranges are part of. It returns how many they are, by view.
func (c *Checker) touched(ctx context.Context, ranges []clickhouse.Recheck) (found []*suspects, looked map[string]int64, err error) {
	border, err := c.border(ctx)
	if err != nil {
		return nil, nil, err
	}
	place, args := Places(ranges)
	all, looked := aggregates(), map[string]int64{}
	for i := range all {
		chunks := []chunk{{of: &all[i]}}
		if all[i].month != "" {
			if chunks, err = c.months(ctx, &all[i], "SELECT DISTINCT toUInt32(toYYYYMM(timestamp)) AS month FROM usage_tracking WHERE "+place+
				" AND timestamp >= toDateTime64(?, 3, 'UTC')", append(slices.Clone(args), border+" 00:00:00")...); err != nil {
				return nil, nil, err
			}
		}
		for _, ch := range chunks {
			s := ch.everything(border)
			keys := ch.of.rowKeys()
			in := " IN (SELECT " + keys + " FROM usage_tracking WHERE " + place + ")"
			s.rows, s.rowArgs = s.rows+" AND ("+keys+")"+in, slices.Concat(s.rowArgs, args)
			s.store, s.storeArgs = s.store+" AND ("+ch.of.names()+")"+in, slices.Concat(s.storeArgs, args)
			suspicious, compared, err := c.firstLook(ctx, ch, s)
			if err != nil {
				return nil, nil, fmt.Errorf("look at the totals of %d ranges of offsets: %w", len(ranges), err)
			}
			looked[ch.of.view] += compared
			if suspicious != nil {
				found = append(found, suspicious)
			}
		}
	}
	return found, looked, nil
}
