package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	kafkago "github.com/segmentio/kafka-go"
)

// watchInterval is how often a member looks whether all partitions are assigned.
const watchInterval = 5 * time.Second

// watch returns when the topics have partitions that no member of the group was given, and it is time to rejoin:
// partitions were added, or the topic was created after the group had joined.
//
// kafka-go can watch as well, but compares the number of partitions with the one it sees when it begins, after the
// assignment was made. A topic created in between is never consumed, and one that is away makes it join without end.
func (g *Group) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if g.state.count() == 0 {
			g.state.joining(g.missing(ctx))
		}
		free, err := g.unassigned(ctx)
		switch {
		case err != nil:
			g.log.DebugContext(ctx, "counting the assigned partitions failed; trying again", slog.Any("error", err))
		case free > 0:
			g.log.InfoContext(ctx, "partitions are unassigned; joining the group again", slog.Int("partitions", free))
			return
		}
	}
}

// missing says which topic does not exist. A group is joined without it all the same, and a member that has no partitions
// looks like one that is there to spare.
func (g *Group) missing(ctx context.Context) error {
	now := time.Now()
	for _, topic := range g.cfg.Topics {
		if _, err := g.topology.count(ctx, topic, now); errors.Is(err, kafkago.UnknownTopicOrPartition) {
			return fmt.Errorf("topic %s does not exist; run \"tenantflow migrate\", or correct TENANTFLOW_TOPIC_PREFIX", topic)
		}
	}
	return nil // also where nothing is known: the membership notices a broker that is away
}

// unassigned is how many partitions of the topics no member has. In the midst of a rebalance it is 0.
func (g *Group) unassigned(ctx context.Context) (int, error) {
	groups, err := g.client.DescribeGroups(ctx, &kafkago.DescribeGroupsRequest{GroupIDs: []string{g.cfg.Group}})
	if err != nil {
		return 0, fmt.Errorf("describe group %s: %w", g.cfg.Group, err)
	}
	assigned := map[string]int{}
	for _, group := range groups.Groups {
		if group.Error != nil {
			return 0, fmt.Errorf("describe group %s: %w", g.cfg.Group, group.Error)
		}
		if group.GroupState != "Stable" {
			return 0, nil
		}
		for _, m := range group.Members {
			for _, t := range m.MemberAssignments.Topics {
				assigned[t.Topic] += len(t.Partitions)
			}
		}
	}
	free, now := 0, time.Now()
	for _, topic := range g.cfg.Topics {
		n, err := g.topology.count(ctx, topic, now)
		var code kafkago.Error
		switch {
		case errors.As(err, &code): // it is away, and no member could have it
		case err != nil:
			return 0, err
		default:
			free += max(0, n-assigned[topic])
		}
	}
	return free, nil
}
