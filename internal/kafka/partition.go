package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
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

// session is one partition at work, from its assignment to the end of the generation.
type session struct {
	*Partition
	handler BatchPartition
	batches chan formed // from the reader to the writer; unbuffered: one is written, one is formed
	done    int64       // everything before it has had its effects (the writer's)
}

// formed is a batch on its way to the writer, with what it holds of the budget.
type formed struct {
	batch Batch
	Range
	claim int64
	mark  Mark // of its last record, or of one before that
}

// run works on the partition until soft is done, and then finishes what is under way for as long as hard allows.
func (p *Partition) run(soft, hard context.Context) error {
	opened, err := p.group.handler.Open(soft, p)
	if err != nil {
		return err
	}
	if c, ok := opened.(Closer); ok {
		defer c.Close(hard)
	}
	s := &session{Partition: p, handler: opened, batches: make(chan formed), done: p.offset}
	p.group.state.opened(p.topic, p.id, p.offset)
	p.Waiting(nil)
	if err := p.checkEnd(soft); err != nil {
		return err
	}
	if !p.bounds.holds(p.offset) {
		return s.outOfRange(soft, p.offset, p.bounds)
	}

	// The reader ends first, because soft is done or because the writer failed; the writer then finishes.
	readerCtx, stopReader := context.WithCancelCause(soft)
	defer stopReader(nil)
	wrote := make(chan error, 1)
	go func() {
		err := s.write(hard)
		stopReader(errors.New("the writer has ended"))
		wrote <- err
	}()
	readErr := s.read(readerCtx)
	close(s.batches)
	writeErr := <-wrote
	if writeErr != nil {
		return writeErr
	}
	if readErr != nil && soft.Err() == nil {
		return readErr
	}
	return nil
}

// holds reports whether reading may go on at an offset: it is in the log, or the next to come.
func (r Range) holds(offset int64) bool { return offset >= r.From && offset <= r.To }

// outOfRange is where the log no longer holds what was not read yet, or holds less than was read. Going on would skip
// events, or read those of another log, so it takes the operator's word. The error ends the session and says what to do.
func (s *session) outOfRange(ctx context.Context, next int64, log Range) error {
	s.group.metrics.outOfRange.WithLabelValues(s.topic).Inc()
	what := fmt.Sprintf("offset %d of %s/%d is not in the log, which holds %s", next, s.topic, s.id, log)
	switch s.group.cfg.OutOfRange {
	case OutOfRangeEarliest:
		s.log.ErrorContext(ctx, "going on at the earliest offset, as configured", slog.String("reason", what), slog.Int64("skipped", max(0, log.From-next)))
		return &MovedError{To: log.From, Cut: true}
	case OutOfRangeLatest:
		s.log.ErrorContext(ctx, "going on at the latest offset, as configured", slog.String("reason", what), slog.Int64("skipped", max(0, log.To-next)))
		return &MovedError{To: log.To, Cut: true}
	case OutOfRangeStop:
	}
	return &StopError{Kind: "offset_out_of_range", Err: fmt.Errorf("%s: it was truncated or recreated, and events may be lost. "+
		"The partition is stopped. Restore the events by replay, then set TENANTFLOW_OFFSET_OUT_OF_RANGE=earliest (or latest) "+
		"for one start, or set the group's offset with Kafka's own tool while the service is down", what)}
}

// write takes batches until there are no more, and commits what is done when it is idle.
func (s *session) write(hard context.Context) error {
	committed := s.offset
	idle := time.NewTimer(s.group.cfg.CommitIdle) // for what an earlier owner left pending and Open has settled
	defer idle.Stop()
	annotator, _ := s.handler.(Annotator)
	commit := func() error {
		note := ""
		if annotator != nil {
			note = annotator.Annotation()
		}
		if s.done == committed && s.metadata == note {
			return nil
		}
		if err := s.Commit(hard, s.done, note); err != nil {
			return err
		}
		committed, s.metadata = s.done, note
		return nil
	}
	watch, watched := time.NewTicker(idleWatch), time.Now()
	defer watch.Stop()
	idler, _ := s.handler.(Idler)
	for {
		select {
		case b, more := <-s.batches:
			if !more {
				return commit()
			}
			if err := s.writeOne(hard, b); err != nil {
				return err
			}
			idle.Reset(s.group.cfg.CommitIdle)
			watched = time.Now()
			if s.committed.IsZero() {
				s.committed = watched
			}
			if watched.Sub(s.committed) >= commitLatest {
				if err := commit(); err != nil {
					return err
				}
			}
		case <-idle.C:
			// In steady state "done" rides with the next intent. Nothing came, so it goes alone.
			if err := commit(); err != nil {
				return err
			}
		case <-watch.C:
			if idler == nil || time.Since(watched) < idleWatch/2 {
				continue
			}
			if err := idler.Idle(hard); err != nil {
				return err
			}
		}
	}
}

// How often an idle partition's handler is asked to look after itself, and after how long what is done is committed
// where neither the handler nor a pause has done so.
const (
	idleWatch    = time.Second
	commitLatest = time.Second
)

func (s *session) writeOne(hard context.Context, b formed) error {
	defer s.group.budget.release(b.claim)
	defer s.handler.End(b.batch)
	if b.From < s.done {
		return fmt.Errorf("write %s/%d %s: the batch begins before %d, which is done", s.topic, s.id, b.Range, s.done)
	}
	began := time.Now()
	s.writing = b
	if err := s.handler.Write(hard, b.batch, b.Range); err != nil {
		return err
	}
	s.done = b.To
	if !b.mark.IsZero() {
		s.mark = b.mark
	}
	s.writing = formed{}
	s.group.state.wrote(s.topic, s.id, s.done)
	s.Waiting(nil)
	s.group.state.progress()
	s.group.metrics.batch(s.topic, b.batch.Rows(), time.Since(began))
	return nil
}
