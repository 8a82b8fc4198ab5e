package replay

import (
	"context"
	"errors"
	"fmt"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/kafka"
)

// letters are the dead letters that a group has written for the records of a topic.
type letters struct {
	client       *kafkago.Client
	topic, group string

	loaded  bool
	reasons map[origin]events.Reason
}

// An origin is the record that a letter is about. A place alone does not name it: a topic that was created again, or whose archive is
// replayed, has other records there.
type origin struct {
	partition int
	offset    int64
	content   content
}

// content stands for the bytes of a record: its ContentHash, and of one whose letter has no room for them their sizes.
type content struct {
	hash  uint64
	sizes [2]int // of key and value; zero: hash counts
}

func contentOf(r *events.Record) (whole, large content) {
	return content{hash: r.ContentHash()}, content{sizes: [2]int{len(r.Key), len(r.Value)}}
}

// of reads the dead letters when it is first asked: most replays find nothing missing that has one, and need not read the topic.
func (l *letters) of(ctx context.Context, partition int, v *verdict) (events.Reason, bool, error) {
	if !l.loaded {
		if err := l.load(ctx); err != nil {
			return "", false, err
		}
		l.loaded = true
	}
	for _, c := range []content{v.content, v.large} {
		if reason, ok := l.reasons[origin{partition, v.offset, c}]; ok {
			return reason, true, nil
		}
	}
	return "", false, nil
}

func (l *letters) load(ctx context.Context) error {
	l.reasons = map[origin]events.Reason{}
	from := events.DeadLetterTopic(l.topic)
	ends, err := kafka.Ends(ctx, l.client, from)
	if errors.Is(err, kafkago.UnknownTopicOrPartition) {
		return nil
	}
	if err != nil {
		return err
	}
	known := map[events.Reason]events.Reason{} // one string for each reason
	for id, r := range ends {
		err := kafka.ReadLog(ctx, l.client, from, id, r, func(rec *events.Record) error {
			d, err := events.ParseDeadLetter(rec)
			if err != nil || d.Topic != l.topic || d.Group != l.group {
				return nil //nolint:nilerr // a record that is no dead letter of this group says nothing
			}
			if _, ok := known[d.Reason]; !ok {
				known[d.Reason] = d.Reason
			}
			c := content{hash: d.ContentHash()}
			if d.Large != nil {
				c = content{sizes: [2]int{d.Large.KeyBytes, d.Large.ValueBytes}}
			}
			l.reasons[origin{d.Partition, d.Offset, c}] = known[d.Reason]
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the dead letters of %s: %w", l.topic, err)
		}
	}
	return nil
}
