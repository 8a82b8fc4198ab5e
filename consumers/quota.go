package consumers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/kafka"
	"tenantflow/internal/recent"
	"tenantflow/internal/tier"
	"tenantflow/sinks/dragonfly"
)

// A QuotaSession counts the events of one partition: *dragonfly.Session. It is an interface so that a test can take one of
// the mechanisms out and see that it is missed.
type QuotaSession interface {
	Look(ctx context.Context) (*dragonfly.State, error)
	Begin(ctx context.Context, doubted *dragonfly.State, above int64, next dragonfly.Epoch) error
	Note(ctx context.Context, p dragonfly.Progress) error
	Count(ctx context.Context, b dragonfly.Batch, calls []dragonfly.Call, into []dragonfly.Counted) ([]dragonfly.Counted, error)
	Clear(ctx context.Context, due []dragonfly.Due) error
	Lateness() time.Duration
	Close()
}

// QuotaUsers says what is known of users: *directory.Directory. An error is transient.
type QuotaUsers interface {
	// ResolveMembers also finds users who have left their company.
	ResolveMembers(ctx context.Context, users []string, out []*directory.Subscription) error
	// AppliedThrough returns a time for which the answers that begin now include every company event whose record is not newer.
	AppliedThrough() time.Time
}

// A QuotaStep is a border between two steps of counting a batch. A process may die at any of them.
type QuotaStep string

// The steps of counting a batch, in their order.
const (
	QuotaFormed    QuotaStep = "formed"    // the batch is complete, in memory only
	QuotaCounted   QuotaStep = "counted"   // the scripts have run
	QuotaPublished QuotaStep = "published" // the threshold events are in their topic
	QuotaCleared   QuotaStep = "cleared"   // and no longer due
	QuotaNoted     QuotaStep = "noted"     // the progress is in the sentinels; not with every batch
)

// QuotaConfig is what the quota consumer needs.
type QuotaConfig struct {
	// Session opens a session of a partition.
	Session func(topic string, partition int) QuotaSession
	Users   QuotaUsers
	Limits  events.UsageLimits

	// An event is a resend if one with the same identity lies before it in its partition, by no more than ResendWindow of
	// their record times and no more than ResendRecords offsets. Defaults: recent.DefaultWindow, recent.DefaultRecords.
	ResendWindow  time.Duration
	ResendRecords int

	// What can't be judged yet because company events are not applied up to it waits for at most DeferFor, and no more than DeferEvents of a
	// partition, some 64 bytes each; beyond that it counts. Defaults: 15s, 50000.
	DeferFor    time.Duration
	DeferEvents int

	// ReplayKey checks the proofs in the headers of replayed records, which are not counted. nil: all records are.
	ReplayKey events.ReplayKey

	// Tiers says at which thresholds events are published. Default: the built-in catalogue.
	Tiers *tier.Catalogue

	// Topic is where threshold events go, prefix included.
	Topic string

	// ShowUse, if set, receives what users have used, after each batch. It must not wait for anything.
	ShowUse func([]directory.Use)

	// Remembering, if set, is called with by how many bytes what partitions remember of resends has grown, or shrunk: memory that the
	// process needs beside its batches, and that the collector's limit must leave room for. Partitions call it at the same time.
	Remembering func(bytes int64)

	// Activity, if set, receives which users were active.
	Activity *Activity

	// OnStep, if set, is called at each border between steps.
	OnStep func(QuotaStep)

	Registry prometheus.Registerer // nil: nowhere
}

// Quota is the handler that counts usage events against the quota of their users, each exactly once.
//
// A batch is the range [b, c) of a partition. One script call for each user and day counts the events of that user and
// moves the user's watermark to c, in one step; threshold events that this makes due are published and marked as
// published. Once a second, the progress is noted in the sentinels, beside the counters.
//
// A user's day with an event that may belong to another company is put off for some seconds, until it is known; see
// quota_deferred.go. The progress then stays before it.
//
// That progress decides where a partition goes on, not the offset committed to Kafka: if the counters go back in time, so
// does the progress, and the partition follows. See [dragonfly] for the rules.
type Quota struct {
	cfg     QuotaConfig
	tiers   map[string]*dragonfly.Thresholds // of each tier of the catalogue
	metrics *quotaMetrics
	batches sync.Pool // of *quotaBatch, empty
}

// NewQuota returns the handler.
func NewQuota(cfg QuotaConfig) *Quota {
	if cfg.OnStep == nil {
		cfg.OnStep = func(QuotaStep) {}
	}
	if cfg.Remembering == nil {
		cfg.Remembering = func(int64) {}
	}
	cfg.ResendWindow = cmp.Or(cfg.ResendWindow, recent.DefaultWindow)
	cfg.ResendRecords = cmp.Or(cfg.ResendRecords, recent.DefaultRecords)
	cfg.DeferFor = cmp.Or(cfg.DeferFor, 15*time.Second)
	cfg.DeferEvents = cmp.Or(cfg.DeferEvents, 50_000)
	if cfg.Tiers == nil {
		cfg.Tiers = tier.Default()
	}
	return &Quota{cfg: cfg, tiers: thresholdsOf(cfg.Tiers), metrics: newQuotaMetrics(cfg.Registry)}
}

// quotaPartition is one partition of usage events, to be counted.
type quotaPartition struct {
	*kafka.Partition
	quota   *Quota
	session QuotaSession
	state   *dragonfly.State   // of the store, at the last look
	noted   dragonfly.Progress // in all sentinels, since the session was opened
	next    int64              // everything before it is counted
	record  dragonfly.Record   // the last known one before next
	tended  time.Time          // when the sentinels were looked at
	uses    []directory.Use    // scratch

	untilRead time.Time     // when the end of the log was read that a rebuild lasts to; zero: the partition has caught up since
	untilTook time.Duration // to come to the end that was read before; 0: there was none

	// The reader's.
	decoder  *events.UsageDecoder
	seen     *recent.Window
	reported int64 // bytes of seen, to Remembering
	lateness int64 // milliseconds

	deferred deferral

	// What Write uses again and again.
	users   []string
	known   []*directory.Subscription // of users
	through time.Time                 // company events up to here are in known
	calls   []dragonfly.Call
	heads   []int32 // the first group of each call
	entries []quotaEntry
	named   map[int64]string // reservations that they name, by offset
	counted []dragonfly.Counted
}

// Begin returns an empty batch.
func (p *quotaPartition) Begin() kafka.Batch {
	b, ok := p.quota.batches.Get().(*quotaBatch)
	if !ok {
		b = &quotaBatch{index: map[string]int32{}}
	}
	b.partition = p
	return b
}

// Release keeps the batch for another one, unless it has many users: emptying its index would cost small batches more than a new one.
func (b *quotaBatch) Release() {
	const many = 4096 // users and days
	if len(b.groups) <= many {
		free := &b.partition.quota.batches
		b.reset()
		free.Put(b)
	}
}

// Close notes the progress, so that the next owner need not look at what is counted.
func (p *quotaPartition) Close(ctx context.Context) {
	if p.moved(p.progress()) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		p.tended = time.Time{}
		if err := p.tend(ctx); err != nil {
			p.Line(ctx, slog.LevelInfo, "the progress could not be noted; the next owner reads the last second again", slog.Any("reason", err))
		}
	}
	p.session.Close()
	p.forget()
	p.quota.metrics.remembered.DeleteLabelValues(p.label())
	p.quota.metrics.deferred.DeleteLabelValues(p.label())
}

// Annotation is committed to Kafka with every offset.
func (p *quotaPartition) Annotation() string {
	return quotaMetadata{Epoch: p.state.Epoch.Number, Incarnation: p.noted.Incarnation}.String()
}

// Write counts the batch.
func (b *quotaBatch) Write(ctx context.Context, r kafka.Range) error {
	p := b.partition
	p.step(QuotaFormed)
	refused, err := p.judge(ctx, b)
	if err != nil {
		return err
	}
	if err := p.refuse(ctx, refused); err != nil {
		return err
	}
	if err := p.insist(ctx, func() error { return p.try(ctx, b, r) }); err != nil {
		return err
	}
	p.next = r.To
	if mark := p.Mark(); !mark.IsZero() && mark.Offset >= r.From && mark.Offset < r.To {
		p.record = dragonfly.Record{Offset: mark.Offset, Hash: mark.Hash}
	}
	p.quota.cfg.Activity.note(b.groups, p.known)
	p.quota.metrics.count(b, p.calls, p.counted, len(refused))
	p.quota.metrics.remembered.WithLabelValues(p.label()).Set(float64(b.remembered))
	if err := p.settleDeferred(ctx); err != nil {
		return err
	}
	return p.insist(ctx, func() error { return p.tend(ctx) })
}

// Idle counts what was put off, looks whether the counters are what they were, and notes what was counted last.
func (p *quotaPartition) Idle(ctx context.Context) error {
	if err := p.settleDeferred(ctx); err != nil {
		return err
	}
	err := p.insist(ctx, func() error { return p.tend(ctx) })
	if err == nil {
		p.Waiting(nil)
	}
	return err
}

// insist does something in the store until it is done, over another connection after every error, as long as the store is
// found as it was left. If it is not, the session ends, and Open finds out where to go on.
func (p *quotaPartition) insist(ctx context.Context, do func() error) error {
	again := false
	return p.KeepTrying(ctx, fatalForCounters, func() (err error) {
		if again {
			err = p.renew(ctx)
		}
		again = true
		if err == nil {
			err = do()
		}
		if errors.Is(err, dragonfly.ErrMoved) {
			return p.reopen(ctx, err)
		}
		return err
	})
}

// fatalForCounters reports whether waiting for the counter store would not help.
func fatalForCounters(err error) bool { return dragonfly.Classify(err) == dragonfly.Fatal }

// renew begins another session after an error. Nothing may be sent before a look: the store may have been restarted from
// an older state, and a watermark would be written over what is missing there.
func (p *quotaPartition) renew(ctx context.Context) error {
	p.session.Close()
	p.session = p.quota.cfg.Session(p.Topic(), p.ID())
	return p.look(ctx)
}

// look looks at the sentinels, and sees whether the store is as it was left.
func (p *quotaPartition) look(ctx context.Context) error {
	found, err := p.session.Look(ctx)
	if err != nil {
		return err
	}
	if err := p.compare(ctx, found); err != nil {
		return err
	}
	p.state = found
	return nil
}

// compare sees whether the store is as it was left. On another server the partition goes back with the progress; where the
// same one has less than it had, it has gone back under living connections, and calls may have been made over the gap.
func (p *quotaPartition) compare(ctx context.Context, found *dragonfly.State) error {
	same := found.SameServer(p.state)
	if same && found.Covers(p.state.Epoch.Number, p.noted.Offset) {
		return nil
	}
	if same && found.Doubt == "" && found.Epoch.Number == p.state.Epoch.Number {
		if err := p.begin(ctx, found, "went_back", 0); err != nil {
			return err
		}
	}
	return fmt.Errorf("look at the sentinels of %s/%d: %w", p.Topic(), p.ID(), dragonfly.ErrMoved)
}

// reopen ends the session because the store is not what it was. A counter of a later epoch shows that it has begun, which
// Open will see; or that it was lost, and then a later one is begun here.
func (p *quotaPartition) reopen(ctx context.Context, reason error) error {
	p.Line(ctx, slog.LevelWarn, "the counter store is not in the state it was left in; finding out where to go on", slog.Any("reason", reason))
	p.quota.metrics.moved.Inc()
	var later *dragonfly.LaterEpochError
	if errors.As(reason, &later) {
		found, err := p.session.Look(ctx)
		if err == nil && found.Doubt == "" && found.Epoch.Number < later.Epoch {
			err = p.begin(ctx, found, "epoch", later.Epoch)
		}
		if err != nil {
			p.Line(ctx, slog.LevelInfo, "a later epoch was not begun; it is tried again with the next call", slog.Any("reason", err))
		}
	}
	return &kafka.MovedError{To: p.next, Metadata: p.Annotation()}
}

// tendEvery is how often the sentinels are looked at, and the progress noted.
const tendEvery = time.Second

// tend looks at the sentinels and notes the progress in them, once a second.
func (p *quotaPartition) tend(ctx context.Context) error {
	if time.Since(p.tended) < tendEvery {
		return nil
	}
	if err := p.look(ctx); err != nil {
		return err
	}
	next, err := p.followLog(ctx, p.progress())
	if err != nil {
		return err
	}
	if p.moved(next) {
		if err := p.session.Note(ctx, next); err != nil {
			return err
		}
		p.noted = next
		p.step(QuotaNoted)
	}
	p.tended = time.Now()
	return nil
}

// progress is what may be noted: everything before next is counted, but for what was put off.
func (p *quotaPartition) progress() dragonfly.Progress {
	progress := p.noted
	progress.Offset, progress.Record = p.next, p.record
	if len(p.deferred.days) > 0 {
		progress.Offset = min(p.next, p.deferred.first())
		if p.next >= progress.Until { // what was lost is counted again; some seconds of a few users are no rebuild
			progress.Until = min(progress.Until, progress.Offset)
		}
	}
	return progress
}

// moved reports whether a progress says more than the one that is noted.
func (p *quotaPartition) moved(progress dragonfly.Progress) bool {
	return progress.Offset != p.noted.Offset || progress.Until != p.noted.Until
}

func (p *quotaPartition) step(s QuotaStep) { p.quota.cfg.OnStep(s) }
