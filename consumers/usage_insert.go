package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/kafka"
	"tenantflow/internal/retry"
	"tenantflow/sinks/clickhouse"
)

// insert puts the live rows first..last-1 of a batch, which is the range r, into the table. It returns when they are
// there, or stand among the batch's refused rows because the store refuses them.
//
// Every intent names the whole range, also where only some of its rows are sent: nothing of a batch is done before all
// of it is, its dead letters included.
func (p *usagePartition) insert(ctx context.Context, b *usageBatch, r kafka.Range, first, last int) error {
	delays := retry.New()
	refusals := 0
	for {
		rows, in, err := p.try(ctx, b, r, first, last)
		if err == nil {
			if rows > 0 {
				b.accepted, p.refused = true, 0
			}
			return nil
		}
		var failed *clickhouse.InsertError
		if !errors.As(err, &failed) {
			return err
		}
		err = p.failed(ctx, b, in, first, last, failed)
		p.usage.metrics.intents.Dec()
		if err != nil {
			return err
		}
		switch failed.Class {
		case clickhouse.Poison:
			// A lone row is not to blame for one refusal: the words may have been about something that is over.
			if refusals++; rows > 1 || refusals > 1 {
				return p.isolate(ctx, b, r, first, last, failed)
			}
			continue
		case clickhouse.Late:
			// The rows were too slow, or our idea of the server's clock is off.
			if _, err := keepTrying(ctx, p, func() (struct{}, error) { return struct{}{}, p.usage.store.SyncClock(ctx) }); err != nil {
				return err
			}
		case clickhouse.Transient, clickhouse.Fatal:
			refusals = 0
		}
		if delays.Wait(ctx) != nil {
			return failed
		}
	}
}

// failed brings an intent whose insert has failed to a known state, and drops the rows that are stored all the same.
func (p *usagePartition) failed(ctx context.Context, b *usageBatch, in *clickhouse.Intent, first, last int, failed *clickhouse.InsertError) error {
	if failed.Class == clickhouse.Fatal {
		return &kafka.FatalError{Err: failed}
	}
	p.Waiting(failed)
	p.usage.metrics.failed.Inc()
	if failed.Outcome == clickhouse.NotSent {
		return nil
	}
	p.step(StepUnknown)
	// An error in place of a verdict on the rows may be the answer to a retry of something in between, such as a
	// proxy, and the first try may still be on its way. A verdict holds for every copy of the request.
	wait := failed.Outcome == clickhouse.Unknown || failed.Class == clickhouse.Transient
	if err := p.settle(ctx, in, wait, failed); err != nil {
		return err
	}
	return p.dropStored(ctx, b, first, last)
}

// try commits an intent and inserts under it, once. It returns how many rows that were.
func (p *usagePartition) try(ctx context.Context, b *usageBatch, r kafka.Range, first, last int) (int, *clickhouse.Intent, error) {
	in := b.block.Intent(p.Topic(), p.ID(), r.From, r.To, first, last)
	if len(in.Parts) == 0 {
		return 0, in, nil
	}
	rows := b.block.LiveIn(first, last)
	release, err := p.usage.store.Acquire(ctx)
	if err != nil {
		return rows, in, err
	}
	defer release()
	in.InsertBy = p.nextDeadline()
	if err := p.Commit(ctx, in.From, in.Metadata()); err != nil {
		return rows, in, err
	}
	p.usage.metrics.intents.Inc() // until it has landed, or [usagePartition.insert] has found out
	p.step(StepIntended)
	began := time.Now()
	inserting, span := p.Tracer().Insert(ctx, rows)
	err = p.usage.store.Insert(inserting, in, b.block, first, last)
	span.End(err)
	p.usage.metrics.seconds.Observe(time.Since(began).Seconds())
	if err != nil {
		return rows, in, err
	}
	p.usage.metrics.intents.Dec()
	p.step(StepInserted)
	return rows, in, nil
}

// live are the rows first..last-1 that are not dropped.
func (b *usageBatch) live(first, last int) []int {
	var rows []int
	for i := first; i < last; i++ {
		if !b.block.Dropped(i) {
			rows = append(rows, i)
		}
	}
	return rows
}

// nextDeadline is the deadline of the next insert. Deadlines tell the inserts of a range apart, so each differs from those
// before it: it is later, or, where the clock was set back, much earlier. It is never raised far beyond the clock, or
// settling would have to wait for as long as the clock once was ahead.
func (p *usagePartition) nextDeadline() time.Time {
	next := p.usage.store.Deadline()
	if behind := p.deadline.Sub(next); behind >= 0 && behind < time.Second {
		next = p.deadline.Add(time.Millisecond)
	}
	p.deadline = next
	return next
}

// settle resolves an insert whose outcome is unknown, for as long as it takes. Why is the error it ended with, where this process
// has sent it: what readiness says first, because it is what has to be mended.
func (p *usagePartition) settle(ctx context.Context, in *clickhouse.Intent, wait bool, why error) error {
	how := clickhouse.Settling{Wait: wait, Waiting: p.Waiting}
	if why != nil {
		how.Waiting = func(reason error) { p.Waiting(fmt.Errorf("%w; %w", why, reason)) }
	}
	settled, err := keepTrying(ctx, p, func() (clickhouse.Settled, error) {
		landed, err := p.usage.store.Await(ctx, in, how)
		how.Wait = true // a settling that failed may have left a resend under way
		if err != nil {
			return clickhouse.Settled{}, err
		}
		if landed.Rows() > 0 {
			if err := p.Commit(ctx, in.From, in.Metadata()); err != nil {
				return clickhouse.Settled{}, fmt.Errorf("settle %s: %w", in.Range(), err)
			}
			p.step(StepResending)
		}
		return p.usage.store.Complete(ctx, in, landed)
	})
	if err != nil {
		return err
	}
	if last := in.Deadline(); last.After(p.deadline) {
		p.deadline = last
	}
	p.step(StepSettled)
	p.usage.metrics.settled.Inc()
	p.usage.metrics.doubled.Add(float64(settled.Doubled))
	p.Line(ctx, slog.LevelInfo, "insert of unknown outcome settled", slog.String("range", in.Range()),
		slog.Int("rows_found", settled.Rows), slog.Int("rows_doubled", settled.Doubled))
	return nil
}

type usageMetrics struct {
	stored, duplicates, redelivered, checked, settled, failed, doubled prometheus.Counter

	intents prometheus.Gauge
	seconds prometheus.Histogram
}

func newUsageMetrics(reg prometheus.Registerer) *usageMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_usage_" + name, Help: help})
	}
	m := &usageMetrics{
		stored:      counter("rows_total", "Usage rows inserted into ClickHouse."),
		duplicates:  counter("duplicates_total", "Usage events published more than once, and dropped."),
		redelivered: counter("redelivered_total", "Usage events read again although they are stored, and dropped."),
		checked:     counter("checked_total", "Usage events that were looked up because they might be stored."),
		settled:     counter("settled_total", "Inserts of unknown outcome that were settled."),
		failed:      counter("insert_failures_total", "Inserts that failed and were tried again."),
		doubled:     counter("rows_doubled_total", "Rows that landed twice because ClickHouse lost its deduplication log; deleted again."),
		intents: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tenantflow_usage_open_intents",
			Help: "Inserts that are under way, or whose outcome is being found out."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tenantflow_usage_insert_seconds",
			Help: "Time of one insert into ClickHouse, failed ones included.", Buckets: prometheus.ExponentialBuckets(0.002, 2, 16)}),
	}
	if reg != nil {
		reg.MustRegister(m.stored, m.duplicates, m.redelivered, m.checked, m.settled, m.failed, m.doubled, m.intents, m.seconds)
	}
	return m
}
