package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/fetch"
)

// A Partition is what a handler may do with an assigned partition.
type Partition struct {
	group     *Group
	committer *committer
	topic     string
	id        int
	offset    int64
	metadata  string
	bounds    Range // of the log, before the handler looked at it
	peers     int
	log       *slog.Logger
}

// Topic is the partition's topic, prefix included.
func (p *Partition) Topic() string { return p.topic }

// ID is the partition's number.
func (p *Partition) ID() int { return p.id }

// Offset is the committed position: everything before it has had its effects.
func (p *Partition) Offset() int64 { return p.offset }

// Metadata is what was committed with the offset.
func (p *Partition) Metadata() string { return p.metadata }

// Peers is how many partitions this member has, this one included, among which it divides what it has once.
func (p *Partition) Peers() int { return p.peers }

// Logger names the partition in every line.
func (p *Partition) Logger() *slog.Logger { return p.log }

// Commit makes offset the group's position of the partition, with metadata of at most 4096 bytes. Only the current
// owner can: for anybody else it fails.
func (p *Partition) Commit(ctx context.Context, offset int64, metadata string) error {
	return p.committer.commit(ctx, p.topic, p.id, offset, metadata)
}

// DeadLetter publishes records that can't be taken, and returns when they are durable.
func (p *Partition) DeadLetter(ctx context.Context, letters []DeadLetter) error {
	return p.group.letters.Publish(ctx, letters, p.Waiting)
}

// Waiting says what the partition's effects wait for; nil: for nothing any more. Readiness names it. Say it at every
// try: a partition that keeps trying is not stuck, however long a store is away.
func (p *Partition) Waiting(reason error) {
	p.group.state.waiting(p.topic, p.id, writing, reason)
	p.group.state.progress()
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
}

// run works on the partition until soft is done, and then finishes what is under way for as long as hard allows.
func (p *Partition) run(soft, hard context.Context) error {
	opened, err := p.group.handler.Open(soft, p)
	if err != nil {
		return err
	}
	s := &session{Partition: p, handler: opened, batches: make(chan formed), done: p.offset}
	p.group.state.opened(p.topic, p.id, p.offset)
	p.Waiting(nil)
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

// A reader forms the batches of a session.
type reader struct {
	*session
	fetcher *fetch.Reader
	next    int64 // the offset to read next
	current formed
	began   time.Time // when the first record of the current batch came
	end     int64     // of the log, as far as it is known

	// reserved is the part of the budget that the current batch was given ahead, see reserve, and upTo the offset it
	// was given it for; 0: nothing was.
	reserved, upTo int64
	rowBytes       int64 // what a row takes, by the last batch
}

// read fetches, forms batches and hands them over. A batch is handed over when it is full; when the interval since its
// first record has passed and the writer is free; and when the budget is used up, because then somebody has to give
// back before anybody can go on.
func (s *session) read(ctx context.Context) error {
	r := &reader{session: s, fetcher: fetch.New(s.group.client, s.topic, s.id), next: s.offset, end: s.bounds.To, rowBytes: 160}
	r.begin()
	defer func() {
		r.fetcher.Close()
		s.handler.End(r.current.batch)
		s.group.budget.release(r.current.claim)
	}()
	delays := retryDelays()
	for {
		err := r.step(ctx)
		var refused *fetchError
		switch {
		case ctx.Err() != nil:
			return nil // told to stop, or the writer has failed and says why
		case err == nil:
			delays.Reset()
			s.group.state.waiting(s.topic, s.id, reading, nil)
		case errors.As(err, &refused):
			if err := r.refused(ctx, refused); err != nil {
				return err
			}
			_ = pause(ctx, delays.NextBackOff()) // ctx is looked at above
		default:
			return err
		}
	}
}

func (r *reader) begin() {
	r.current = formed{batch: r.handler.Begin(), Range: Range{From: r.next, To: r.next}}
	r.reserved = 0
}

func (r *reader) empty() bool { return r.current.To == r.current.From }

// fetchError is an error of a fetch, as against one of handing over what it brought.
type fetchError struct{ err error }

func (e *fetchError) Error() string { return e.err.Error() }

func (e *fetchError) Unwrap() error { return e.err }

// step makes one fetch and takes in what it brought.
func (r *reader) step(ctx context.Context) error {
	g := r.group
	claimed := int64(0)
	if r.empty() && r.reserved == 0 {
		if err := r.reserve(ctx); err != nil {
			return err
		}
	}
	if r.current.claim-r.current.batch.Bytes() < fetch.MaxBytes {
		if !g.budget.tryAcquire(fetch.MaxBytes) {
			if err := r.hand(ctx); err != nil {
				return err
			}
			if err := g.budget.acquire(ctx, fetch.MaxBytes); err != nil {
				return err
			}
		}
		claimed = fetch.MaxBytes
	}
	// full hands the batch over in the midst of a fetch, with its share of the budget, and claims anew for the rest.
	full := func() error {
		r.settleClaim(claimed)
		claimed = 0
		if err := r.hand(ctx); err != nil {
			return err
		}
		if err := r.reserve(ctx); err != nil || r.reserved > 0 {
			return err
		}
		if err := g.budget.acquire(ctx, fetch.MaxBytes); err != nil {
			return err
		}
		claimed = fetch.MaxBytes
		return nil
	}
	var handErr error
	got, err := r.fetcher.Fetch(ctx, r.next, r.wait(), func(rec *events.Record) error {
		if r.empty() {
			r.began = time.Now()
		}
		r.current.batch.Add(rec)
		r.next = rec.Offset + 1
		r.current.To = r.next
		switch {
		case r.current.batch.Rows() >= g.cfg.BatchRows:
			handErr = full()
		case r.current.batch.Bytes() > r.current.claim+claimed: // compressed records turn out large
			if g.budget.tryAcquire(fetch.MaxBytes) {
				r.current.claim += fetch.MaxBytes
			} else {
				handErr = full()
			}
		}
		return handErr
	})
	if handErr != nil || err != nil {
		g.budget.release(claimed)
		if handErr != nil {
			return handErr
		}
		r.unreserve() // others may reach their leaders
		return &fetchError{err}
	}
	if r.next < got.Next { // over control records and aborted transactions
		r.next = got.Next
		r.current.To = got.Next
	}
	g.state.ends(r.topic, r.id, got.HighWatermark)
	r.end = got.HighWatermark
	if r.settleClaim(claimed) {
		return r.hand(ctx)
	}
	if r.behind() <= 0 || got.Records == 0 { // at the end, or where an open transaction holds back what follows
		r.unreserve()
	}
	if r.due() {
		r.offer()
	}
	return nil
}

// due says whether the current batch need not grow any further before it is handed over. In a backlog it takes what was
// there when it was begun, until it is full, however long that takes. At the end of the log a batch that is large already
// gains little by waiting.
func (r *reader) due() bool {
	const large = 8 // a batch is, from this part of a full one on
	switch {
	case r.empty():
		return false
	case r.reserved > 0 && r.next < r.upTo:
		return false
	case r.behind() <= 0 && r.current.batch.Rows() >= max(1, r.group.cfg.BatchRows/large):
		return true
	}
	return time.Since(r.began) >= r.group.cfg.BatchInterval
}

// behind is how many offsets of the log are still to be read.
func (r *reader) behind() int64 { return r.end - r.next }

// reserve claims room for what a batch could hold now, before an empty one is begun in a backlog, and waits for it.
// Without that, all partitions would fill their batches at once, use the budget up when none is full, and hand over many
// small ones, which cost ClickHouse more. So they take turns. Where a batch would be small, it does nothing.
func (r *reader) reserve(ctx context.Context) error {
	g := r.group
	rows := min(int64(g.cfg.BatchRows), r.behind())
	want := min(rows*r.rowBytes+fetch.MaxBytes, g.budget.size/4)
	if want < 4*fetch.MaxBytes {
		return nil
	}
	if err := g.budget.acquire(ctx, want); err != nil {
		return err
	}
	r.reserved, r.upTo = want, r.next+rows
	r.current.claim += want
	return nil
}

// unreserve gives back what the current batch was given ahead and does not use.
func (r *reader) unreserve() {
	if rows := r.current.batch.Rows(); rows > 0 {
		r.rowBytes = max(1, r.current.batch.Bytes()/int64(rows))
	}
	r.reserved = 0
	r.settleClaim(0)
}

// wait is how long a fetch may wait for records: until the current batch is due, and if that is over, because the
// writer is busy, for a moment.
func (r *reader) wait() time.Duration {
	const longest, moment = 500 * time.Millisecond, 20 * time.Millisecond
	if r.empty() {
		return longest
	}
	left := r.group.cfg.BatchInterval - time.Since(r.began)
	if left <= 0 {
		return moment
	}
	return max(time.Millisecond, min(longest, left))
}

// settleClaim turns the claim of a fetch that has been taken in into a claim of what the batch holds. It reports
// whether the budget has no room for that, as when compressed records turn out large: then the batch must go.
func (r *reader) settleClaim(fetched int64) (over bool) {
	budget := r.group.budget
	held, have := r.current.batch.Bytes(), r.current.claim+fetched
	keep := max(held, r.reserved)
	switch {
	case have >= keep:
		budget.release(have - keep)
		have = keep
	case have >= held:
	case budget.tryAcquire(held - have):
		have = held
	default:
		over = true
	}
	r.current.claim = have
	return over
}

// hand waits for the writer to take the current batch. An empty one stays.
func (r *reader) hand(ctx context.Context) error {
	if r.empty() {
		return nil
	}
	r.group.state.read(r.topic, r.id, r.next) // the fetch that tells the end of the log may not be over yet
	r.unreserve()
	r.current.batch.Close()
	select {
	case r.batches <- r.current:
		r.begin()
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// offer hands the current batch over if the writer is free. If not, it goes on growing.
func (r *reader) offer() {
	r.unreserve()
	r.current.batch.Close()
	select {
	case r.batches <- r.current:
		r.begin()
	default:
	}
}

// refused decides about an error of a fetch. The errors it returns end the session.
func (r *reader) refused(ctx context.Context, refused *fetchError) error {
	switch {
	case errors.Is(refused.err, kafka.OffsetOutOfRange):
		log, err := Bounds(ctx, r.group.client, r.topic, r.id)
		if err != nil || log.holds(r.next) {
			// An old leader's answer; or the log was made anew and has grown since. The session ends, so that the
			// handler compares what it holds with what it knows.
			return errors.Join(refused.err, err)
		}
		// What was read before the gap still counts.
		if err := r.hand(ctx); err != nil {
			return err
		}
		return r.outOfRange(ctx, r.next, log)
	case missing(refused.err):
		// The topic is away, and may come back as another one, with other events at the same offsets. The session
		// ends, so that the handler compares what the log holds with what it knows before anything is read again.
		return refused.err
	case !kafkaTransient(refused.err):
		return fatal("consume %s/%d: %w", r.topic, r.id, refused.err)
	}
	r.group.state.waiting(r.topic, r.id, reading, refused.err)
	return nil
}

// holds tells whether reading may go on at an offset: it is in the log, or the next to come.
func (r Range) holds(offset int64) bool { return offset >= r.From && offset <= r.To }

// outOfRange is where the log no longer holds what was not read yet, or holds less than was read. Going on would skip
// events, or read those of another log, so it takes the operator's word. The error ends the session and says what to do.
func (s *session) outOfRange(ctx context.Context, next int64, log Range) error {
	s.group.metrics.outOfRange.WithLabelValues(s.topic).Inc()
	what := fmt.Sprintf("offset %d of %s/%d is not in the log, which holds %s", next, s.topic, s.id, log)
	switch s.group.cfg.OutOfRange {
	case OutOfRangeEarliest:
		s.log.ErrorContext(ctx, "going on at the earliest offset, as configured", slog.String("reason", what), slog.Int64("skipped", max(0, log.From-next)))
		return &movedError{to: log.From}
	case OutOfRangeLatest:
		s.log.ErrorContext(ctx, "going on at the latest offset, as configured", slog.String("reason", what), slog.Int64("skipped", max(0, log.To-next)))
		return &movedError{to: log.To}
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
	commit := func() error {
		if s.done == committed && s.metadata == "" {
			return nil
		}
		if err := s.Commit(hard, s.done, ""); err != nil {
			return err
		}
		committed, s.metadata = s.done, ""
		return nil
	}
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
		case <-idle.C:
			// In steady state "done" rides with the next intent. Nothing came, so it goes alone.
			if err := commit(); err != nil {
				return err
			}
		}
	}
}

func (s *session) writeOne(hard context.Context, b formed) error {
	defer s.group.budget.release(b.claim)
	defer s.handler.End(b.batch)
	if b.From < s.done {
		return fmt.Errorf("write %s/%d %s: the batch begins before %d, which is done", s.topic, s.id, b.Range, s.done)
	}
	began := time.Now()
	if err := s.handler.Write(hard, b.batch, b.Range); err != nil {
		return err
	}
	s.done = b.To
	s.group.state.wrote(s.topic, s.id, s.done)
	s.Waiting(nil)
	s.group.state.progress()
	s.group.metrics.batch(s.topic, b.batch.Rows(), time.Since(began))
	return nil
}
