package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/fetch"
	"tenantflow/internal/retry"
)

// A reader forms the batches of a session.
type reader struct {
	*session
	fetcher *fetch.Reader
	next    int64 // the offset to read next
	current formed
	began   time.Time // when the first record of the current batch came
	last    Mark      // the newest known of a record that was read
	end     int64     // of what can be read of the log, as far as it is known

	// reserved is the part of the budget that the current batch was given ahead, see reserve, and upTo the offset it
	// was given it for; 0: nothing was.
	reserved, upTo int64
	rowBytes       int64 // what a row takes, by the last batch

	claimed int64 // of the budget, for the fetch under way, beside the current batch's claim
}

// read fetches, forms batches and hands them over. A batch is handed over when it is full; when the interval since its
// first record has passed and the writer is free; and when the budget is used up, because then some partition has to
// give back before any can go on.
func (s *session) read(ctx context.Context) error {
	r := &reader{session: s, fetcher: fetch.New(s.group.client, s.topic, s.id), next: s.offset, end: s.bounds.To, rowBytes: 160, last: s.mark}
	r.fetcher.Expect(r.last)
	r.begin()
	defer func() {
		s.group.read.set(place{s.topic, s.id}, r.last)
		r.fetcher.Close()
		r.current.batch.Release()
		s.group.budget.release(r.current.claim)
	}()
	delays := retry.New()
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
			r.sit(ctx, delays.Next())
		default:
			return err
		}
	}
}

// sit waits for d between two fetches that fail. What was read before them is handed over when it is due.
func (r *reader) sit(ctx context.Context, d time.Duration) {
	over := time.NewTimer(d)
	defer over.Stop()
	for {
		var batches chan<- formed
		var due <-chan time.Time
		switch {
		case r.empty():
		case r.due():
			r.finish()
			batches = r.batches
		default:
			due = time.After(r.group.cfg.BatchInterval - time.Since(r.began))
		}
		select {
		case batches <- r.current:
			r.begin()
		case <-due:
		case <-over.C:
			return
		case <-ctx.Done(): // which the caller looks at
			return
		}
	}
}

func (r *reader) begin() {
	r.current = formed{batch: r.handler.Begin(), Range: Range{From: r.next, To: r.next}, links: r.group.cfg.Tracer.NewLinks()}
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
	if r.empty() && r.reserved == 0 {
		if err := r.reserve(ctx); err != nil {
			return err
		}
	}
	if r.current.claim-r.current.batch.Bytes() < fetch.MaxBytes {
		if g.budget.tryAcquire(fetch.MaxBytes) {
			r.claimed = fetch.MaxBytes
		} else if err := r.yield(ctx, fetch.MaxBytes, nil); err != nil {
			return err
		}
	}
	var handErr error
	r.fetcher.MinBytes = 0
	if !r.empty() && r.behind() <= 0 {
		// The batch is due at its time, so until then what comes need not be fetched piece by piece.
		r.fetcher.MinBytes = fetch.MaxBytes / 2
	}
	r.fetcher.Claim = func(n int64) (func(), error) {
		var release func()
		release, handErr = r.claimInflating(ctx, n)
		return release, handErr
	}
	got, err := r.fetcher.Fetch(ctx, r.next, r.wait(), func(rec *events.Record) error {
		handErr = r.take(ctx, rec)
		return handErr
	})
	claimed := r.claimed
	r.claimed = 0
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
	if got.Records > 0 {
		r.last = got.Last
	}
	g.state.ends(r.topic, r.id, r.next, got.HighWatermark, got.LastStable)
	r.end = got.LastStable
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

// take adds a record to the current batch, and hands the batch over in the midst of a fetch when it is full or there is no
// room for more.
func (r *reader) take(ctx context.Context, rec *events.Record) error {
	const much = 64 << 10 // of which a batch may hold all, as of a dead letter
	if n := int64(r.fetcher.RecordBytes); n > much {
		if err := r.makeRoom(ctx, n); err != nil {
			return err
		}
	}
	if r.empty() {
		r.began = time.Now()
	}
	if !r.current.taken {
		r.current.taken, r.current.first = true, rec.Time
		r.group.state.took(r.current.From, rec)
	}
	r.current.last = rec.Time
	r.current.batch.Add(rec)
	r.current.links.Add(rec)
	r.next = rec.Offset + 1
	r.current.To = r.next
	over := r.current.batch.Bytes() - r.current.claim - r.claimed
	switch {
	case r.current.batch.Rows() >= r.group.cfg.BatchRows:
	case over <= 0:
		return nil
	default: // compressed records turn out large
		over = max(over, fetch.MaxBytes)
		if r.group.budget.tryAcquire(over) {
			r.current.claim += r.group.budget.clamp(over)
			return nil
		}
	}
	r.last = fetch.MarkOf(rec)
	return r.full(ctx)
}

// full hands the batch over in the midst of a fetch, with its share of the budget, and claims again for the rest.
func (r *reader) full(ctx context.Context) error {
	r.settleClaim(r.claimed)
	r.claimed = 0
	if err := r.hand(ctx); err != nil {
		return err
	}
	if err := r.reserve(ctx); err != nil || r.reserved > 0 {
		return err
	}
	if err := r.group.budget.acquire(ctx, fetch.MaxBytes); err != nil {
		return err
	}
	r.claimed = fetch.MaxBytes
	return nil
}

// makeRoom makes sure, before a record of n bytes is added, that the batch has claimed as much.
func (r *reader) makeRoom(ctx context.Context, n int64) error {
	short := r.current.batch.Bytes() + n - r.current.claim - r.claimed
	if short <= 0 {
		return nil
	}
	if r.group.budget.tryAcquire(short) {
		r.current.claim += r.group.budget.clamp(short)
		return nil
	}
	return r.yield(ctx, max(n, fetch.MaxBytes), nil)
}

// yield hands the batch over, gives back all that is claimed, waits for something else, if that is not nil, and claims n
// bytes for what is read next: a reader that waits holds nothing that others may wait for.
func (r *reader) yield(ctx context.Context, n int64, wait func() error) error {
	r.settleClaim(r.claimed)
	r.claimed = 0
	if err := r.hand(ctx); err != nil {
		return err
	}
	r.unreserve()
	if wait != nil {
		if err := wait(); err != nil {
			return err
		}
	}
	if err := r.group.budget.acquire(ctx, n); err != nil {
		return err
	}
	r.claimed = r.group.budget.clamp(n)
	return nil
}

// claimInflating claims memory to decompress a batch.
func (r *reader) claimInflating(ctx context.Context, n int64) (release func(), err error) {
	b := r.group.budget
	n = min(n, b.inflatingSize)
	release = func() { b.inflating.Release(n) }
	if b.inflating.TryAcquire(n) {
		return release, nil
	}
	acquired := false
	if err := r.yield(ctx, fetch.MaxBytes, func() error {
		err := b.inflating.Acquire(ctx, n)
		acquired = err == nil
		return err
	}); err != nil {
		if acquired {
			release()
		}
		return nil, err
	}
	return release, nil
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

// behind is how many offsets of the log are still to be read, of those that can be.
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

// finish makes the current batch ready to be handed over. More may be added all the same.
func (r *reader) finish() {
	r.unreserve()
	r.current.batch.Close()
	r.current.mark = r.last
}

// hand waits for the writer to take the current batch. An empty one stays.
func (r *reader) hand(ctx context.Context) error {
	if r.empty() {
		return nil
	}
	r.group.state.read(r.topic, r.id, r.next) // the fetch that tells the end of the log may not be over yet
	r.finish()
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
	r.finish()
	select {
	case r.batches <- r.current:
		r.begin()
	default:
	}
}

// refused decides about an error of a fetch. The errors it returns end the session.
func (r *reader) refused(ctx context.Context, refused *fetchError) error {
	var changed *fetch.ChangedError
	switch {
	case errors.As(refused.err, &changed):
		// What was read before still counts.
		if err := r.hand(ctx); err != nil {
			return err
		}
		return r.Recreated(fmt.Sprintf("%s/%d holds another record at offset %d than the one that was read there", r.topic, r.id, changed.Offset))
	case errors.Is(refused.err, kafkago.OffsetOutOfRange):
		log, err := Bounds(ctx, r.group.client, r.topic, r.id)
		if err != nil || log.holds(r.next) {
			// An old leader's answer; or the log was recreated and has grown since. The session ends, so that the
			// handler compares what it holds with what it knows.
			return errors.Join(refused.err, err)
		}
		// What was read before the gap still counts.
		if err := r.hand(ctx); err != nil {
			return err
		}
		if r.group.cfg.OutOfRange == OutOfRangeStop && !r.last.IsZero() && log.To <= r.last.Offset {
			return r.Recreated(fmt.Sprintf("%s/%d was read up to offset %d and its log ends at %d", r.topic, r.id, r.last.Offset, log.To))
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
