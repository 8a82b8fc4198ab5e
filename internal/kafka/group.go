// Package kafka is the Kafka runtime of tenantflow: membership in consumer groups, one loop per partition, commits, reading a
// log, and publishing results and dead letters. It knows no store and no business rule.
//
// A [Group] joins a consumer group and runs every assigned partition until the next rebalance. What a partition's
// events do is up to its [BatchHandler], which gets contiguous ranges of many records.
//
// The promise to the handlers is at-least-once and in order: a range is committed only after its effects are durable, with
// the generation and the member id of its owner, so that a member that has lost the partition without knowing can't
// commit. Exactly-once is what the handlers make of it, by keying each effect with the identity of its event or its place
// in the log.
//
// kafka-go's Reader is not used: its queue is not drained at a rebalance, its commits carry no generation, and it skips
// offsets that are out of range without a word.
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

	"tenantflow/internal/health"
	"tenantflow/internal/retry"
)

// OutOfRange says what to do when the log does not hold the offset to read next.
type OutOfRange string

// The choices for an offset that is out of range.
const (
	OutOfRangeStop     OutOfRange = "stop"     // stop the partition
	OutOfRangeEarliest OutOfRange = "earliest" // go on at the beginning of the log
	OutOfRangeLatest   OutOfRange = "latest"   // go on at its end
)

// Config is what a Group needs.
type Config struct {
	// Name is the consumer's: usage, quota, ... It is the part that health reports name.
	Name string

	// Brokers are host:port addresses to begin with.
	Brokers []string
	// Dialer makes the connections of the group membership, Transport all others.
	Dialer    *kafkago.Dialer
	Transport *kafkago.Transport

	// Group is the consumer group's id, prefix included; Topics what it consumes.
	Group  string
	Topics []string

	// SessionTimeout is how long the group waits for a sign of life before it gives the partitions to others.
	// RebalanceTimeout is how long it waits for members to join. Drain is how long a batch under way may take to
	// finish after the partition was taken away, or after Run's context was cancelled; it must be shorter than both.
	// Defaults: 30s, 60s, 20s.
	SessionTimeout, RebalanceTimeout, Drain time.Duration

	// BatchRows ends a batch, BatchInterval hands one over that has waited so long. Defaults: 100000, 1s.
	BatchRows     int
	BatchInterval time.Duration

	// CommitIdle is how long after the last batch its offset is committed if nothing else carries it. Default: 500ms.
	CommitIdle time.Duration

	// CommitTimeout is how long a commit waits for the broker's answer. Without one the member leaves the group and joins it
	// again under another id, because the commit may still arrive. Default: 10s.
	CommitTimeout time.Duration

	// Budget bounds the bytes held by all partitions. Default: 128 MiB for this group alone.
	Budget *Budget

	OutOfRange OutOfRange // default: OutOfRangeStop

	Metrics *Metrics        // default: unregistered ones
	Health  *health.Tracker // default: none
	Logger  *slog.Logger    // default: none
}

func (c *Config) withDefaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.SessionTimeout, 30*time.Second)
	set(&c.RebalanceTimeout, 60*time.Second)
	set(&c.Drain, 20*time.Second)
	set(&c.BatchInterval, time.Second)
	set(&c.CommitIdle, 500*time.Millisecond)
	set(&c.CommitTimeout, 10*time.Second)
	if c.BatchRows == 0 {
		c.BatchRows = 100_000
	}
	if c.Budget == nil {
		c.Budget = NewBudget(128 << 20)
	}
	if c.OutOfRange == "" {
		c.OutOfRange = OutOfRangeStop
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil, c.Name)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Dialer == nil {
		c.Dialer = &kafkago.Dialer{Timeout: 10 * time.Second}
	}
	if c.Transport == nil {
		c.Transport = &kafkago.Transport{}
	}
}

// A Group is one member of a consumer group.
type Group struct {
	cfg     Config
	handler BatchHandler
	client  *kafkago.Client
	letters *DeadLetters
	results *Results
	budget  *Budget
	metrics *Metrics
	state   *state
	log     *slog.Logger

	topology *topology

	stop func(error) // ends Run; set by Run

	// unanswered is the last generation that ended because a commit got no answer. Generations follow each other, so they
	// need no lock.
	unanswered generation

	// last is the generation that was joined last; nil: none was.
	last *kafkago.Generation

	read marks
}

// NewGroup returns a member that has not joined yet.
func NewGroup(cfg Config, handler BatchHandler) *Group {
	cfg.withDefaults()
	// Without a timeout, a request to a broker that has frozen would wait for good.
	client := &kafkago.Client{Addr: kafkago.TCP(cfg.Brokers...), Transport: cfg.Transport, Timeout: 15 * time.Second}
	log := cfg.Logger.With(slog.String("consumer", cfg.Name), slog.String("group", cfg.Group))
	return &Group{
		topology: newTopology(&cfg),

		cfg:     cfg,
		handler: handler,
		client:  client,
		letters: NewDeadLetters(client, cfg.Group, log, cfg.Metrics.deadLetters),
		results: NewResults(client),
		budget:  cfg.Budget,
		metrics: cfg.Metrics,
		state:   newState(cfg.Name, cfg.Health, cfg.Metrics),
		log:     log,
	}
}

// Run is a member of the group until ctx is done. Then it stops reading, finishes the batches under way within the
// drain time, commits, leaves the group and returns nil. An error means that a person has to act.
func (g *Group) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g.stop = func(err error) { cancel(err) }
	dialer, joining := newJoining(g.cfg.Dialer)
	membership, err := kafkago.NewConsumerGroup(kafkago.ConsumerGroupConfig{
		ID:                g.cfg.Group,
		Brokers:           g.cfg.Brokers,
		Dialer:            dialer,
		Topics:            g.cfg.Topics,
		GroupBalancers:    []kafkago.GroupBalancer{kafkago.RangeGroupBalancer{}, kafkago.RoundRobinGroupBalancer{}},
		HeartbeatInterval: min(3*time.Second, g.cfg.SessionTimeout/4),
		SessionTimeout:    g.cfg.SessionTimeout,
		RebalanceTimeout:  g.cfg.RebalanceTimeout,
		JoinGroupBackoff:  time.Second,
		StartOffset:       kafkago.FirstOffset,
		Timeout:           10 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("join consumer group %s: %w", g.cfg.Group, err)
	}
	// Close ends the generation and waits for its partitions, which drain; so it comes before the writers close.
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = membership.Close() // always nil
		}()
		joining.interrupt()
		<-closed
	}()
	runErr := g.generations(ctx, membership)
	cancel(runErr)
	<-ended
	g.goodbye(context.WithoutCancel(ctx))
	if c, ok := g.handler.(Closer); ok {
		closing, done := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		c.Close(closing)
		done()
	}
	g.topology.close()
	if err := g.letters.Close(); err != nil && runErr == nil {
		runErr = fmt.Errorf("close dead letter writer: %w", err)
	}
	if err := g.results.Close(); err != nil && runErr == nil {
		runErr = fmt.Errorf("close result writer: %w", err)
	}
	var failure *FatalError
	if errors.As(context.Cause(ctx), &failure) {
		return failure
	}
	return runErr
}

// closeTimeout bounds what a handler does at its end.
const closeTimeout = 2 * time.Second

// generations runs one generation of the group after the other.
func (g *Group) generations(ctx context.Context, membership *kafkago.ConsumerGroup) error {
	for {
		gen, err := membership.Next(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, kafkago.ErrGroupClosed):
			return nil //nolint:nilerr // told to stop
		case err != nil && !kafkaTransient(err):
			return fatal("join consumer group %s: %w", g.cfg.Group, err)
		case err != nil:
			// A new cluster has no coordinator for a while; a broker may be down. The membership tries again.
			g.state.joining(fmt.Errorf("join consumer group %s: %w", g.cfg.Group, err))
			g.log.WarnContext(ctx, "joining the consumer group failed; trying again", slog.Any("error", err))
			continue
		}
		g.run(ctx, gen)
	}
}

// run starts the partitions of a generation. kafka-go ends the generation as soon as one function given to Start
// returns: the work does when the generation has ended and everything is finished, or when this member has to leave; the
// watch when there should be another generation.
func (g *Group) run(ctx context.Context, gen *kafkago.Generation) {
	g.metrics.rebalances.Inc()
	g.last = gen
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
	g.state.assigned(places, missing)
	g.log.InfoContext(ctx, "joined the consumer group", slog.Int("generation", int(gen.ID)), slog.Int("partitions", len(places)))
	started := make(chan struct{})
	gen.Start(func(over context.Context) {
		close(started)
		defer g.state.left()
		g.work(over, gen, places)
		g.log.InfoContext(ctx, "generation ended", slog.Int("generation", int(gen.ID)))
	})
	<-started
	gen.Start(g.watch)
}

// work runs the partitions of a generation until it is over, or a commit got no answer, and they have drained.
func (g *Group) work(over context.Context, gen *kafkago.Generation, places []place) { //nolint:contextcheck // draining outlives the generation
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
	var partitions sync.WaitGroup
	for _, p := range places {
		partitions.Go(func() { g.keep(soft, hard, committer, p) })
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

// leave has the broker forget the member, so that nothing is taken from it any more, until the broker has answered or the
// generation is over. A member that comes back with the same id has another generation, or is sent away again.
func (g *Group) leave(over context.Context, gen *kafkago.Generation) {
	delays := retry.New()
	for over.Err() == nil {
		res, err := g.client.LeaveGroup(over, &kafkago.LeaveGroupRequest{GroupID: gen.GroupID, Members: []kafkago.LeaveGroupRequestMember{{ID: gen.MemberID}}})
		if err == nil {
			err = res.Error
			for _, m := range res.Members {
				err = errors.Join(err, m.Error)
			}
		}
		if err == nil || errors.Is(err, kafkago.UnknownMemberId) {
			return
		}
		g.log.WarnContext(over, "leaving the group failed; trying again", slog.Any("error", err))
		_ = delays.Wait(over) // over is looked at above
	}
}

// goodbye has the broker forget the member, whose interrupted join kafka-go takes for the end of a membership that it need not leave.
// Otherwise the others would wait for it until its session has timed out.
func (g *Group) goodbye(ctx context.Context) {
	if g.last == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	_, err := g.client.LeaveGroup(ctx, &kafkago.LeaveGroupRequest{GroupID: g.last.GroupID, Members: []kafkago.LeaveGroupRequestMember{{ID: g.last.MemberID}}})
	if err != nil {
		g.log.InfoContext(ctx, "leaving the group got no answer; it goes on without this member when the session has timed out", slog.Any("reason", err))
	}
}

// keep runs one partition until soft is done, whatever happens to it: what is transient is tried again from the
// committed position, what stops a partition leaves the others alone.
func (g *Group) keep(soft, hard context.Context, committer *committer, at place) {
	log := g.log.With(slog.String("topic", at.topic), slog.Int("partition", at.id))
	delays := retry.New()
	for soft.Err() == nil {
		began := time.Now()
		err := g.session(soft, hard, committer, at, log)
		var moved *MovedError
		if errors.As(err, &moved) {
			continue
		}
		var stop *StopError
		var failure *FatalError
		switch {
		case err == nil || soft.Err() != nil:
			if err != nil {
				log.InfoContext(hard, "partition given up before its batch was finished; its next owner goes on from there", slog.Any("reason", err))
			}
		case errors.Is(err, ErrLost):
			log.InfoContext(hard, "partition lost", slog.Any("reason", err))
			<-soft.Done() // the heartbeat will notice as well, and a member without an answer leaves
		case errors.As(err, &stop):
			log.ErrorContext(hard, "partition stopped", slog.String("kind", stop.Kind), slog.Any("error", err))
			g.state.stopped(at.topic, at.id, stop)
			<-soft.Done()
		case errors.As(err, &failure):
			log.ErrorContext(hard, "consumer stopped", slog.Any("error", err))
			g.state.waiting(at.topic, at.id, writing, err)
			g.stop(failure)
			<-soft.Done()
		default:
			g.state.waiting(at.topic, at.id, writing, err)
			log.WarnContext(hard, "partition failed; starting it again from its committed offset", slog.Any("error", err))
			if time.Since(began) > time.Minute {
				delays.Reset()
			}
			_ = delays.Wait(soft) // soft is looked at above
		}
	}
}

// session runs one partition from its committed position. Its *MovedError: there is another position now.
func (g *Group) session(soft, hard context.Context, committer *committer, at place, log *slog.Logger) error {
	committed, err := g.position(soft, at)
	if err != nil {
		return err
	}
	bounds, err := Bounds(soft, g.client, at.topic, at.id)
	if err != nil {
		return err
	}
	p := &Partition{group: g, committer: committer, topic: at.topic, id: at.id, offset: committed.Offset, metadata: committed.Metadata, mark: committed.Mark,
		bounds: bounds, peers: g.state.count(), log: log}
	if p.mark.IsZero() {
		p.mark = g.read.of(at)
	}
	log.DebugContext(soft, "partition opened", slog.Int64("offset", committed.Offset), slog.String("metadata", committed.Metadata))
	err = p.run(soft, hard)
	var moved *MovedError
	if !errors.As(err, &moved) {
		return err
	}
	if moved.Cut {
		p.mark = Mark{}
		g.read.set(at, p.mark)
	}
	if err := p.Commit(hard, moved.To, moved.Metadata); err != nil {
		return err
	}
	return moved
}

// position reads what is committed. Without an offset the partition begins at the start of its log.
func (g *Group) position(ctx context.Context, at place) (Position, error) {
	all, err := Committed(ctx, g.client, g.cfg.Group, at.topic, []int{at.id})
	if err != nil {
		return Position{}, err
	}
	if p, named := all[at.id]; named && p.Offset >= 0 {
		return p, nil
	}
	log, err := Bounds(ctx, g.client, at.topic, at.id)
	return Position{Offset: log.From}, err
}
