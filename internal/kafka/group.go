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
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/health"
	"tenantflow/internal/logs"
	"tenantflow/internal/trace"
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
	Tracer  *trace.Tracer   // default: none
}

// Defaults of Config, which are also those of the settings.
const (
	DefaultSessionTimeout   = 30 * time.Second
	DefaultRebalanceTimeout = 60 * time.Second
	DefaultBatchRows        = 100_000
	DefaultBatchInterval    = time.Second
	DefaultBudget           = 128 << 20
)

func (c *Config) withDefaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.SessionTimeout, DefaultSessionTimeout)
	set(&c.RebalanceTimeout, DefaultRebalanceTimeout)
	set(&c.Drain, 20*time.Second)
	set(&c.BatchInterval, DefaultBatchInterval)
	set(&c.CommitIdle, 500*time.Millisecond)
	set(&c.CommitTimeout, 10*time.Second)
	if c.BatchRows == 0 {
		c.BatchRows = DefaultBatchRows
	}
	if c.Budget == nil {
		c.Budget = NewBudget(DefaultBudget)
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
	cfg      Config
	handler  BatchHandler
	client   *kafkago.Client
	letters  *DeadLetters
	results  *Results
	troubles *logs.Troubles
	lines    *logs.Lines
	budget   *Budget
	metrics  *Metrics
	state    *state
	log      *slog.Logger

	topology *topology

	stop func(error) // ends Run; set by Run

	// unanswered is the last generation that ended because a commit got no answer. Generations follow each other, so they
	// need no lock.
	unanswered generation

	clientID string      // of the membership's connections, and of no others
	haunted  atomic.Bool // a join has failed since the last generation, and may have left a ghost

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

		cfg:      cfg,
		handler:  handler,
		client:   client,
		letters:  NewDeadLetters(client, cfg.Group, log, cfg.Metrics.deadLetters).traced(cfg.Tracer),
		results:  NewResults(client).Traced(cfg.Tracer),
		troubles: logs.NewTroubles(log),
		lines:    logs.NewLines(log),
		budget:   cfg.Budget,
		metrics:  cfg.Metrics,
		state:    newState(cfg.Name, cfg.Health, cfg.Metrics),
		log:      log,
		clientID: fmt.Sprintf("tenantflow-%s-%s", cfg.Name, rand.Text()[:12]),
	}
}

// Run is a member of the group until ctx is done. Then it stops reading, finishes the batches under way within the
// drain time, commits, leaves the group and returns nil. An error means that a person has to act.
func (g *Group) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g.stop = func(err error) { cancel(err) }
	dialer, joining := newJoining(g.cfg.Dialer, g.beforeJoin)
	dialer.ClientID = g.clientID
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
	runErr := g.runGenerations(ctx, membership)
	cancel(runErr)
	<-ended
	g.goodbye(context.WithoutCancel(ctx))
	if c, ok := g.handler.(Closer); ok {
		closing, done := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		c.Close(closing)
		done()
	}
	g.topology.close()
	g.lines.Close()
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

const joinFailed = "joining the consumer group failed; trying again"

// runGenerations runs one generation of the group after the other.
func (g *Group) runGenerations(ctx context.Context, membership *kafkago.ConsumerGroup) error {
	for {
		gen, err := membership.Next(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, kafkago.ErrGroupClosed):
			return nil //nolint:nilerr // told to stop
		case err != nil && !kafkaTransient(err):
			return fatal("join consumer group %s: %w", g.cfg.Group, err)
		case err != nil:
			// A new cluster has no coordinator for a while; a broker may be down. The membership tries again.
			if !errors.Is(err, kafkago.RebalanceInProgress) { // then it keeps its id
				g.haunted.Store(true) // first of all, because the next join is not far
			}
			g.state.joining(fmt.Errorf("join consumer group %s: %w", g.cfg.Group, err))
			g.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: joinFailed, Err: err})
			continue
		}
		g.troubles.Over(ctx, joinFailed, "")
		g.startGeneration(ctx, gen)
	}
}
