package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/segmentio/kafka-go"
)

// watchInterval is how often a member looks whether all partitions are assigned.
const watchInterval = 5 * time.Second

// watch returns when the topics have partitions that no member of the group was given, and it is time to join anew:
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
			g.log.InfoContext(ctx, "partitions are in nobody's hands; joining the group anew", slog.Int("partitions", free))
			return
		}
	}
}

// missing says which topic does not exist. A group is joined without it all the same, and a member that has no partitions
// looks like one that is there to spare.
func (g *Group) missing(ctx context.Context) error {
	meta, err := g.client.Metadata(ctx, &kafka.MetadataRequest{Topics: g.cfg.Topics})
	if err != nil {
		return nil //nolint:nilerr // nothing is known then; the membership notices a broker that is away
	}
	for _, t := range meta.Topics {
		if errors.Is(t.Error, kafka.UnknownTopicOrPartition) {
			return fmt.Errorf("topic %s does not exist; run \"tenantflow migrate\", or correct TENANTFLOW_TOPIC_PREFIX", t.Name)
		}
	}
	return nil
}

// unassigned is how many partitions of the topics no member has. In the midst of a rebalance it is 0.
func (g *Group) unassigned(ctx context.Context) (int, error) {
	groups, err := g.client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{g.cfg.Group}})
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
	meta, err := g.client.Metadata(ctx, &kafka.MetadataRequest{Topics: g.cfg.Topics})
	if err != nil {
		return 0, fmt.Errorf("read the partitions of %v: %w", g.cfg.Topics, err)
	}
	free := 0
	for _, t := range meta.Topics {
		if t.Error == nil { // else it is away, and nobody could have it
			free += max(0, len(t.Partitions)-assigned[t.Name])
		}
	}
	return free, nil
}
