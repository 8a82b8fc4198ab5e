package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"

	"tenantflow/internal/broker"
	"tenantflow/internal/retry"
)

// A committer commits offsets for one generation of the group. Partitions commit on their own and wait for the answer;
// what has gathered while one request is under way goes into the next, so the number of requests does not grow with
// the number of partitions.
//
// The broker takes a commit if its generation and member id are current. That fences members off from each other, but not
// the commits of one member: one that got no answer may still be on its way, and puts offset and metadata back when it
// arrives. What could happen if its sender went on, with M the member and G the generation:
//
//  1. M commits "done to 100", which a network holds up. No answer.
//  2. M commits it again on another connection, and goes on: it commits "done to 100, inserting [100, 200)" and sends the
//     insert, which is held up as well.
//  3. The commit of step 1 arrives. It is M's, in generation G: the broker takes it, and the intent is gone.
//  4. M dies. The next owner sees nothing pending, inserts [100, 200) in batches of its own, and goes on.
//  5. The insert of step 2 arrives in time for its deadline: 300 rows of 200.
//
// So the first commit without an answer is the last one of its generation and member id: nothing else is committed with
// them, the member leaves the group, joins it under another id, and every partition begins at its committed position
// again. What the late commit then says is either read from there, or refused, because its member is gone. Only what was
// certainly not sent is sent again, and what the broker has answered with an error that may go away: an answered commit
// has its place in the coordinator's log before any later one.
type committer struct {
	transport  *kafkago.Transport
	brokers    []string
	group      string
	generation generation
	requests   chan *commitRequest
	timeout    time.Duration

	conn *broker.Conn // to the coordinator; belongs to run
	used time.Time    // when it was used last

	over       chan struct{} // closed with the first commit that got no answer
	overOnce   sync.Once
	overReason error // set before over is closed
	unanswered func(error)
}

// A generation names a member of the group in one of its generations: what a commit is fenced by.
type generation struct {
	id     int32
	member string
}

type commitRequest struct {
	topic string
	offsetcommit.RequestPartition
	done chan error
}

// newCommitter returns a committer for a generation. It calls unanswered once, when a commit got no answer.
func newCommitter(g *Group, gen *kafkago.Generation, unanswered func(error)) *committer {
	return &committer{
		transport:  g.cfg.Transport,
		brokers:    g.cfg.Brokers,
		group:      gen.GroupID,
		generation: generation{gen.ID, gen.MemberID},
		requests:   make(chan *commitRequest, 1024),
		timeout:    g.cfg.CommitTimeout,
		over:       make(chan struct{}),
		unanswered: unanswered,
	}
}

// commit makes an offset and its metadata durable. It tries again for as long as ctx lasts. ErrLost: this member may not
// commit for the partition any more; the broker says so, or a commit got no answer.
func (c *committer) commit(ctx context.Context, topic string, partition int, offset int64, metadata string) error {
	what := fmt.Sprintf("commit offset %d of %s/%d", offset, topic, partition)
	return retry.Do(ctx, func() error {
		if err := c.try(ctx, topic, partition, offset, metadata); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}, func(err error) error {
		switch {
		case errors.Is(err, ErrLost), ctx.Err() != nil:
			return err
		case commitLost(err):
			return fmt.Errorf("%w (%w)", ErrLost, err)
		case errors.Is(err, kafkago.OffsetMetadataTooLarge):
			return &StopError{Kind: "offset_metadata_too_large", Err: fmt.Errorf("%w, for %d bytes of metadata. The partition is stopped: "+
				"its metadata says what has been done and can't be shortened. Set the brokers' offset.metadata.max.bytes to 4096, which is their default, or more, and start the service again",
				err, len(metadata))}
		case !kafkaTransient(err):
			return &FatalError{Err: err}
		}
		return nil
	})
}

// try has one request answered. Its error is the broker's, or one of a request that was not sent, or ErrLost.
func (c *committer) try(ctx context.Context, topic string, partition int, offset int64, metadata string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r := &commitRequest{topic: topic, done: make(chan error, 1), RequestPartition: offsetcommit.RequestPartition{
		PartitionIndex: int32(partition), CommittedOffset: offset, CommittedLeaderEpoch: -1, CommittedMetadata: metadata}} // #nosec G115 -- bits on the wire
	select {
	case c.requests <- r:
	case <-c.over:
		return c.lost()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-r.done:
		return err
	case <-c.over:
	case <-ctx.Done():
	}
	select {
	case err := <-r.done: // the answer was faster
		return err
	default:
	}
	// Waiting or under way: a caller that has given up on it must not go on as if it would never arrive.
	c.end(context.Cause(ctx))
	return c.lost()
}

// end says that a commit got no answer.
func (c *committer) end(reason error) {
	c.overOnce.Do(func() {
		c.overReason = reason
		close(c.over)
		c.unanswered(reason)
	})
}

func (c *committer) lost() error {
	return fmt.Errorf("%w: a commit got no answer and may still arrive (%w)", ErrLost, c.overReason)
}

// run sends what has gathered, one request at a time, until ctx is done or a commit got no answer.
func (c *committer) run(ctx context.Context) {
	defer c.disconnect()
	for {
		select {
		case first := <-c.requests:
			c.send(ctx, c.gather(first))
		case <-c.over:
			return
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

// send makes one request of all and gives each its answer. Those without one see that the committer is over.
func (c *committer) send(ctx context.Context, requests []*commitRequest) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %s: %w", c.timeout, context.DeadlineExceeded))
	defer cancel()
	if err := c.connect(ctx); err != nil {
		for _, r := range requests {
			r.done <- err
		}
		return
	}
	select {
	case <-c.over: // while it connected
		return
	default:
	}
	answers, err := c.roundTrip(ctx, requests)
	if err != nil {
		c.end(err)
		return
	}
	c.used = time.Now()
	for _, r := range requests {
		code, ok := answers[place{r.topic, int(r.PartitionIndex)}]
		switch {
		case !ok:
			c.end(fmt.Errorf("the broker's answer does not name %s/%d", r.topic, r.PartitionIndex))
			return
		case code == 0:
			r.done <- nil
			continue
		case errors.Is(code, kafkago.NotCoordinatorForGroup):
			c.disconnect()
		}
		r.done <- code
	}
}

// roundTrip sends requests in one and returns the broker's answers. After an error there may be none, and the requests may
// still arrive.
func (c *committer) roundTrip(ctx context.Context, requests []*commitRequest) (map[place]kafkago.Error, error) {
	topics := map[string]int{}
	req := &offsetcommit.Request{GroupID: c.group, GenerationID: c.generation.id, MemberID: c.generation.member, RetentionTimeMs: -1}
	for _, r := range requests {
		i, ok := topics[r.topic]
		if !ok {
			i = len(req.Topics)
			topics[r.topic] = i
			req.Topics = append(req.Topics, offsetcommit.RequestTopic{Name: r.topic})
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, r.RequestPartition)
	}
	answer, err := c.conn.RoundTrip(ctx, req)
	if err != nil {
		return nil, err
	}
	res, ok := answer.(*offsetcommit.Response)
	if !ok {
		return nil, fmt.Errorf("unexpected answer %T", answer)
	}
	answers := map[place]kafkago.Error{}
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			answers[place{t.Name, int(p.PartitionIndex)}] = kafkago.Error(p.ErrorCode)
		}
	}
	return answers, nil
}

// connect makes sure of a connection to the coordinator. One that was idle for long may have been closed by the other side
// or by something in between; what is written to it would get no answer.
func (c *committer) connect(ctx context.Context) error {
	const idle = 30 * time.Second
	if c.conn != nil && time.Since(c.used) > idle {
		c.disconnect()
	}
	if c.conn != nil {
		return nil
	}
	var err error
	c.conn, err = broker.Coordinator(ctx, c.transport, c.brokers, c.group)
	c.used = time.Now()
	return err
}

func (c *committer) disconnect() {
	if c.conn != nil {
		_ = c.conn.Close() // every answer was read, or none is waited for any more
		c.conn = nil
	}
}
