package consumers

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// A TopicReading follows how far a consumer group has come in a topic, by the clock. Not for several goroutines at once.
type TopicReading struct {
	Client       *kafka.Client
	Topic, Group string

	ends    map[int]Range // of the partitions, at taken
	taken   time.Time
	through time.Time
}

// Through returns a time up to which everything that was in the topic has been consumed. It is behind by the time between two calls,
// and zero as long as nothing is known.
func (r *TopicReading) Through(ctx context.Context) (time.Time, error) {
	if r.ends == nil {
		return r.through, r.look(ctx)
	}
	request := &kafka.OffsetFetchRequest{GroupID: r.Group, Topics: map[string][]int{r.Topic: nil}}
	for id := range r.ends {
		request.Topics[r.Topic] = append(request.Topics[r.Topic], id)
	}
	committed, err := r.Client.OffsetFetch(ctx, request)
	if err == nil {
		err = committed.Error
	}
	if err != nil {
		return r.through, fmt.Errorf("read the offsets of group %s: %w", r.Group, err)
	}
	read := map[int]int64{}
	for _, p := range committed.Topics[r.Topic] {
		read[p.Partition] = p.CommittedOffset
	}
	for id, at := range r.ends {
		if max(read[id], at.From) < at.To {
			return r.through, nil
		}
	}
	r.through = r.taken
	return r.through, r.look(ctx)
}

// look remembers where the topic ends now.
func (r *TopicReading) look(ctx context.Context) error {
	now := time.Now()
	meta, err := r.Client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{r.Topic}})
	if err != nil {
		return fmt.Errorf("find the partitions of %s: %w", r.Topic, err)
	}
	ends := map[int]Range{}
	for _, t := range meta.Topics {
		if t.Error != nil {
			return fmt.Errorf("find the partitions of %s: %w", r.Topic, t.Error)
		}
		for _, p := range t.Partitions {
			if ends[p.ID], err = Bounds(ctx, r.Client, r.Topic, p.ID); err != nil {
				return err
			}
		}
	}
	r.ends, r.taken = ends, now
	return nil
}
