package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
)

// startGeneration starts the partitions of a generation. kafka-go ends the generation as soon as one function given to Start
// returns: the work does when the generation has ended and everything is finished, or when this member has to leave; the
// watch when there should be another generation.
func (g *Group) startGeneration(ctx context.Context, gen *kafkago.Generation) {
	g.metrics.rebalances.Inc()
	g.haunted.Store(false)
	if g.unanswered == (generation{gen.ID, gen.MemberID}) {
		// The broker gives a follower that comes back unchanged the same generation again, and kafka-go keeps the member's id.
		g.log.WarnContext(ctx, "joined the generation again in which a commit got no answer; leaving it", slog.Int("generation", int(gen.ID)))
		gen.Start(func(over context.Context) { g.leave(over, gen) })
		return
	}
	var places []place
	for topic, assigned := range gen.Assignments {
		for _, a := range assigned {
			places = append(places, place{topic, a.ID})
		}
	}
	var missing error
	if len(places) == 0 {
		missing = g.missing(ctx)
	}
	number := g.state.assigned(places, missing)
	g.log.InfoContext(ctx, "joined the consumer group", slog.Int("generation", int(gen.ID)), slog.Int("partitions", len(places)))
	started := make(chan struct{})
	gen.Start(func(over context.Context) {
		close(started)
		defer g.state.left(number)
		g.runGeneration(over, gen, places)
		g.log.InfoContext(ctx, "generation ended", slog.Int("generation", int(gen.ID)))
	})
	<-started
	gen.Start(g.watch)
}

// runGeneration runs the partitions of a generation until it is over, or a commit got no answer, and they have drained.
func (g *Group) runGeneration(over context.Context, gen *kafkago.Generation, places []place) { //nolint:contextcheck // draining outlives the generation
	soft, end := context.WithCancelCause(over)
	defer end(nil)
	hard, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	context.AfterFunc(soft, func() {
		time.AfterFunc(g.cfg.Drain, func() { cancel(errors.New("the drain time is over")) })
	})
	committing, stopCommitting := context.WithCancel(context.Background())
	var unanswered error
	committer := newCommitter(g, gen, func(reason error) {
		unanswered = reason
		end(fmt.Errorf("a commit got no answer: %w", reason))
	})
	var commits errgroup.Group
	commits.Go(func() error { committer.run(committing); return nil })
	commits.Go(func() error {
		(&lookout{group: g, readers: map[place]*watched{}}).run(committing)
		return nil
	})
	var partitions sync.WaitGroup
	for _, p := range places {
		partitions.Go(func() { g.runPartition(soft, hard, committer, p) })
	}
	partitions.Wait()
	stopCommitting()
	_ = commits.Wait() // never an error
	if unanswered == nil {
		<-over.Done()
		return
	}
	g.unanswered = committer.generation
	g.log.WarnContext(over, "a commit got no answer and may still arrive; leaving the group, to join it under another member id",
		slog.Int("generation", int(gen.ID)), slog.Any("reason", unanswered))
	g.leave(over, gen)
}
