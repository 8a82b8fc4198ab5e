package kafka

import (
	"context"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
)

// A StoredLog says up to when the events of a topic have had their effects by a consumer group, and reads single records. It is for one
// goroutine. Close it.
type StoredLog struct {
	behind Behind

	partitions map[int]Range // of the topic, when they were asked for
	asked      time.Time
}

// NewStoredLog returns that of a topic, given with its prefix, and a group.
func NewStoredLog(client *kafkago.Client, group, topic string) *StoredLog {
	return &StoredLog{behind: Behind{Client: client, Group: group, Topic: topic}}
}

// Close closes the connections.
func (l *StoredLog) Close() { l.behind.Close() }

// Topic is the topic, with its prefix.
func (l *StoredLog) Topic() string { return l.behind.Topic }

// brokersDiffer is how far the clocks of brokers may lie apart: the partitions of a topic are stamped by several.
const brokersDiffer = time.Second

// A Reach says how far a group had come in a topic when it was looked at.
type Reach struct {
	all    bool      // everything that the log held has had its effects
	before time.Time // everything that was appended before has; zero: not known
}

// Covers reports whether everything that was appended up to a time has had its effects. It is the time of a record that was read before the
// look: what was appended before that record is in the log then.
func (r Reach) Covers(at time.Time) bool { return r.all || r.before.After(at.Add(brokersDiffer)) }

func (r Reach) String() string {
	switch {
	case r.all:
		return "to the end"
	case r.before.IsZero():
		return "not known how far"
	}
	return "up to " + r.before.UTC().Format(time.RFC3339)
}

// Look asks the brokers how far the group has come. Of a partition whose log ends before what is committed, which is another log than the one
// that was read, nothing is known.
func (l *StoredLog) Look(ctx context.Context) (Reach, error) {
	gaps, err := l.behind.Look(ctx)
	if err != nil {
		return Reach{}, err
	}
	r := Reach{all: true}
	for _, g := range gaps {
		switch {
		case g.Records == 0 && g.Committed <= g.End:
		case g.Records == 0 || g.Oldest.IsZero():
			return Reach{}, nil
		default:
			if r.all || g.Oldest.Before(r.before) {
				r.before = g.Oldest
			}
			r.all = false
		}
	}
	return r, nil
}

// HasPartition reports whether the topic has a partition, as far as was known ten seconds ago.
func (l *StoredLog) HasPartition(ctx context.Context, id int) (bool, error) {
	if time.Since(l.asked) > 10*time.Second {
		now := time.Now()
		partitions, err := Ends(ctx, l.behind.Client, l.behind.Topic)
		if err != nil {
			return false, err
		}
		l.partitions, l.asked = partitions, now
	}
	_, there := l.partitions[id]
	return there, nil
}

// Record calls each for the record at an offset of a partition, if the log still holds it.
func (l *StoredLog) Record(ctx context.Context, partition int, offset int64, each func(*events.Record)) error {
	return ReadLog(ctx, l.behind.Client, l.behind.Topic, partition, Range{From: offset, To: offset + 1}, func(r *events.Record) error {
		each(r)
		return nil
	})
}
