package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"tenantflow/events"
	"tenantflow/internal/task"
)

// A work is one owner's work on a replay. It implements task.Work.
type work struct {
	kind      *Kind
	lease     *task.Lease
	spec      Spec
	judge     judge
	source    Source
	publisher *Publisher

	size int      // records that are decided about next
	most int      // events published in a chunk
	left *decided // of the last ones; nil: nothing

	guard    *Guard
	withheld tally // by the guard, of the chunk
}

// heldBytes bounds what a chunk keeps in memory, and sendBytes the messages that are handed to the publisher at once.
const (
	heldBytes = 64 << 20
	sendBytes = 4 << 20
)

// errFull ends the reading of a chunk.
var errFull = errors.New("the chunk is full")

// sending is what a chunk publishes: the records of some places. It is the column pending.
type sending struct {
	Partition int        `json:"partition"`
	Places    [][2]int64 `json:"places"` // ranges of offsets [from, to)
	// Marks are markBytes of the identity of each record, one behind the other: a topic that is created again has other records at the places.
	Marks []byte `json:"marks"`
}

// markBytes are enough: of another log's records one in four thousand million has the same.
const markBytes = 4

// at reads the task's position.
func (w *work) at() (position, error) {
	var p position
	if err := json.Unmarshal(w.lease.Task.Position, &p); err != nil {
		return p, task.Fatalf("read the position of task %s: %w", w.lease.Task.ID, err)
	}
	for i := len(p.At); i < len(w.spec.Ranges); i++ {
		p.At = append(p.At, w.spec.Ranges[i].From)
	}
	return p, nil
}

// Progress implements task.Work: in offsets.
func (w *work) Progress() (done, total int64) {
	p, err := w.at()
	if err != nil {
		return 0, -1
	}
	for i, r := range w.spec.Ranges {
		done += p.At[i] - r.From
		total += r.Len()
	}
	return done, total
}

// next chooses the range to go on with: the one of which the smallest share is read, so that all partitions get their events at the same pace.
func (w *work) next(p position) int {
	best, share := -1, 1.0
	for i, r := range w.spec.Ranges {
		if s := float64(p.At[i]-r.From) / float64(max(1, r.Len())); p.At[i] < r.To && s < share {
			best, share = i, s
		}
	}
	return best
}

// decided are the verdicts on some records, of which a chunk publishes a part. Looking many up at a time costs little more than looking
// up some of them, and a chunk is what a stop waits for, and what is published again after a crash.
type decided struct {
	at       int // of the ranges
	from, to int64
	verdicts []verdict // those from next on are about the records from from to to
	next     int
	gone     int64 // offsets that retention has deleted, in place of verdicts
}

// ahead returns verdicts on the next records: what is left of the last ones, if the task stands where they go on, or others.
func (w *work) ahead(ctx context.Context, p position) (*decided, error) {
	if d := w.left; d != nil && p.At[d.at] == d.from && d.from < d.to {
		return d, nil
	}
	w.left = nil
	i := w.next(p)
	if i < 0 {
		return nil, nil //nolint:nilnil // nothing is left
	}
	r := w.spec.Ranges[i]
	d := &decided{at: i, from: p.At[i]}
	var err error
	if d.to, d.verdicts, d.gone, err = read(ctx, w.source, w.judge, Range{r.Partition, d.from, r.To}, w.size); err != nil {
		return nil, err
	}
	w.size, w.left = min(w.kind.cfg.ChunkRecords, 2*w.size), d
	return d, nil
}

// Decide implements task.Work.
func (w *work) Decide(ctx context.Context) (*task.Chunk, error) {
	p, err := w.at()
	if err != nil {
		return nil, err
	}
	d, err := w.ahead(ctx, p)
	if d == nil || err != nil {
		return nil, err
	}
	counted := tally{Failed: d.gone}
	s := sending{Partition: w.spec.Ranges[d.at].Partition}
	c := &task.Chunk{}
	var published []int
	for d.from = d.to; d.next < len(d.verdicts); d.next++ {
		v := d.verdicts[d.next]
		if v.outcome == Published {
			if len(published) == w.most {
				d.from = v.offset // the rest is for the next chunk
				break
			}
			published = append(published, d.next)
			identity := task.Identity(v.event.Source, v.event.ID)
			s.add(v.offset, identity)
			c.Identities = append(c.Identities, identity)
		}
		counted[v.outcome]++
	}
	c.Counts = counted.counts()
	p.At[d.at] = d.from
	if c.Position, err = json.Marshal(p); err != nil {
		return nil, task.Fatalf("write the position: %w", err)
	}
	if len(published) == 0 {
		return c, nil
	}
	still, err := w.judge.stillCounted(ctx, published)
	if err != nil {
		return nil, err
	}
	if still > 0 {
		c.Counts[StillCounted] = still
	}
	if c.Publish, err = json.Marshal(s); err != nil {
		return nil, task.Fatalf("write what is to be published: %w", err)
	}
	return c, nil
}

// add puts an offset behind the others, with the identity of its record.
func (s *sending) add(offset int64, identity []byte) {
	s.Marks = append(s.Marks, identity[:markBytes]...)
	if n := len(s.Places); n > 0 && s.Places[n-1][1] == offset {
		s.Places[n-1][1] = offset + 1
		return
	}
	s.Places = append(s.Places, [2]int64{offset, offset + 1})
}

// read takes up to size records of a range and has them judged. to is the offset behind them. Where the range begins with records that
// retention has deleted, gone says how many offsets they had, and nothing else is read.
func read(ctx context.Context, source Source, j judge, r Range, size int) (to int64, verdicts []verdict, gone int64, err error) {
	j.reset(r.Partition)
	to = r.To
	n := 0
	err = source.Read(ctx, r, func(rec *events.Record) error {
		if n == size || j.held() > heldBytes {
			to = rec.Offset
			return errFull
		}
		j.add(rec)
		n++
		return nil
	})
	var cut *GoneError
	switch {
	case errors.As(err, &cut) && n > 0:
		to = cut.From
	case errors.As(err, &cut):
		return cut.To, nil, cut.To - cut.From, nil
	case err != nil && !errors.Is(err, errFull):
		return 0, nil, 0, err
	}
	verdicts, err = j.decide(ctx)
	return to, verdicts, 0, err
}

// Publish implements task.Work. The records are read again: a decision is a few bytes a record, so it fits into the row.
func (w *work) Publish(ctx context.Context, c *task.Chunk) (task.Counts, error) {
	var s sending
	if err := json.Unmarshal(c.Publish, &s); err != nil {
		return nil, task.Fatalf("read what is to be published by task %s: %w", w.lease.Task.ID, err)
	}
	wanted, sent := int64(0), int64(0)
	for _, p := range s.Places {
		wanted += p[1] - p[0]
	}
	own := map[Owner]bool{}
	if w.judge.mayForget() {
		if err := w.eachOf(ctx, &s, func(rec *events.Record, _ []byte) error {
			if o, forgets, err := w.judge.owner(rec); err == nil && forgets {
				own[o] = true
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	w.guard.Begin(own)
	w.withheld = tally{}
	var messages []Message
	held := 0
	flush := func() error {
		err := w.publisher.Publish(ctx, messages)
		messages, held = nil, 0
		return err
	}
	err := w.eachOf(ctx, &s, func(rec *events.Record, mark []byte) error {
		m, err := w.message(rec, mark)
		if errors.As(err, new(*events.Rejection)) || err == nil && !w.publisher.Fits(&m) {
			return nil
		}
		if err != nil {
			return err
		}
		sent++
		messages = append(messages, m)
		if held += len(m.Key) + len(m.Value); held < sendBytes && len(messages) < portion {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return nil, err
	}
	change := w.withheld
	change[Failed] += wanted - sent
	for _, n := range change {
		change[Published] -= n
	}
	return change.counts(), nil
}

// eachOf calls take for the records of the places that the log still holds, each with its mark.
func (w *work) eachOf(ctx context.Context, s *sending, take func(rec *events.Record, mark []byte) error) error {
	at, before := 0, int64(0) // the place, and how many records those before it have
	of := func(rec *events.Record) error {
		for at < len(s.Places) && s.Places[at][1] <= rec.Offset {
			before += s.Places[at][1] - s.Places[at][0]
			at++
		}
		if at == len(s.Places) || rec.Offset < s.Places[at][0] {
			return nil
		}
		if len(s.Marks) == 0 {
			return take(rec, nil) // a version without marks has stored it
		}
		n := (before + rec.Offset - s.Places[at][0]) * markBytes
		if int64(len(s.Marks)) < n+markBytes {
			return task.Fatalf("read what is to be published by task %s: %d bytes of marks are too few for its places; ask for a new replay",
				w.lease.Task.ID, len(s.Marks))
		}
		return take(rec, s.Marks[n:n+markBytes])
	}
	r := Range{s.Partition, s.Places[0][0], s.Places[len(s.Places)-1][1]}
	err := w.source.Read(ctx, r, of)
	for gone := (*GoneError)(nil); errors.As(err, &gone); {
		r.From = gone.To
		err = w.source.Read(ctx, r, of)
	}
	return err
}

// message makes the record that is published: the original bytes, key and headers, and those of the replay. mark is that of the record
// which was decided about.
func (w *work) message(rec *events.Record, mark []byte) (Message, error) {
	envelope, err := events.ParseEnvelope(rec)
	if err != nil {
		return Message{}, task.Fatalf("publish %s/%d/%d: it was an event when it was decided about, and is none now (%v): the topic was created again; "+
			"ask for a new replay", rec.Topic, rec.Partition, rec.Offset, err)
	}
	if !bytes.HasPrefix(task.Identity(envelope.Source, envelope.ID), mark) {
		return Message{}, task.Fatalf("publish %s/%d/%d: another event is there than the one that was decided about: the topic was created again; "+
			"ask for a new replay", rec.Topic, rec.Partition, rec.Offset)
	}
	whose, _, err := w.judge.owner(rec)
	if err != nil {
		return Message{}, err
	}
	c := copyOf(rec)
	headers := w.kind.cfg.Key.ReplayHeaders(c.Headers, w.lease.Task.ID, w.spec.Effects, envelope.Source, envelope.ID)
	return Message{Partition: rec.Partition, Key: c.Key, Value: c.Value, Headers: headers, Owner: whose}, nil
}

// Close implements task.Work.
func (w *work) Close() {
	if err := errors.Join(w.publisher.Close(), w.source.Close()); err != nil {
		w.kind.cfg.Logger.Warn("closing a replay", "error", fmt.Sprint(err))
	}
}
