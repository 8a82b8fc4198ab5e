package billing

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/kafka"
)

// An AsOf says what an export was made of: everything that stands in the log before its positions.
type AsOf struct {
	Usage         TopicPosition `json:"usage_events"`
	Subscriptions TopicPosition `json:"subscription_events"`
	Books         time.Time     `json:"books_at"` // when Postgres was read
	Companies     TopicPosition `json:"-"`        // events that make companies: a closing waits for them, and an export says nothing of them
}

// A TopicPosition is how far the events of a topic are stored.
type TopicPosition struct {
	Topic      string              `json:"topic"`
	Complete   *time.Time          `json:"complete_until"` // everything that was appended before is stored; nil: not known
	Partitions []PartitionPosition `json:"partitions"`
}

// A PartitionPosition is how far the events of a partition are stored.
type PartitionPosition struct {
	Partition int   `json:"partition"`
	Offset    int64 `json:"offset"` // of the first that is not

	until   time.Time // everything that was appended before is stored
	unknown bool      // nothing was committed of what the log has, or it is another log than the one that was committed of
	end     int64     // of the log, as of the look
}

// clocksDiffer is how far the clocks of brokers and stores may lie apart.
const clocksDiffer = time.Second

// behind says why events that were appended before a time may not be stored; empty: they are.
func (p *TopicPosition) behind(end time.Time) string {
	for _, one := range p.Partitions {
		switch {
		case one.unknown:
			return fmt.Sprintf("%s: it is not known how far partition %d is stored", p.Topic, one.Partition)
		case one.until.Before(end.Add(clocksDiffer)):
			return fmt.Sprintf("%s: partition %d is behind, it is stored up to %s", p.Topic, one.Partition, one.until.UTC().Format(time.RFC3339))
		}
	}
	return ""
}

// before reports whether a position lies before another one of the same topic in some partition.
func (p *TopicPosition) before(other *TopicPosition) bool {
	if p.Topic != other.Topic {
		return false
	}
	there := other.offsets()
	return slices.ContainsFunc(p.Partitions, func(one PartitionPosition) bool { return one.Offset < there[one.Partition] })
}

// atLeast is the position, in partitions where another one of the same topic lies behind it, that one: what was exported once stays stored, also if the topic
// or the group's offsets were made again.
func (p *TopicPosition) atLeast(offsets map[int]int64) TopicPosition {
	raised := *p
	raised.Partitions = slices.Clone(p.Partitions)
	there := map[int]bool{}
	for i := range raised.Partitions {
		one := &raised.Partitions[i]
		one.Offset = max(one.Offset, offsets[one.Partition])
		there[one.Partition] = true
	}
	for partition, offset := range offsets {
		if !there[partition] { // the log has no such partition any more: nothing of it can come
			raised.Partitions = append(raised.Partitions, PartitionPosition{Partition: partition, Offset: offset, until: time.Now(), end: offset})
		}
	}
	slices.SortFunc(raised.Partitions, func(a, b PartitionPosition) int { return cmp.Compare(a.Partition, b.Partition) })
	return raised
}

// offsets are the offsets by partition.
func (p *TopicPosition) offsets() map[int]int64 {
	of := make(map[int]int64, len(p.Partitions))
	for _, one := range p.Partitions {
		of[one.Partition] = one.Offset
	}
	return of
}

// beyond returns those of some offsets, first ones behind rows, that lie behind the end of their partition's log, or in a partition that the log has not.
func (p *TopicPosition) beyond(rows map[int]int64) map[int]int64 {
	found := maps.Clone(rows)
	for _, one := range p.Partitions {
		if found[one.Partition] <= one.end {
			delete(found, one.Partition)
		}
	}
	return found
}

// arrays are the partitions and their offsets; never none.
func (p *TopicPosition) arrays() (partitions, offsets []int64) {
	if len(p.Partitions) == 0 {
		return []int64{-1}, []int64{0} // there is no such partition
	}
	partitions, offsets = make([]int64, len(p.Partitions)), make([]int64, len(p.Partitions))
	for i, one := range p.Partitions {
		partitions[i], offsets[i] = int64(one.Partition), one.Offset
	}
	return partitions, offsets
}

// A Source is a topic and the consumer group that stores its events.
type Source struct{ Topic, Group string }

// Positions reads from the brokers how far usage, subscription and company events are stored. It may be used by several goroutines at once. Close it.
type Positions struct {
	mu                              sync.Mutex
	usage, subscriptions, companies kafka.Behind
	known                           *AsOf
	at                              time.Time
}

// positionsFresh is for how long a look at the positions serves. What stands before a position stays stored, so an old look is as true as a new one.
const positionsFresh = 2 * time.Second

// NewPositions makes one for the topics, with their prefix.
func NewPositions(client *kafkago.Client, usage, subscriptions, companies Source) *Positions {
	return &Positions{
		usage:         kafka.Behind{Client: client, Topic: usage.Topic, Group: usage.Group},
		subscriptions: kafka.Behind{Client: client, Topic: subscriptions.Topic, Group: subscriptions.Group},
		companies:     kafka.Behind{Client: client, Topic: companies.Topic, Group: companies.Group},
	}
}

// Close closes the connections.
func (p *Positions) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.usage.Close()
	p.subscriptions.Close()
	p.companies.Close()
}

// Look returns the positions of no longer ago than since, or of two seconds ago if since is zero.
func (p *Positions) Look(ctx context.Context, since time.Time) (AsOf, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if since.IsZero() {
		since = time.Now().Add(-positionsFresh)
	}
	if p.known != nil && !p.at.Before(since) {
		return *p.known, nil
	}
	now := time.Now()
	var at AsOf
	var err error
	if at.Usage, err = look(ctx, &p.usage, now); err != nil {
		return AsOf{}, err
	}
	if at.Subscriptions, err = look(ctx, &p.subscriptions, now); err != nil {
		return AsOf{}, err
	}
	if at.Companies, err = look(ctx, &p.companies, now); err != nil {
		return AsOf{}, err
	}
	p.known, p.at = &at, now
	return at, nil
}

// look reads the position of a topic. now is a time before the look: of a partition whose events are all stored, everything up to then is.
func look(ctx context.Context, behind *kafka.Behind, now time.Time) (TopicPosition, error) {
	gaps, err := behind.Look(ctx)
	if err != nil {
		return TopicPosition{}, fmt.Errorf("ask how far %s is stored: %w", behind.Topic, err)
	}
	position := TopicPosition{Topic: behind.Topic, Partitions: []PartitionPosition{}}
	complete := now
	for i := range gaps {
		one := positionOf(&gaps[i], now)
		if one.unknown {
			complete = time.Time{}
		} else if one.until.Before(complete) {
			complete = one.until
		}
		position.Partitions = append(position.Partitions, one)
	}
	if !complete.IsZero() {
		complete = complete.UTC().Truncate(time.Millisecond)
		position.Complete = &complete
	}
	return position, nil
}

// positionOf is how far the events of a partition are stored. What the log has no more is stored or gone. Of a group that has committed nothing of what
// the log has it is not known: it may have been renamed.
func positionOf(g *kafka.Gap, now time.Time) PartitionPosition {
	until, known := g.StoredUntil(now)
	return PartitionPosition{Partition: g.Partition, Offset: max(0, g.Committed, g.End-g.Records), until: until, unknown: !known || g.Committed < 0 && g.Records > 0, end: g.End}
}
