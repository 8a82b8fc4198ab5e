package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/logs"
	"tenantflow/internal/tenant"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/postgres"
)

// A VoidStore keeps and decides requests to take usage back: *postgres.Tenants.
type VoidStore interface {
	ClaimVoids(ctx context.Context, limit int, lease time.Duration) ([]postgres.VoidRequest, error)
	DecideVoid(ctx context.Context, r *postgres.VoidRequest, usage *tenant.StoredUsage) (*postgres.Applied, error)
	DeferVoids(ctx context.Context, requests []postgres.VoidRequest, why string) error
	VoidBacklog(ctx context.Context) (postgres.VoidBacklog, error)
}

// UsageRows looks usage up: *clickhouse.Store.
type UsageRows interface {
	FindUsage(ctx context.Context, wanted []clickhouse.EventKey) ([]*clickhouse.StoredUsage, error)
}

// A UsageLog says how far usage events are stored, and reads their records: *kafka.StoredLog.
type UsageLog interface {
	Topic() string
	HasPartition(ctx context.Context, id int) (bool, error)
	Look(ctx context.Context) (kafka.Reach, error)
	Record(ctx context.Context, partition int, offset int64, each func(*events.Record)) error
}

// VoidConfig is what Voids need beside what all of the tenant consumers do.
type VoidConfig struct {
	Tenants TenantConfig
	Store   VoidStore
	// Rows opens the look-up of usage, which is tried again until it succeeds; what it returns stays the caller's. nil: this process looks
	// nothing up, and says what waits.
	Rows func(ctx context.Context) (UsageRows, error)
	Log  UsageLog
	// Note receives, in words, what keeps requests from being decided; empty: nothing does. Default: ignored.
	Note    func(string)
	Metrics *VoidMetrics // nil: none
	Logger  *slog.Logger
}

const (
	// voidInterval is how often a process looks for requests to take usage back.
	voidInterval = 500 * time.Millisecond
	// voidsAtOnce is how many are looked up together.
	voidsAtOnce = 200
	// voidLease is how long no other process gets a request that is looked up. Two at once do no harm.
	voidLease = 30 * time.Second
	// voidPatience is how long one look-up may take.
	voidPatience = 10 * time.Second
	// voidFailures is how many requests may fail one by one before the others are put off as well: each may cost a timeout.
	voidFailures = 3
	// voidOverdue is how long a request waits before that is said of the service's readiness.
	voidOverdue = time.Minute
)

// Steps of a request to take usage back, where a process may die; beside those of an event.
const (
	VoidClaimed TenantStep = "void_claimed" // nothing is looked up
	VoidLooked  TenantStep = "void_looked"  // the usage is found or known to be missing; nothing is decided
)

// Voids decides requests to take usage back. The company consumer puts them down and goes on, so what is slow here, ClickHouse, the
// usage consumer or Kafka, holds up no other event. Every process of the company consumer has one: each request is decided once,
// under its company's lock.
//
// A request is refused for an unknown usage only when all usage that came before it is stored. Until then it waits.
type Voids struct {
	config   VoidConfig
	results  *kafka.Results
	rows     UsageRows
	troubles *logs.Troubles
}

// NewVoids returns one that publishes with the given publisher, which stays the caller's.
func NewVoids(config VoidConfig, results *kafka.Results) *Voids {
	config.Tenants.withDefaults()
	if config.Note == nil {
		config.Note = func(string) {}
	}
	if config.Metrics == nil {
		config.Metrics = NewVoidMetrics(nil)
	}
	return &Voids{config: config, results: results, troubles: logs.NewTroubles(config.Logger)}
}

// What the log says of requests to take usage back that can't be decided.
const voidsFailed = "requests to take usage back can't be decided now; they wait, and nothing else does"

// Run decides requests until ctx is done. What fails is logged and tried again.
func (v *Voids) Run(ctx context.Context) {
	tick := time.NewTicker(voidInterval)
	defer tick.Stop()
	for {
		err := v.work(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			v.troubles.Over(ctx, voidsFailed, "")
		default:
			v.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: voidsFailed, Err: err})
		}
		v.report(ctx, err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// report tells metrics and readiness what waits.
func (v *Voids) report(ctx context.Context, failed error) {
	backlog, err := v.config.Store.VoidBacklog(ctx)
	if err != nil {
		return // the company consumer says what is wrong with Postgres
	}
	v.config.Metrics.backlog(backlog)
	note := ""
	switch {
	case backlog.Waiting == 0:
	case v.config.Rows == nil:
		note = "this process has no TENANTFLOW_CLICKHOUSE_DSN to look usage up, which another has to do"
	case failed != nil:
		note = failed.Error()
	case backlog.Oldest > voidOverdue:
		note = backlog.Why
	}
	if note != "" {
		note = fmt.Sprintf("%d requests to take usage back wait, the oldest for %s: %s", backlog.Waiting, backlog.Oldest.Round(time.Second), note)
	}
	v.config.Note(note)
}

// work decides everything that can be decided now.
func (v *Voids) work(ctx context.Context) error {
	if v.config.Rows == nil {
		return nil
	}
	for {
		requests, err := v.config.Store.ClaimVoids(ctx, voidsAtOnce, voidLease)
		if err != nil || len(requests) == 0 {
			return err
		}
		v.config.Tenants.Step(VoidClaimed)
		if err := v.decide(ctx, requests); err != nil {
			return err
		}
		if len(requests) < voidsAtOnce {
			return nil
		}
	}
}

// A lookedUp is a request whose usage was looked up; nil: there is none.
type lookedUp struct {
	request *postgres.VoidRequest
	usage   *clickhouse.StoredUsage
}

// decide looks up the usage of requests, and decides those of which it is known.
func (v *Voids) decide(ctx context.Context, requests []postgres.VoidRequest) error {
	known, wait, why, err := v.lookUp(ctx, requests)
	if err != nil {
		return errors.Join(err, v.config.Store.DeferVoids(ctx, requests, err.Error()))
	}
	if err := v.config.Store.DeferVoids(ctx, wait, why); err != nil {
		return err
	}
	v.config.Tenants.Step(VoidLooked)
	var done []postgres.Applied
	var failed []error // of one request each: the others go on
	for i, one := range known {
		applied, err := v.decideOne(ctx, one)
		if err == nil {
			if applied != nil {
				v.config.Metrics.decided(applied)
				done = append(done, *applied)
			}
			continue
		}
		failed = append(failed, err)
		late := []postgres.VoidRequest{*one.request}
		if len(failed) == voidFailures {
			for _, rest := range known[i+1:] {
				late = append(late, *rest.request)
			}
		}
		if err := v.config.Store.DeferVoids(ctx, late, err.Error()); err != nil {
			failed = append(failed, err)
			break
		}
		if len(failed) == voidFailures {
			break
		}
	}
	return errors.Join(append(failed, v.publish(ctx, done))...)
}

// decideOne decides a request whose usage was looked up.
func (v *Voids) decideOne(ctx context.Context, one lookedUp) (*postgres.Applied, error) {
	usage, err := v.usage(ctx, one)
	if err != nil {
		return nil, err
	}
	return v.config.Store.DecideVoid(ctx, one.request, usage)
}

// lookUp finds the usage that requests take back. What is not found, and may be still to be stored, has to wait; why says for what.
//
// The order matters: how far usage is stored is asked before it is looked up for the last time, so that nothing is stored in between that
// is taken for unknown.
func (v *Voids) lookUp(ctx context.Context, requests []postgres.VoidRequest) (known []lookedUp, wait []postgres.VoidRequest, why string, err error) {
	ctx, cancel := context.WithTimeout(ctx, voidPatience)
	defer cancel()
	if v.rows == nil {
		if v.rows, err = v.config.Rows(ctx); err != nil {
			return nil, nil, "", err
		}
	}
	found, err := v.rows.FindUsage(ctx, keysOf(requests))
	if err != nil {
		return nil, nil, "", err
	}
	var missing []postgres.VoidRequest
	for i := range requests {
		if found[i] != nil {
			known = append(known, lookedUp{&requests[i], found[i]})
		} else {
			missing = append(missing, requests[i])
		}
	}
	if len(missing) == 0 {
		return known, nil, "", nil
	}
	reach, err := v.config.Log.Look(ctx)
	if err != nil {
		return nil, nil, "", fmt.Errorf("ask how far usage events are stored: %w", err)
	}
	var last []postgres.VoidRequest
	for _, r := range missing {
		if reach.Covers(r.Appended) {
			last = append(last, r)
		} else {
			wait = append(wait, r)
		}
	}
	if found, err = v.rows.FindUsage(ctx, keysOf(last)); err != nil {
		return nil, nil, "", err
	}
	for i := range last {
		known = append(known, lookedUp{&last[i], found[i]})
	}
	return known, wait, "usage events are stored " + reach.String(), nil
}

func keysOf(requests []postgres.VoidRequest) []clickhouse.EventKey {
	keys := make([]clickhouse.EventKey, len(requests))
	for i, r := range requests {
		keys[i] = clickhouse.EventKey{Source: r.Asks.UsageSource, ID: r.Asks.UsageID, Company: r.Asks.CompanyID, User: r.Asks.UserID,
			Timestamp: r.Asks.Timestamp.UnixMilli()}
	}
	return keys
}

// usage makes what the rules know of a usage, with what its record says: its key, which leads to the partition that counts it, and its time,
// by which it was judged. The log keeps records for days: for one that is gone, the usage's own time stands, by which it is never too late
// and never in the future, and the counters of its day are gone with it.
func (v *Voids) usage(ctx context.Context, one lookedUp) (*tenant.StoredUsage, error) {
	u, asks := one.usage, one.request.Asks
	if u == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, voidPatience)
	defer cancel()
	s := &tenant.StoredUsage{Void: events.UsageVoided{
		CompanyID: asks.CompanyID, UserID: asks.UserID, Tier: u.Tier, Service: u.Service, Endpoint: u.Endpoint,
		Timestamp: asks.Timestamp, DataPoints: u.DataPoints, ProcessingTime: u.ProcessingTime, BillingPeriod: u.BillingPeriod, Revenue: u.Revenue,
		VoidsSource: asks.UsageSource, VoidsID: asks.UsageID, VoidsRecordedAt: asks.Timestamp,
	}}
	if u.Topic != v.config.Log.Topic() {
		return s, nil // of another log, as after a change of the prefix: by its key
	}
	there, err := v.config.Log.HasPartition(ctx, u.Partition)
	if err != nil || !there {
		return s, err
	}
	s.Partition = &u.Partition
	err = v.config.Log.Record(ctx, u.Partition, u.Offset, func(r *events.Record) {
		e, err := events.ParseEnvelope(r)
		if err != nil || e.Source != asks.UsageSource || e.ID != asks.UsageID {
			return // the topic was made again, and holds something else there
		}
		s.Key, s.Void.VoidsRecordedAt = string(r.Key), r.Time.UTC()
		s.Void.Uncounted = skipsReplayed(r, quotaEffect, v.config.Tenants.ReplayKey, []byte(e.Source), []byte(e.ID))
	})
	if err != nil {
		return nil, fmt.Errorf("read the record of usage: %w", err)
	}
	return s, nil
}

// publish publishes what is decided, and notes it. What is not noted is published by the sweep.
func (v *Voids) publish(ctx context.Context, done []postgres.Applied) error {
	if len(done) == 0 {
		return nil
	}
	c := &v.config.Tenants
	c.Step(TenantApplied)
	c.Applied(ctx, done)
	ctx, cancel := outlive(ctx)
	defer cancel()
	publish := func(ctx context.Context, results []kafka.Result) error {
		return v.results.PublishFitting(ctx, results, func(error) {})
	}
	done, err := c.publishEach(ctx, done, c.Step, publish)
	if err != nil {
		return err
	}
	c.Step(TenantMarked)
	c.Metrics.published(done)
	return nil
}
