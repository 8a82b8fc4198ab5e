package consumers

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"tenantflow/internal/retry"
	"tenantflow/sinks/clickhouse"
)

// findCoverage finds the timestamp up to which events of the partition may be stored already, from whatever place. An
// event may be stored from another place than its own: the partition it came to before partitions were added, the topic
// it was published to before that was renamed, a mirrored log. So it is
//
//   - the newest timestamp in the whole table, read after the pending range of the partition was settled;
//   - and, where the table has had other writers (another topic, or the same one with another number of partitions), the
//     time until which their producers may go on, which is StaleProducers after the others were last seen and after
//     this number of partitions was first seen, plus how far ahead of the clock an event's timestamp may be.
//
// What an owner of another partition stores after that moment, from a producer that still uses the old number of
// partitions, has a timestamp before it. So its resend, which comes here, is looked up.
func (p *usagePartition) findCoverage(ctx context.Context) error {
	u := p.usage
	var err error
	if p.partitions, err = keepTrying(ctx, p, func() (int, error) { return p.PartitionCount(ctx, time.Now()) }); err != nil {
		return err
	}
	others, err := keepTrying(ctx, p, func() (clickhouse.Writers, error) { return u.writers.announce(ctx, p.Topic(), p.partitions) })
	if err != nil {
		return err
	}
	if others.OtherTopics {
		// They look every event up from when they learn of this topic. Until then nothing of it may be stored.
		p.Waiting(errors.New("waiting until the writers of other topics to the same table have learned of this one"))
		if err := retry.Pause(ctx, time.Until(u.writers.since(p.Topic()).Add(announceEvery+time.Second))); err != nil {
			return err
		}
	}
	newest, err := keepTrying(ctx, p, func() (int64, error) { return u.store.Newest(ctx) })
	if err != nil {
		return err
	}
	p.covered = max(newest, u.coveredByOthers(others))
	return nil
}

// coveredByOthers is the latest timestamp, in milliseconds, that an event from another place may carry.
func (u *Usage) coveredByOthers(w clickhouse.Writers) int64 {
	if w.OthersSeen.IsZero() {
		return math.MinInt64
	}
	last := w.OthersSeen
	if w.FirstSeen.After(last) {
		last = w.FirstSeen
	}
	return last.Add(u.cfg.StaleProducers + u.cfg.Limits.FutureTolerance).UnixMilli()
}

// checkCoverage makes every row of a batch a suspect once the topic has more partitions than when the coverage was found:
// a producer that knows of them sends resends here whose originals went elsewhere. The number is asked for after the
// batch was read, so no record in it was sent by a producer that knew a newer one. The group rejoins soon, and the next
// owner finds a new coverage.
//
// It also makes sure that no other group writes the events of this topic into the table at the same time.
func (p *usagePartition) checkCoverage(ctx context.Context, b *usageBatch) error {
	others, err := keepTrying(ctx, p, func() (clickhouse.Writers, error) { return p.usage.writers.hold(ctx, p.Topic(), p.partitions) })
	if err != nil {
		return err
	}
	if !p.repartitioned {
		n, err := keepTrying(ctx, p, func() (int, error) { return p.PartitionCount(ctx, b.closed) })
		if err != nil {
			return err
		}
		p.repartitioned = n != p.partitions
	}
	// While a writer of another topic is at work, its events may be resent here at any time.
	if p.repartitioned || p.usage.coveredByOthers(others) > p.covered {
		b.suspectAll()
	}
	return nil
}

// Idle keeps the announcement of a partition alive that has nothing to write: a group that came later must not take the
// table over because it was quiet.
func (p *usagePartition) Idle(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := p.usage.writers.hold(asking, p.Topic(), p.partitions)
	if ctx.Err() == nil {
		p.Waiting(err) // it is asked again in a second
	}
	return nil
}

// suspectAll makes all rows of the batch suspects.
func (b *usageBatch) suspectAll() {
	b.suspects = slices.Grow(b.suspects[:0], b.block.Len())
	for row := range b.block.Len() {
		b.suspects = append(b.suspects, row)
	}
}

// usageWriters keeps this process announced as a writer of the table.
//
// Two groups that read one topic into one table would both store an event that neither finds there. So each process
// announces itself with a lease in the table usage_writers, renews it before it writes, and refuses to write while
// another group, announced earlier, holds a lease for the same topic. A process that was stopped for longer than its
// lease announces itself again before it writes, as a newcomer.
type usageWriters struct {
	store UsageStore
	group string
	id    string

	mu    sync.Mutex
	known map[writerKey]*announced
}

type writerKey struct {
	topic      string
	partitions int
}

type announced struct {
	first  time.Time // by the server's clock
	began  time.Time // the same by ours
	at     time.Time // ours: when it was renewed last
	others clickhouse.Writers
}

// How often an announcement is renewed, and how long others believe it. The lease is longer than an insert may take to
// be refused, whatever happens to its process.
const (
	announceEvery = 10 * time.Second
	announceLease = 2 * time.Minute
)

func newUsageWriters(store UsageStore, group string) *usageWriters {
	return &usageWriters{store: store, group: group, id: uuid.NewString(), known: map[writerKey]*announced{}}
}

// hold returns what is known of other writers, renewing the announcement when its time has come.
func (w *usageWriters) hold(ctx context.Context, topic string, partitions int) (clickhouse.Writers, error) {
	w.mu.Lock()
	a := w.known[writerKey{topic, partitions}]
	fresh := a != nil && time.Since(a.at) < announceEvery
	w.mu.Unlock()
	if fresh {
		return a.others, nil
	}
	return w.announce(ctx, topic, partitions)
}

// announce renews the announcement, and returns what is known of other writers. Its error says which other group writes
// the events of this topic.
func (w *usageWriters) announce(ctx context.Context, topic string, partitions int) (clickhouse.Writers, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := writerKey{topic, partitions}
	now := time.Now()
	began := now
	announcement := clickhouse.Writer{Topic: topic, Partitions: partitions, Group: w.group, ID: w.id, Lease: announceLease}
	if a := w.known[key]; a != nil && time.Since(a.at) < announceLease {
		announcement.First, began = a.first, a.began
	}
	others, err := w.store.Announce(ctx, announcement)
	if err != nil {
		return clickhouse.Writers{}, err
	}
	if others.Rival != "" {
		delete(w.known, key)
		return clickhouse.Writers{}, fmt.Errorf("the consumer group %s stores the events of %s in the same table (last seen %s): two groups would store every event twice. "+
			"Stop one of them, or give one a table of its own (TENANTFLOW_CLICKHOUSE_DSN). This one goes on when the other has been gone for %s",
			others.Rival, topic, others.RivalSeen.UTC().Format(time.RFC3339), announceLease)
	}
	w.known[key] = &announced{first: others.First, began: began, at: now, others: others}
	return others, nil
}

// since is when this process first announced that it writes from a topic, by our clock.
func (w *usageWriters) since(topic string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	var first time.Time
	for key, a := range w.known {
		if key.topic == topic && (first.IsZero() || a.began.Before(first)) {
			first = a.began
		}
	}
	return first
}

// Close ends the leases of this process, so that another group need not wait for them. It is called when the member has
// left its group.
func (u *Usage) Close(ctx context.Context) {
	w := u.writers
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, a := range w.known {
		// When it fails the lease ends later.
		_, _ = u.store.Announce(ctx, clickhouse.Writer{
			Topic: key.topic, Partitions: key.partitions, Group: w.group, ID: w.id, First: a.first, Lease: announceLease, Gone: true,
		})
		delete(w.known, key)
	}
}
