package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/logs"
	"tenantflow/internal/retry"
)

const leaveFailed = "leaving the group failed; trying again"

// leave has the broker forget the member, so that nothing is taken from it any more, until the broker has answered or the
// generation is over. A member that comes back with the same id has another generation, or is sent away again.
func (g *Group) leave(over context.Context, gen *kafkago.Generation) {
	// Often, because the group waits for it.
	_ = retry.DoBetween(over, 100*time.Millisecond, time.Second, func() error { return g.askToLeave(over, gen.MemberID) }, func(err error) error {
		g.troubles.Say(over, logs.Trouble{Level: slog.LevelWarn, Message: leaveFailed, Err: err})
		return over.Err()
	})
	g.troubles.Over(over, leaveFailed, "")
}

// askToLeave has the broker forget a member, which it may have done already.
func (g *Group) askToLeave(ctx context.Context, memberID string) error {
	res, err := g.client.LeaveGroup(ctx, &kafkago.LeaveGroupRequest{GroupID: g.cfg.Group, Members: []kafkago.LeaveGroupRequestMember{{ID: memberID}}})
	if err != nil {
		return err
	}
	err = res.Error
	for _, m := range res.Members {
		err = errors.Join(err, m.Error)
	}
	if errors.Is(err, kafkago.UnknownMemberId) {
		return nil
	}
	return err
}

// A ghost is a member of the group that this one was and will not be again: the group waits for it until its session has timed
// out. Two leave one behind. kafka-go says only once that it leaves, to a broker that may be down, and joins under another id from then
// on. And a broker that fails in the middle of a join may know the member by an id that it has told to none. So the client id of
// the membership is its own, and who bears it while no join is under way is a ghost.

// leaveGhosts has the broker forget the ghosts. It must not be called while a member or a join of this one is alive.
func (g *Group) leaveGhosts(ctx context.Context) error {
	res, err := g.client.DescribeGroups(ctx, &kafkago.DescribeGroupsRequest{GroupIDs: []string{g.cfg.Group}})
	if err != nil {
		return err
	}
	for _, group := range res.Groups {
		if group.Error != nil {
			return group.Error
		}
		for _, m := range group.Members {
			if m.ClientID != g.clientID {
				continue
			}
			if err := g.askToLeave(ctx, m.MemberID); err != nil {
				return err
			}
			g.log.InfoContext(ctx, "left the group as a member that was left behind", slog.String("member", m.MemberID))
		}
	}
	return nil
}

// ghostTimeout bounds a look for ghosts. A broker that is so slow may still take a join.
const ghostTimeout = 20 * time.Second

// beforeJoin is called before each connection of the membership is used. After a join that failed, it leaves the ghosts. Its
// error is why the next join fails.
func (g *Group) beforeJoin(ctx context.Context) error {
	if !g.haunted.Load() {
		return nil
	}
	looking, cancel := context.WithTimeout(ctx, ghostTimeout)
	defer cancel()
	err := g.leaveGhosts(looking)
	switch {
	case err != nil && (ctx.Err() != nil || looking.Err() == nil && hindersJoins(err)):
		return fmt.Errorf("leave the group as the member that it was: %w", err)
	case err != nil:
		g.log.WarnContext(ctx, "can't look for members of this process that were left behind in the group; "+
			"if there is one, its partitions wait until its session has timed out", slog.Any("reason", err))
	}
	g.haunted.Store(false)
	return nil
}

// hindersJoins reports whether a join would fail by the same error: then it can wait. Others concern only those who look, such as a right
// to describe the group that is missing, or a member whose metadata can't be read.
func hindersJoins(err error) bool {
	var code kafkago.Error
	if errors.As(err, &code) {
		return kafkaTransient(err)
	}
	return connectionFailed(err)
}

// goodbye leaves the ghosts of a membership that has ended: kafka-go takes an interrupted join for an end that needs no leave.
func (g *Group) goodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	if err := g.leaveGhosts(ctx); err != nil {
		g.log.InfoContext(ctx, "leaving the group got no answer; it goes on without this member when the session has timed out", slog.Any("reason", err))
	}
}
