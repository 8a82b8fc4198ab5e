package consumers

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/events"
	"tenantflow/sinks/clickhouse"
)

// insert puts the live rows first..last-1 of a batch, which are those of the range r, into the table. It returns when
// they are there, or went to the dead letters because the store refuses them.
func (p *usagePartition) insert(ctx context.Context, b *usageBatch, r Range, first, last int) error {
	delays := retryDelays()
	for {
		in, err := p.try(ctx, b, r, first, last)
		if err == nil {
			return nil
		}
		var failed *clickhouse.InsertError
		if !errors.As(err, &failed) {
			return err
		}
		if failed.Class == clickhouse.Fatal {
			return &FatalError{Err: err}
		}
		p.Waiting(err)
		p.usage.metrics.failed.Inc()
		if failed.Outcome != clickhouse.NotSent {
			p.step(StepUnknown)
			if err := p.settle(ctx, in, failed.Outcome == clickhouse.Unknown); err != nil {
				return err
			}
			if err := p.dropStored(ctx, b, first, last); err != nil {
				return err
			}
		}
		switch failed.Class {
		case clickhouse.Poison:
			return p.isolate(ctx, b, r, first, last, failed)
		case clickhouse.Late:
			// The rows were too slow, or our idea of the server's clock is off.
			if _, err := retry(ctx, p, func() (struct{}, error) { return struct{}{}, p.usage.store.SyncClock(ctx) }); err != nil {
				return err
			}
		case clickhouse.Transient, clickhouse.Fatal:
		}
		if pause(ctx, delays.NextBackOff()) != nil {
			return err
		}
	}
}

// try commits an intent and inserts under it, once.
func (p *usagePartition) try(ctx context.Context, b *usageBatch, r Range, first, last int) (*clickhouse.Intent, error) {
	in := b.block.Intent(p.Topic(), p.ID(), r.From, r.To, first, last)
	if len(in.Parts) == 0 {
		return in, nil
	}
	release, err := p.usage.store.Acquire(ctx)
	if err != nil {
		return in, err
	}
	defer release()
	in.InsertBy = p.nextDeadline()
	if err := p.Commit(ctx, in.From, in.Metadata()); err != nil {
		return in, err
	}
	p.step(StepIntended)
	if err := p.usage.store.Insert(ctx, in, b.block, first, last); err != nil {
		return in, err
	}
	p.step(StepInserted)
	return in, nil
}

// nextDeadline is the deadline of the next insert. It is always later than the one before, also when the clock was
// corrected meanwhile: the deadline a row carries is what tells the inserts of a range apart.
func (p *usagePartition) nextDeadline() time.Time {
	next := p.usage.store.Deadline()
	if !next.After(p.deadline) {
		next = p.deadline.Add(time.Millisecond)
	}
	p.deadline = next
	return next
}

// settle resolves an insert whose outcome is unknown, for as long as it takes.
func (p *usagePartition) settle(ctx context.Context, in *clickhouse.Intent, wait bool) error {
	settled, err := retry(ctx, p, func() (clickhouse.Settled, error) {
		first := wait
		wait = true // a settling that failed may have left a resend under way
		return p.usage.store.Settle(ctx, in, first, func(ctx context.Context, in *clickhouse.Intent) error {
			if err := p.Commit(ctx, in.From, in.Metadata()); err != nil {
				return err
			}
			p.step(StepResending)
			return nil
		})
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
	p.Logger().InfoContext(ctx, "insert of unknown outcome settled", slog.String("range", in.Range()),
		slog.Int("rows_found", settled.Rows), slog.Int("rows_doubled", settled.Doubled))
	return nil
}

// isolate narrows down which row the store refuses, by halves. Each half is a range of its own, with its own intent.
func (p *usagePartition) isolate(ctx context.Context, b *usageBatch, r Range, first, last int, cause error) error {
	var live []int
	for i := first; i < last; i++ {
		if !b.block.Dropped(i) {
			live = append(live, i)
		}
	}
	switch len(live) {
	case 0:
		return nil
	case 1:
		rejection := events.Reject(events.RejectedByStore, "ClickHouse refuses the row: %v", cause)
		if err := p.rejectRow(ctx, b, live[0], rejection); err != nil {
			return err
		}
		return nil
	}
	half := live[len(live)/2]
	middle := b.block.Offset(half)
	if err := p.insert(ctx, b, Range{From: r.From, To: middle}, first, half); err != nil {
		return err
	}
	return p.insert(ctx, b, Range{From: middle, To: r.To}, half, last)
}

// rejectRow sends the record of a row to the dead letters and takes the row out. The record is read from the log once
// more: few rows end like this, so their bytes are not kept.
func (p *usagePartition) rejectRow(ctx context.Context, b *usageBatch, row int, rejection *events.Rejection) error {
	record, err := p.reread(ctx, b, row)
	if err != nil {
		return err
	}
	if err := p.DeadLetter(ctx, []DeadLetter{{Record: record, Rejection: rejection, Attempts: 1}}); err != nil {
		return err
	}
	b.block.Drop(row)
	return nil
}

// reread fetches the record of a row again.
func (p *usagePartition) reread(ctx context.Context, b *usageBatch, row int) (events.Record, error) {
	record, err := p.Read(ctx, b.block.Offset(row))
	if errors.Is(err, ErrNotInLog) {
		// Retention was faster. The place in the log is all that is left of the original.
		return events.Record{Topic: p.Topic(), Partition: p.ID(), Offset: b.block.Offset(row)}, nil
	}
	return record, err
}

type usageMetrics struct {
	stored, duplicates, redelivered, checked, settled, failed, doubled prometheus.Counter
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
	}
	if reg != nil {
		reg.MustRegister(m.stored, m.duplicates, m.redelivered, m.checked, m.settled, m.failed, m.doubled)
	}
	return m
}
