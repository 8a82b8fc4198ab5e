package consumers

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// A committer commits offsets for one generation of the group. Partitions commit on their own and wait for the answer;
// what has gathered while one request is under way goes into the next, so the number of requests does not grow with
// the number of partitions.
type committer struct {
	client     *kafka.Client
	group      string
	generation int
	member     string
	requests   chan *commitRequest
	timeout    time.Duration
}

type commitRequest struct {
	topic string
	kafka.OffsetCommit
	done chan error
}

func newCommitter(client *kafka.Client, gen *kafka.Generation) *committer {
	return &committer{
		client:     client,
		group:      gen.GroupID,
		generation: int(gen.ID),
		member:     gen.MemberID,
		requests:   make(chan *commitRequest, 1024),
		timeout:    10 * time.Second,
	}
}

// commit makes an offset and its metadata durable. It tries again for as long as ctx lasts. errLost: the group has
// moved on, and the broker did not take it.
func (c *committer) commit(ctx context.Context, topic string, partition int, offset int64, metadata string) error {
	delays := retryDelays()
	for {
		err := c.try(ctx, topic, partition, offset, metadata)
		switch {
		case err == nil:
			return nil
		case commitLost(err):
			return fmt.Errorf("commit offset %d of %s/%d: %w (%w)", offset, topic, partition, errLost, err)
		case ctx.Err() != nil:
			return fmt.Errorf("commit offset %d of %s/%d: %w", offset, topic, partition, err)
		case !kafkaTransient(err):
			return fatal("commit offset %d of %s/%d: %w", offset, topic, partition, err)
		}
		if pause(ctx, delays.NextBackOff()) != nil {
			return fmt.Errorf("commit offset %d of %s/%d: %w", offset, topic, partition, err)
		}
	}
}

func (c *committer) try(ctx context.Context, topic string, partition int, offset int64, metadata string) error {
	r := &commitRequest{
		topic:        topic,
		OffsetCommit: kafka.OffsetCommit{Partition: partition, Offset: offset, Metadata: metadata},
		done:         make(chan error, 1),
	}
	select {
	case c.requests <- r:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run sends what has gathered, one request at a time, until ctx is done.
func (c *committer) run(ctx context.Context) {
	for {
		select {
		case first := <-c.requests:
			c.send(ctx, c.gather(first))
		case <-ctx.Done():
			return
		}
	}
}

// gather takes all waiting requests. A partition has at most one, since it waits for the answer.
func (c *committer) gather(first *commitRequest) []*commitRequest {
	all := []*commitRequest{first}
	for {
		select {
		case r := <-c.requests:
			all = append(all, r)
		default:
			return all
		}
	}
}

func (c *committer) send(ctx context.Context, requests []*commitRequest) {
	topics := map[string][]kafka.OffsetCommit{}
	for _, r := range requests {
		topics[r.topic] = append(topics[r.topic], r.OffsetCommit)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	res, err := c.client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID:      c.group,
		GenerationID: c.generation,
		MemberID:     c.member,
		Topics:       topics,
	})
	for _, r := range requests {
		if err != nil {
			r.done <- err
			continue
		}
		r.done <- answerFor(res, r)
	}
}

func answerFor(res *kafka.OffsetCommitResponse, r *commitRequest) error {
	for _, p := range res.Topics[r.topic] {
		if p.Partition == r.Partition {
			return p.Error
		}
	}
	return fmt.Errorf("the broker's answer does not name %s/%d", r.topic, r.Partition)
}
