package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/retry"
	"tenantflow/internal/trace"
)

// A Partition is what a handler may do with an assigned partition.
type Partition struct {
	group     *Group
	committer *committer
	topic     string
	id        int
	offset    int64
	metadata  string // the handler's own
	bounds    Range  // of the log, before the handler looked at it
	peers     int
	log       *slog.Logger
	committed time.Time // when something was committed last

	mark    Mark   // of a record that has had its effects, the last one if that is known
	writing formed // the batch that is being written
}

// Topic is the partition's topic, prefix included.
func (p *Partition) Topic() string { return p.topic }

// ID is the partition's number.
func (p *Partition) ID() int { return p.id }

// Offset is the committed position: everything before it has had its effects.
func (p *Partition) Offset() int64 { return p.offset }

// Metadata is what the handler has committed with the offset.
func (p *Partition) Metadata() string { return p.metadata }

// Peers is how many partitions this member has, this one included, among which it divides what it has once.
func (p *Partition) Peers() int { return p.peers }

// Logger names the partition in every line.
func (p *Partition) Logger() *slog.Logger { return p.log }

// Line logs what every partition may have to say at once: after the first of like lines, their number ([logs.Lines]).
func (p *Partition) Line(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	p.group.line(ctx, level, place{p.topic, p.id}, message, attrs...)
}

// Tracer records what the handler does; nil: nothing is.
func (p *Partition) Tracer() *trace.Tracer { return p.group.cfg.Tracer }

// Commit makes offset the group's position of the partition, with metadata of at most 4000 bytes, before which a [Mark] is
// put. Only the current owner can: for any other member it fails.
func (p *Partition) Commit(ctx context.Context, offset int64, metadata string) error {
	p.committed = time.Now()
	mark := p.mark
	if w := &p.writing; offset >= w.To && !w.mark.IsZero() {
		mark = w.mark
	}
	return p.committer.commit(ctx, p.topic, p.id, offset, joinMark(mark, metadata))
}

// Bounds are the offsets that the log held before the handler looked at it.
func (p *Partition) Bounds() Range { return p.bounds }

// Mark is that of the last record of the batch that is being written or, where that is not known, of one before it; zero: none is known.
func (p *Partition) Mark() Mark {
	if mark := p.writing.mark; !mark.IsZero() {
		return mark
	}
	return p.mark
}

// Client reaches the partition's brokers.
func (p *Partition) Client() *kafkago.Client { return p.group.client }

// Group is the consumer group's id.
func (p *Partition) Group() string { return p.group.cfg.Group }

// OutOfRange is what the operator wants where the log does not hold what was read, or is another one.
func (p *Partition) OutOfRange() OutOfRange { return p.group.cfg.OutOfRange }

// DeadLetter publishes records that can't be taken, and returns when they are durable.
func (p *Partition) DeadLetter(ctx context.Context, letters []DeadLetter) error {
	return p.group.letters.Publish(ctx, letters, p.Waiting)
}

// Publish publishes events, and returns when they are durable.
func (p *Partition) Publish(ctx context.Context, results []Result) error {
	return p.group.results.Publish(ctx, results, p.Waiting)
}

// Waiting says what the partition's effects wait for; nil: for nothing any more. Readiness names it. Say it at every
// try: a partition that keeps trying is not stuck, however long a store is away.
func (p *Partition) Waiting(reason error) {
	p.group.state.waiting(p.topic, p.id, writing, reason)
	p.group.state.progress()
}

// KeepTrying does something in a store until it works, for as long as ctx lasts; meanwhile readiness says what the partition
// waits for, until the next [Partition.Waiting]. What is Final is returned as it is, and where fatal reports that waiting would
// not help, as a *FatalError.
func (p *Partition) KeepTrying(ctx context.Context, fatal func(error) bool, do func() error) error {
	return retry.Do(ctx, do, func(err error) error {
		switch {
		case Final(err) || ctx.Err() != nil:
			return err
		case fatal(err):
			return &FatalError{Err: err}
		}
		p.Waiting(err)
		return nil
	})
}

// CaughtUp reports whether the handler has had everything that was in the log when it was looked at last.
func (p *Partition) CaughtUp() bool {
	return p.group.state.caughtUp(p.topic, p.id) && p.group.state.doneTo(p.topic, p.id) >= p.bounds.To
}

// ErrNotInLog says that the log does not hold an offset: not any more, or not yet.
var ErrNotInLog = errors.New("the offset is not in the log")

// Read fetches one record again. ErrNotInLog: there is none at that offset.
func (p *Partition) Read(ctx context.Context, offset int64) (events.Record, error) {
	var found *events.Record
	err := p.ReadRange(ctx, Range{From: offset, To: offset + 1}, func(r *events.Record) error {
		c := CopyRecord(r)
		found = &c
		return nil
	})
	if err != nil {
		return events.Record{}, err
	}
	if found == nil {
		return events.Record{}, fmt.Errorf("read %s/%d/%d: %w", p.topic, p.id, offset, ErrNotInLog)
	}
	return *found, nil
}

// ReadRange calls each for the records of r that the log holds, in order.
func (p *Partition) ReadRange(ctx context.Context, r Range, each func(*events.Record) error) error {
	return ReadLog(ctx, p.group.client, p.topic, p.id, r, each)
}

// ReadOffsets calls each for those records at the given offsets that the log holds, in order.
func (p *Partition) ReadOffsets(ctx context.Context, offsets []int64, each func(*events.Record) error) error {
	return readOffsets(ctx, p.group.client, p.topic, p.id, offsets, each)
}
