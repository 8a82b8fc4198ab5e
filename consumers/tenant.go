package consumers

import (
	"context"
	"errors"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/internal/companyconfig"
	"tenantflow/internal/kafka"
	"tenantflow/internal/trace"
	"tenantflow/sinks/postgres"
)

// A TenantStore applies events to companies: *postgres.Tenants.
type TenantStore interface {
	Apply(ctx context.Context, e *events.Event, at postgres.Place) ([]postgres.Applied, error)
	Settled(ctx context.Context, all []*events.Event) ([]bool, error)
	MarkPublished(ctx context.Context, done []postgres.Applied) error
	Unpublishable(ctx context.Context, one *postgres.Applied, why error) error
	Due(ctx context.Context, partition int, by time.Time, limit int) ([]*events.Event, error)
	CompanyDue(ctx context.Context, partition int, by time.Time, limit int) ([]*events.Event, error)
	MarkDue(ctx context.Context, published []*events.Event) error
	CheckPartitions(ctx context.Context, topic string, partitions int) error
	Unpublished(ctx context.Context, age time.Duration, limit int) ([]postgres.Applied, error)
	Stranded(ctx context.Context, limit int) ([]string, error)
	Retry(ctx context.Context, limit int) ([]string, error)
	Drain(ctx context.Context, company string) ([]postgres.Applied, error)
	Blocked(ctx context.Context, limit int) ([]postgres.Block, error)
	GiveUp(ctx context.Context, ago time.Duration, limit int) ([]postgres.Applied, error)
	Backlog(ctx context.Context) (postgres.Backlog, error)
	Overridden(ctx context.Context) ([]postgres.OverriddenLimit, error)
	companyconfig.Source // of the same store
}

// TenantConfig is what the consumers of company and subscription events need.
type TenantConfig struct {
	Store       TenantStore
	Decoder     *events.Decoder
	TopicPrefix string
	// FutureTolerance is how far an event's time may lie ahead of its record's time, by the broker's clock, so that every delivery has
	// the same verdict. Default: events.DefaultTenantFuture.
	FutureTolerance time.Duration
	// Applied receives what was done before it is published. It may fill caches; what it does must not be needed.
	// Default: nothing does.
	Applied func(ctx context.Context, done []postgres.Applied)
	// Blocked receives, in words, which companies can't go on; empty: all can. For the sweeper; default: ignored.
	Blocked func(note string)
	// Companies follows the consumer of company events: no event is refused because its company is unknown while the company's
	// registration may be unread. For the sweeper; nil: they are refused when their time to wait is over.
	Companies *kafka.TopicReading
	// ReplayKey checks the proofs in the headers of replayed records, which may be meant for other consumers. nil: all are meant.
	ReplayKey events.ReplayKey
	// Step is called with where the consumer is. For tests; default: nothing is.
	Step func(TenantStep)
	// Metrics may be nil.
	Metrics *TenantMetrics
}

func (c *TenantConfig) withDefaults() {
	if c.FutureTolerance == 0 {
		c.FutureTolerance = events.DefaultTenantFuture
	}
	if c.Applied == nil {
		c.Applied = func(context.Context, []postgres.Applied) {}
	}
	if c.Step == nil {
		c.Step = func(TenantStep) {}
	}
	if c.Blocked == nil {
		c.Blocked = func(string) {}
	}
	if c.Metrics == nil {
		c.Metrics = NewTenantMetrics(nil)
	}
}

// A TenantStep is a place in the course of events where a process may die.
type TenantStep string

// The steps beside those of postgres.TenantStep.
const (
	TenantApplied   TenantStep = "applied"   // events are done, and nothing of them is published
	TenantPublished TenantStep = "published" // their results are, and that is not noted
	TenantMarked    TenantStep = "marked"    // it is noted; the offset is not committed
	// TenantDuePublished: what is due is in the log, and that is not noted.
	TenantDuePublished TenantStep = "due_published"
)

// How long results may wait for those of events behind them, to be published together.
const (
	publishTogether = 100
	publishWithin   = 50 * time.Millisecond
)

// A tenantPartition is a partition of company or subscription events.
type tenantPartition struct {
	*kafka.Partition
	config TenantConfig
	effect string // its name in the header replay-effects
	// due looks for what is due; nil: not this partition's business.
	due *dueWatch

	done  []postgres.Applied // not published
	spans []trace.Context    // that did them; empty: nothing is traced
	since time.Time          // when the first of them was done
}

func (p *tenantPartition) Begin() kafka.Batch { return &tenantBatch{partition: p} }

type tenantBatch struct {
	kafka.Records
	partition *tenantPartition
}

// openTenant begins a partition whose companies all others must leave alone: each company has one partition for as long as
// their number does not change.
func openTenant(ctx context.Context, p *kafka.Partition, config TenantConfig, effect string) (*tenantPartition, error) {
	n, err := p.PartitionCount(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	t := &tenantPartition{Partition: p, config: config, effect: effect}
	err = t.keepTrying(ctx, func() error {
		err := config.Store.CheckPartitions(ctx, p.Topic(), n)
		var other *postgres.PartitionsError
		if errors.As(err, &other) {
			return &kafka.StopError{Kind: "partition_count_changed", Err: err}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Write applies events one after the other, each in a transaction of its own, and publishes their results together.
func (b *tenantBatch) Write(ctx context.Context, _ kafka.Range) error {
	p := b.partition
	decoded := make([]*events.Event, len(b.All))
	var letters []kafka.DeadLetter
	for i := range b.All {
		e, err := p.config.Decoder.Decode(&b.All[i])
		var rejection *events.Rejection
		switch {
		case err == nil && skipsReplayed(&b.All[i], p.effect, p.config.ReplayKey, []byte(e.Source), []byte(e.ID)):
			p.config.Metrics.repeated.Inc()
		case err == nil:
			trace.Complete(&e.Envelope, &b.All[i])
			decoded[i] = e
		case errors.As(err, &rejection):
			letters = append(letters, kafka.DeadLetter{Record: b.All[i], Rejection: rejection, Attempts: 1})
		default:
			return err
		}
	}
	var settled []bool
	if err := p.keepTrying(ctx, func() (err error) {
		settled, err = p.config.Store.Settled(ctx, identified(decoded))
		return err
	}); err != nil {
		return err
	}
	for i, e := range decoded {
		if e == nil {
			continue
		}
		if settled[i] {
			p.config.Metrics.repeated.Inc()
			continue
		}
		// What is due before its time has no effect, which is for the rules to say.
		var rejection *events.Rejection
		if events.IsDue(e.Type) || !errors.As(e.CheckTime(b.All[i].Time, p.config.FutureTolerance), &rejection) {
			var err error
			if rejection, err = p.apply(ctx, e, &b.All[i]); err != nil {
				return err
			}
		}
		if rejection != nil {
			letters = append(letters, kafka.DeadLetter{Record: b.All[i], Rejection: rejection, Attempts: 1})
		}
		if err := p.publish(ctx, false); err != nil {
			return err
		}
	}
	if len(letters) > 0 {
		if err := p.DeadLetter(ctx, letters); err != nil {
			return err
		}
	}
	if p.due != nil && len(b.All) > 0 {
		if err := p.dueWhileBusy(ctx, b.All[len(b.All)-1].Time); err != nil {
			return err
		}
	}
	return p.publish(ctx, true)
}

// identified are the events whose identity says whether they are done. What is due may be due again.
func identified(all []*events.Event) []*events.Event {
	some := slices.Clone(all)
	for i, e := range some {
		if e != nil && events.IsDue(e.Type) {
			some[i] = nil
		}
	}
	return some
}

// apply applies one event, for as long as it takes. What can't be applied at all comes back as a rejection.
func (p *tenantPartition) apply(ctx context.Context, e *events.Event, r *events.Record) (*events.Rejection, error) {
	var rejection *events.Rejection
	ctx, span := p.Tracer().Apply(ctx, e.Type, r)
	err := p.keepTrying(ctx, func() error {
		began := time.Now()
		done, err := p.config.Store.Apply(ctx, e, postgres.Place{Partition: p.ID(), Offset: r.Offset, Appended: r.Time})
		p.take(done, span)
		if errors.As(err, &rejection) {
			return nil
		}
		if err == nil {
			p.config.Metrics.applied(e.Type, time.Since(began))
		}
		return err
	})
	span.End(err)
	return rejection, err
}

// take has results published with the others.
func (p *tenantPartition) take(done []postgres.Applied, span trace.Span) {
	if len(done) == 0 {
		return
	}
	if len(p.done) == 0 {
		p.since = time.Now()
	}
	p.done = append(p.done, done...)
	if p.Tracer() != nil {
		p.spans = append(p.spans, slices.Repeat([]trace.Context{span.Context()}, len(done))...)
	}
}

// publish publishes what is done, and notes it: all that there is, or only if it has been kept for long enough.
func (p *tenantPartition) publish(ctx context.Context, all bool) error {
	if len(p.done) == 0 || !all && len(p.done) < publishTogether && time.Since(p.since) < publishWithin {
		return nil
	}
	p.config.Step(TenantApplied)
	p.config.Applied(ctx, p.done)
	ctx, cancel := outlive(ctx)
	defer cancel()
	results := p.config.results(p.done, p.spans)
	if err := p.config.inOrder(ctx, results, p.Publish); err != nil {
		return err
	}
	p.config.Step(TenantPublished)
	if err := p.keepTrying(ctx, func() error { return p.config.published(ctx, p.done, results, p.Publish) }); err != nil {
		return err
	}
	p.config.Step(TenantMarked)
	p.config.Metrics.published(p.done)
	p.done, p.spans = nil, nil
	return nil
}

// results are the events of what is done, in order. spans are those that did it; empty: it was done elsewhere, or nothing is traced.
func (c *TenantConfig) results(done []postgres.Applied, spans []trace.Context) []kafka.Result {
	var all []kafka.Result
	for i, one := range done {
		var by trace.Context
		if len(spans) > 0 {
			by = spans[i]
		}
		for _, r := range one.Results {
			all = append(all, kafka.Result{Topic: c.TopicPrefix + r.Topic, Key: r.Key, Event: r.Event, Partition: r.Partition, Everywhere: r.Everywhere, Span: by})
		}
	}
	return all
}

// inOrder publishes first what this service itself will read, so that it is in the log when a result is read. So what a publisher sends
// after it has read that a company is closed stands behind the end of its subscription.
func (c *TenantConfig) inOrder(ctx context.Context, results []kafka.Result, publish func(context.Context, []kafka.Result) error) error {
	var inputs, others []kafka.Result
	for _, r := range results {
		switch r.Topic {
		case c.TopicPrefix + events.TopicSubscription, c.TopicPrefix + events.TopicUsage:
			inputs = append(inputs, r)
		default:
			others = append(others, r)
		}
	}
	for _, some := range [][]kafka.Result{inputs, others} {
		if len(some) == 0 {
			continue
		}
		if err := publish(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

// outlive gives a publication that was begun some seconds to its end when ctx is done: what was given up may still be published, by the client
// or the broker, and that must not be the last of a company if there is something newer.
func outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	const longer = 2 * time.Second
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(longer, cancel) })
	return own, func() {
		stop()
		cancel()
	}
}

// published notes that results are published, once no newer configuration of a company lies before one of theirs.
func (c *TenantConfig) published(ctx context.Context, done []postgres.Applied, results []kafka.Result, publish func(context.Context, []kafka.Result) error) error {
	topic := c.TopicPrefix + events.TopicCompanyConfig
	if err := companyconfig.Settle(ctx, c.Store, topic, companyconfig.Published(results, topic), publish); err != nil {
		return err
	}
	return c.Store.MarkPublished(ctx, done)
}

// keepTrying does something again until it does not fail, unless waiting would not mend that.
func (p *tenantPartition) keepTrying(ctx context.Context, do func() error) error {
	err := p.KeepTrying(ctx, func(err error) bool { return postgres.Classify(err) == postgres.Fatal }, do)
	if err == nil {
		p.Waiting(nil)
	}
	return err
}
