package kafka

import (
	"context"
	"errors"
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
	_ = retry.DoBetween(over, 100*time.Millisecond, time.Second, func() error { return g.askToLeave(over, gen) }, func(err error) error {
		g.troubles.Say(over, logs.Trouble{Level: slog.LevelWarn, Message: leaveFailed, Err: err})
		return over.Err()
	})
	g.troubles.Over(over, leaveFailed, "")
}

// askToLeave has the broker forget the member, which it may have done already.
func (g *Group) askToLeave(ctx context.Context, gen *kafkago.Generation) error {
	res, err := g.client.LeaveGroup(ctx, &kafkago.LeaveGroupRequest{GroupID: gen.GroupID, Members: []kafkago.LeaveGroupRequestMember{{ID: gen.MemberID}}})
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

// goodbye has the broker forget the member, whose interrupted join kafka-go takes for the end of a membership that it need not leave.
// Otherwise the others would wait for it until its session has timed out.
func (g *Group) goodbye(ctx context.Context) {
	if g.last == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	if err := g.askToLeave(ctx, g.last); err != nil {
		g.log.InfoContext(ctx, "leaving the group got no answer; it goes on without this member when the session has timed out", slog.Any("reason", err))
	}
}

// forget has the broker forget, as soon as it answers, who the member was before a join failed. kafka-go has said that it leaves,
// once, to a broker that may not have heard it, and joins under another id from then on. A broker that was killed still knows the
// old one, and the join waits for it until its session has timed out.
func (g *Group) forget(ctx context.Context) {
	gen := g.last
	if gen == nil || gen == g.forgotten {
		return
	}
	g.forgotten = gen
	g.forgetting.Go(func() { g.leave(ctx, gen) })
}
