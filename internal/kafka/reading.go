package kafka

import (
	"context"
	"time"

	kafkago "github.com/segmentio/kafka-go"
)

// A TopicReading follows how far a consumer group has come in a topic, by the clock. Not for several goroutines at once.
type TopicReading struct {
	Client       *kafkago.Client
	Topic, Group string

	ends    map[int]Range // of the partitions, at taken
	taken   time.Time
	through time.Time
}

// Through returns a time up to which everything that was in the topic has been consumed: now, where all is, and otherwise that of an earlier
// call. It is zero as long as nothing is known, which an error says why.
func (r *TopicReading) Through(ctx context.Context) (time.Time, error) {
	for fresh := false; !fresh; {
		if r.ends == nil {
			taken := time.Now()
			ends, err := Ends(ctx, r.Client, r.Topic)
			if err != nil {
				return time.Time{}, err
			}
			r.ends, r.taken, fresh = ends, taken, true
		}
		unread, err := Unread(ctx, r.Client, r.Group, r.Topic, r.ends)
		if err != nil {
			return time.Time{}, err
		}
		for _, events := range unread {
			if events > 0 {
				return r.through, nil
			}
		}
		r.through, r.ends = r.taken, nil
	}
	return r.through, nil
}
