package redrive

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/deadletter"
	"tenantflow/internal/replay"
	"tenantflow/internal/task"
	"tenantflow/sinks/postgres"
)

// chunkBytes bounds the values of the letters that are decided about at a time.
const chunkBytes = 8 << 20

// A choice is a letter that was chosen: its origin, and where it stands. There may be a million.
type choice struct {
	partition int32
	at        int32 // partition of the dead letter topic
	group     int32 // of groups
	bytes     int32
	offset    int64
	place     int64 // offset in the dead letter topic
}

// choices are the chosen letters of a topic, in the order in which they are redriven: that of their origins. So the order of events of one
// key is that of the log, whatever order their letters were written in.
type choices struct {
	topic  string // of the letters' origins
	groups []string
	all    []choice
}

// chosen reads which letters a spec chooses.
func (k *Kind) chosen(ctx context.Context, topic string, s *Spec) (*choices, error) {
	c := &choices{topic: topic}
	err := k.reader(topic).Each(ctx, s.Bounds, &s.Filter, func(l *deadletter.Letter) error {
		if l.Topic != topic {
			return nil
		}
		group := slices.Index(c.groups, l.Group)
		if group < 0 {
			group = len(c.groups)
			c.groups = append(c.groups, l.Group)
		}
		c.all = append(c.all, choice{int32(l.Partition), int32(l.Place.Partition), int32(group), int32(l.Bytes), l.Offset, l.Place.Offset}) // #nosec G115 -- Kafka's own are 32 bits
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(c.all, func(a, b choice) int {
		return cmp.Or(c.compare(a, c.key(b)), cmp.Compare(a.at, b.at), cmp.Compare(a.place, b.place))
	})
	c.all = slices.CompactFunc(c.all, func(a, b choice) bool { return c.compare(a, c.key(b)) == 0 })
	return c, nil
}

// An originKey is an origin of a letter of the task's topic. It is the position of a task: the last letter that is accounted for.
type originKey struct {
	Partition int    `json:"partition"`
	Offset    int64  `json:"offset"`
	Group     string `json:"group"`
}

func (c *choices) key(one choice) originKey {
	return originKey{int(one.partition), one.offset, c.groups[one.group]}
}

func (c *choices) compare(a choice, b originKey) int {
	return cmp.Or(cmp.Compare(int(a.partition), b.Partition), cmp.Compare(a.offset, b.Offset), cmp.Compare(c.groups[a.group], b.Group))
}

func (c *choices) place(one choice) deadletter.Place {
	return deadletter.Place{Topic: events.DeadLetterTopic(c.topic), Partition: int(one.at), Offset: one.place}
}

// position is the column position of the task.
type position struct {
	After *originKey `json:"after,omitempty"` // nil: nothing is accounted for
}

// next is the first choice behind a position.
func (c *choices) next(p position) int {
	if p.After == nil {
		return 0
	}
	i, found := slices.BinarySearchFunc(c.all, *p.After, c.compare)
	if found {
		i++
	}
	return i
}

// chunk is how many choices from one on are decided about together.
func (c *choices) chunk(from, most int) int {
	n, held := 0, 0
	for from+n < len(c.all) && n < most && (n == 0 || held < chunkBytes) {
		held += int(c.all[from+n].bytes)
		n++
	}
	return n
}

// letters reads the letters of some choices. One that has left the log is nil.
func (k *Kind) letters(ctx context.Context, c *choices, some []choice) ([]*deadletter.Letter, error) {
	places := make([]deadletter.Place, len(some))
	for i, one := range some {
		places[i] = c.place(one)
	}
	read := map[deadletter.Place]*deadletter.Letter{}
	if err := k.reader(c.topic).At(ctx, places, func(l *deadletter.Letter) error {
		read[l.Place] = l.Clone()
		return nil
	}); err != nil {
		return nil, err
	}
	letters := make([]*deadletter.Letter, len(some))
	for i, place := range places {
		letters[i] = read[place]
	}
	return letters, nil
}

// A decision is what becomes of a chunk's letters.
type decision struct {
	verdicts []Verdict
	letters  []*deadletter.Letter // nil: it has left the log
	messages []replay.Message     // of those that are published
}

// decide decides about some choices. fits reports whether the topic takes a message.
func (k *Kind) decide(ctx context.Context, j *judge, task string, effects []string, c *choices, some []choice, fits func(*replay.Message) bool) (*decision, error) {
	letters, err := k.letters(ctx, c, some)
	if err != nil {
		return nil, err
	}
	here := slices.DeleteFunc(slices.Clone(letters), func(l *deadletter.Letter) bool { return l == nil })
	verdicts, records, of, err := j.decide(ctx, here)
	if err != nil {
		return nil, err
	}
	d := &decision{letters: letters}
	at := 0
	for _, l := range letters {
		v := Verdict{Failed, "the letter has left the log"}
		if l != nil {
			if v = verdicts[at]; v.Outcome == Published {
				m := k.message(l, records[at], of[at], task, effects)
				if fits(&m) {
					d.messages = append(d.messages, m)
				} else {
					v = Verdict{Failed, "with the headers of a redrive the record is larger than the topic takes"}
				}
			}
			at++
			if v.Why != "" {
				k.cfg.Refused(l.Origin, v)
			}
		}
		d.verdicts = append(d.verdicts, v)
	}
	return d, nil
}

// A subject is what a message that is to be published is about.
type subject struct {
	of     *event
	origin events.Origin
}

// subjectOf is what message has said of a message.
func subjectOf(m *replay.Message) subject {
	s, _ := m.Subject.(subject) // message makes all of them
	return s
}

// message makes the record that is published. One with another key goes where that key belongs.
func (k *Kind) message(l *deadletter.Letter, r *events.Record, of *event, task string, effects []string) replay.Message {
	e, err := events.ParseEnvelope(r)
	if err != nil {
		e = &events.Envelope{} // it was decoded before
	}
	original := slices.DeleteFunc(slices.Clone(r.Headers), func(h events.Header) bool { return h.Key == events.HeaderReplayOf })
	headers := k.cfg.Key.ReplayHeaders(original, task, effects, e.Source, e.ID)
	headers = append(headers, events.Header{Key: events.HeaderReplayOf, Value: []byte(deadletter.FormatOrigin(l.Origin))})
	m := replay.Message{Partition: l.Partition, Key: r.Key, Value: r.Value, Headers: headers, Owner: of.owner, Subject: subject{of, l.Origin}}
	if string(r.Key) != string(l.Key) {
		m.Partition = replay.AnyPartition
	}
	return m
}

// A work is one owner's work on a redrive. It implements task.Work.
type work struct {
	kind      *Kind
	lease     *task.Lease
	spec      Spec
	judge     *judge
	choices   *choices
	publisher *replay.Publisher
	most      int // letters of a chunk

	// The chunk decided last, so that its letters need not be read again.
	decided  *task.Chunk
	messages []replay.Message

	// What was decided and not done by the Publish that was last: the letters stay as they are.
	withheld map[events.Origin]Verdict
	guard    *replay.Guard
}

// Open implements task.Kind.
func (k *Kind) Open(ctx context.Context, l *task.Lease) (task.Work, error) {
	w := &work{kind: k, lease: l, most: k.cfg.ChunkLetters}
	if err := json.Unmarshal(l.Task.Spec, &w.spec); err != nil {
		return nil, task.Fatalf("read the spec of task %s: %w", l.Task.ID, err)
	}
	var err error
	if w.judge, err = k.judge(l.Task.Topic, &w.spec); err != nil {
		return nil, err
	}
	if w.choices, err = k.chosen(ctx, l.Task.Topic, &w.spec); err != nil {
		return nil, err
	}
	if w.spec.Rate > 0 {
		w.most = max(1, min(w.most, int(2*w.spec.Rate))) // about two seconds' worth, so that a stop need not wait
	}
	w.guard = &replay.Guard{Store: k.cfg.Letters, Withheld: func(m *replay.Message, why replay.Outcome) { w.withhold(subjectOf(m).origin, leftOut(m.Owner, why)) }}
	w.publisher, err = replay.NewPublisher(ctx, replay.PublisherConfig{Client: k.cfg.Client, Topic: l.Task.Topic, Rate: w.spec.Rate, Keep: w.guard.Keep, Waiting: l.Waiting})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// at reads the task's position.
func (w *work) at() (position, error) {
	var p position
	if err := json.Unmarshal(w.lease.Task.Position, &p); err != nil {
		return p, task.Fatalf("read the position of task %s: %w", w.lease.Task.ID, err)
	}
	return p, nil
}

// Progress implements task.Work: in letters.
func (w *work) Progress() (done, total int64) {
	p, err := w.at()
	if err != nil {
		return 0, -1
	}
	return int64(w.choices.next(p)), int64(len(w.choices.all))
}

// sending is what a chunk changes: it is the column pending. The letters are read again to be published, so a decision is small.
type sending struct {
	Publish []item               `json:"publish,omitempty"`
	Settle  []postgres.LetterRef `json:"settle,omitempty"`
}

// An item is a letter that is redriven.
type item struct {
	Place deadletter.Place   `json:"place"`
	Ref   postgres.LetterRef `json:"ref"`
}

// Decide implements task.Work.
func (w *work) Decide(ctx context.Context) (*task.Chunk, error) {
	p, err := w.at()
	if err != nil {
		return nil, err
	}
	from := w.choices.next(p)
	n := w.choices.chunk(from, w.most)
	if n == 0 {
		return nil, nil //nolint:nilnil // nothing is left
	}
	some := w.choices.all[from : from+n]
	d, err := w.kind.decide(ctx, w.judge, w.lease.Task.ID, w.spec.Effects, w.choices, some, w.publisher.Fits)
	if err != nil {
		return nil, err
	}
	c := &task.Chunk{Counts: d.counts()}
	var s sending
	for i, v := range d.verdicts {
		switch v.Outcome { //nolint:exhaustive // the others change nothing
		case Published:
			s.Publish = append(s.Publish, item{w.choices.place(some[i]), d.letters[i].Ref()})
		case AlreadyThere:
			s.Settle = append(s.Settle, d.letters[i].Ref())
		}
	}
	last := w.choices.key(some[n-1])
	if c.Position, err = json.Marshal(position{&last}); err != nil {
		return nil, task.Fatalf("write the position: %w", err)
	}
	if len(s.Publish)+len(s.Settle) > 0 {
		if c.Publish, err = json.Marshal(s); err != nil {
			return nil, task.Fatalf("write what is to be published: %w", err)
		}
	}
	w.decided, w.messages = c, d.messages
	return c, nil
}

func (d *decision) counts() task.Counts {
	c := task.Counts{}
	for _, v := range d.verdicts {
		c[v.Outcome.String()]++
	}
	return c
}

// Publish implements task.Work.
func (w *work) Publish(ctx context.Context, c *task.Chunk) (task.Counts, error) {
	messages := w.messages
	w.withheld = map[events.Origin]Verdict{}
	if c != w.decided {
		var err error
		if messages, err = w.again(ctx, c); err != nil {
			return nil, err
		}
	}
	own := map[replay.Owner]bool{}
	for i := range messages {
		if e := subjectOf(&messages[i]).of; e.tenant != nil && replay.Forgets(e.tenant.Type) {
			own[e.owner] = true
		}
	}
	w.guard.Begin(own)
	// Those that are withheld leave the list, and it may be published once more.
	if err := w.publisher.Publish(ctx, slices.Clone(messages)); err != nil {
		return nil, err
	}
	change := task.Counts{}
	for _, v := range w.withheld {
		change[v.Outcome.String()]++
		change[Published.String()]--
	}
	return change, nil
}

func (w *work) withhold(o events.Origin, v Verdict) {
	w.withheld[o] = v
	w.kind.cfg.Refused(o, v)
}

// again makes the messages of a chunk that an earlier owner has decided. The same patch makes the same event of the same letter.
func (w *work) again(ctx context.Context, c *task.Chunk) ([]replay.Message, error) {
	var s sending
	if err := json.Unmarshal(c.Publish, &s); err != nil {
		return nil, task.Fatalf("read what is to be published by task %s: %w", w.lease.Task.ID, err)
	}
	places := make([]deadletter.Place, len(s.Publish))
	for i, one := range s.Publish {
		places[i] = one.Place
	}
	read := map[deadletter.Place]replay.Message{}
	unfit := map[deadletter.Place]Verdict{}
	if err := w.kind.reader(w.choices.topic).At(ctx, places, func(l *deadletter.Letter) error {
		l = l.Clone()
		v, r, of, _ := w.judge.understand(l)
		if v.Outcome != Published {
			unfit[l.Place] = Verdict{Failed, "it could be published when that was decided, and can't any more: " + v.Why}
			return nil
		}
		read[l.Place] = w.kind.message(l, r, of, w.lease.Task.ID, w.spec.Effects)
		return nil
	}); err != nil {
		return nil, err
	}
	var messages []replay.Message
	for _, one := range s.Publish {
		m, here := read[one.Place]
		if !here {
			v, known := unfit[one.Place]
			if !known {
				v = Verdict{Failed, "the letter has left the log"}
			}
			w.withhold(one.Ref.Origin, v)
			continue
		}
		messages = append(messages, m)
	}
	return messages, nil
}

// Account implements task.Accounting: the letters' states move with the position.
func (w *work) Account(ctx context.Context, tx pgx.Tx, c *task.Chunk) error {
	if c.Publish == nil {
		return nil
	}
	var s sending
	if err := json.Unmarshal(c.Publish, &s); err != nil {
		return task.Fatalf("read what was published by task %s: %w", w.lease.Task.ID, err)
	}
	var refs []postgres.LetterRef
	for _, one := range s.Publish {
		if _, not := w.withheld[one.Ref.Origin]; !not {
			refs = append(refs, one.Ref)
		}
	}
	why := "published again as it was"
	if w.judge.fix != nil {
		why = "published again, patched"
	}
	change := postgres.LetterChange{State: postgres.LetterRedriven, By: w.spec.By, Why: why, Task: w.lease.Task.ID}
	if _, err := postgres.PutLetters(ctx, tx, refs, change); err != nil {
		return err
	}
	change.State, change.Why = postgres.LetterSettled, "its event has had its effect"
	_, err := postgres.PutLetters(ctx, tx, s.Settle, change)
	return err
}

// Close implements task.Work.
func (w *work) Close() {
	if err := w.publisher.Close(); err != nil {
		w.kind.cfg.Logger.Warn("closing a redrive", "error", fmt.Sprint(err))
	}
}

// Dry makes the same decisions as a redrive, and publishes nothing.
func (k *Kind) Dry(ctx context.Context, p *Plan) (task.Counts, error) {
	j, err := k.judge(p.Topic, &p.Spec)
	if err != nil {
		return nil, err
	}
	c, err := k.chosen(ctx, p.Topic, &p.Spec)
	if err != nil {
		return nil, err
	}
	publisher, err := replay.NewPublisher(ctx, replay.PublisherConfig{Client: k.cfg.Client, Topic: p.Topic})
	if err != nil {
		return nil, err
	}
	counts := task.Counts{}
	for from := 0; from < len(c.all); {
		n := c.chunk(from, k.cfg.ChunkLetters)
		d, err := k.decide(ctx, j, "dry-run", p.Spec.Effects, c, c.all[from:from+n], publisher.Fits)
		if err != nil {
			return nil, errors.Join(err, publisher.Close())
		}
		counts = counts.Plus(d.counts())
		from += n
	}
	return counts, publisher.Close()
}
