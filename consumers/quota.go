package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/tier"
	"tenantflow/sinks/dragonfly"
)

// A QuotaSession counts the events of one partition: *dragonfly.Session. It is an interface so that a test can take one of
// the mechanisms out and see that it is missed.
type QuotaSession interface {
	Load(ctx context.Context) (dragonfly.Progress, error)
	Begin(ctx context.Context, p dragonfly.Progress, partitions int, now time.Time) error
	Move(ctx context.Context, from, to dragonfly.Progress) (dragonfly.Progress, error)
	Count(ctx context.Context, epoch int64, calls []dragonfly.Call) ([]dragonfly.Counted, error)
	Clear(ctx context.Context, due []dragonfly.Due) error
	Bucket() time.Duration
	Window() time.Duration
	Lateness() time.Duration
	Close()
}

// QuotaUsers says what is known of users: *directory.Directory. An error is transient.
type QuotaUsers interface {
	Resolve(ctx context.Context, users []string, out []*directory.Subscription) error
}

// A QuotaStep is a border between two steps of counting a batch. A process may die at any of them.
type QuotaStep string

// The steps of counting a batch, in their order.
const (
	QuotaFormed    QuotaStep = "formed"    // the batch is complete, in memory only
	QuotaAnnounced QuotaStep = "announced" // the progress says what is about to be counted
	QuotaCounted   QuotaStep = "counted"   // the scripts have run
	QuotaPublished QuotaStep = "published" // the threshold events are in their topic
	QuotaCleared   QuotaStep = "cleared"   // and no longer due
)

// QuotaConfig is what the quota consumer needs.
type QuotaConfig struct {
	// Session opens a session of a partition.
	Session func(topic string, partition int) QuotaSession
	Users   QuotaUsers
	Limits  events.UsageLimits

	// Topic is where threshold events go, prefix included.
	Topic string

	// Activity, if set, is told who was active.
	Activity *Activity

	// OnStep, if set, is called at each border between steps.
	OnStep func(QuotaStep)

	Registry prometheus.Registerer // nil: nowhere
}

// Quota is the handler that counts usage events against the quota of their users, each exactly once.
//
// For a batch, which is the range [b, c) of a partition: the progress kept beside the counters is moved from "done to b" to
// "done to b, perhaps counted to c"; the events are counted, one script call for a user and day, which leaves out what it
// has seen; threshold events that have become due are published and taken off the list. The next batch says "done to c".
//
// The progress is what decides where to go on, not the offset committed to Kafka: if the counters go back in time, so does
// the progress, and the partition follows.
type Quota struct {
	cfg     QuotaConfig
	metrics *quotaMetrics
}

// NewQuota returns the handler.
func NewQuota(cfg QuotaConfig) *Quota {
	if cfg.OnStep == nil {
		cfg.OnStep = func(QuotaStep) {}
	}
	return &Quota{cfg: cfg, metrics: newQuotaMetrics(cfg.Registry)}
}

// quotaPartition is one partition of usage events, to be counted.
type quotaPartition struct {
	*Partition
	quota   *Quota
	session QuotaSession
	state   dragonfly.Progress // as it stands in the store, as far as we know
	next    int64              // everything before it is counted
	decoder *events.UsageDecoder
	lost    bool // a script may have been applied in part
	// renewed: the connection is not the one on which the last batch was counted. The store may have been restarted from a state in
	// which that batch is announced, as it stands here, and not counted: nothing may be moved on from it before that is looked at.
	renewed bool

	// What the reader needs, all in milliseconds. The session is the writer's.
	lateness, bucket int64

	floor int64 // first day to count, since the Unix epoch

	// What Write uses again and again.
	users   []string
	known   []*directory.Subscription
	calls   []dragonfly.Call
	counted []dragonfly.Counted
	entries []quotaEntry
}

// Begin returns an empty batch.
func (p *quotaPartition) Begin() Batch {
	return &quotaBatch{partition: p, index: map[string]int32{}}
}

// End has nothing to give back: what a batch holds depends too much on its users.
func (p *quotaPartition) End(Batch) {}

// Close says that nothing is half counted, if that is so: whoever goes on, hours later perhaps, then needs no identities.
func (p *quotaPartition) Close(ctx context.Context) {
	if p.next == p.state.Pending && !p.state.Clean() && !p.renewed {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if _, err := p.session.Move(ctx, p.state, p.clean()); err != nil {
			p.Logger().InfoContext(ctx, "what was counted last could not be noted; it is counted again", slog.Any("reason", err))
		}
	}
	p.session.Close()
}

// clean is the progress that says that everything is counted and nothing half.
func (p *quotaPartition) clean() dragonfly.Progress {
	next := p.state
	next.Done, next.Pending, next.At = p.next, p.next, time.Now()
	return next
}

// Write counts a batch.
func (p *quotaPartition) Write(ctx context.Context, b Batch, r Range) error {
	batch, ok := b.(*quotaBatch)
	if !ok {
		return fmt.Errorf("count usage: not a quota batch: %T", b)
	}
	p.step(QuotaFormed)
	refused, err := p.judge(ctx, batch)
	if err != nil {
		return err
	}
	if err := p.mismatches(ctx, refused); err != nil {
		return err
	}
	delays := retryDelays()
	for announced := false; ; {
		if announced, err = p.try(ctx, r, announced); err == nil {
			break
		}
		for err != nil {
			if final(err) || ctx.Err() != nil {
				return err
			}
			p.Waiting(err)
			if pause(ctx, delays.NextBackOff()) != nil {
				return err
			}
			announced, err = p.recover(ctx, r)
		}
	}
	p.next = r.To
	p.quota.cfg.Activity.saw(batch.groups, p.known)
	p.quota.metrics.count(batch, p.counted, len(refused))
	return nil
}

// final tells whether an error ends the session: trying again would not help.
func final(err error) bool {
	var moved *movedError
	var stop *StopError
	var failure *FatalError
	return errors.As(err, &moved) || errors.As(err, &stop) || errors.As(err, &failure) || errors.Is(err, errLost)
}

// try announces and counts the batch that judge has made calls of. It tells whether it is announced.
func (p *quotaPartition) try(ctx context.Context, r Range, announced bool) (bool, error) {
	if !announced {
		if p.renewed {
			return false, errRenewed
		}
		next := p.state
		next.Done, next.Pending = r.From, p.pending(r)
		if p.state.Pending <= r.From {
			next.At = time.Now() // else a part of it may have been counted when that was announced
		}
		moved, err := p.session.Move(ctx, p.state, next)
		if err != nil {
			return false, p.reopen(ctx, r.From, err)
		}
		p.state = moved
	}
	p.step(QuotaAnnounced)
	p.counted = p.counted[:0]
	// In pieces of well below a millisecond, so that nobody who asks for a quota waits long for the server.
	const most = 24
	var due []dragonfly.Due
	for from := 0; from < len(p.calls); from += most {
		// Some of it may have been counted when it was announced. A store that was away for hours, or a range that had to wait
		// for something else, comes back to identities that have expired.
		if age := time.Since(p.state.At); age > p.session.Window() {
			p.Logger().WarnContext(ctx, "a range was announced so long ago that its identities may be forgotten: counting the day anew",
				slog.Int64("from", r.From), slog.Int64("to", p.state.Pending), slog.Duration("age", age))
			if err := p.begin(ctx, p.state, "window"); err != nil {
				return true, err
			}
			return true, p.reopen(ctx, r.From, dragonfly.ErrMoved)
		}
		answers, err := p.session.Count(ctx, p.state.Epoch, p.calls[from:min(from+most, len(p.calls))])
		if err != nil {
			p.lost = p.lost || errors.Is(err, dragonfly.ErrHalfApplied)
			return true, p.reopen(ctx, r.From, p.outrank(ctx, err))
		}
		for i := range answers {
			due = append(due, answers[i].Due...)
		}
		p.counted = append(p.counted, answers...)
	}
	p.step(QuotaCounted)
	if err := p.publish(ctx, due); err != nil {
		return true, err
	}
	return true, nil
}

// pending is up to where something may be counted when a batch is announced: a range that was found half counted may reach further.
func (p *quotaPartition) pending(r Range) int64 { return max(r.To, p.state.Pending) }

// errRenewed says that the progress has to be looked at before anything is done.
var errRenewed = errors.New("the connection to the counter store was renewed")

// reopen turns an error that says that the progress is another one into one that ends the session: Open sees what to do.
func (p *quotaPartition) reopen(ctx context.Context, offset int64, err error) error {
	switch {
	case errors.Is(err, dragonfly.ErrMoved):
		p.Logger().WarnContext(ctx, "the counter store is not in the state it was left in; finding out where to go on", slog.Any("reason", err))
		p.quota.metrics.moved.Inc()
		return &movedError{to: offset}
	case dragonfly.Classify(err) == dragonfly.Fatal:
		return &FatalError{Err: err}
	}
	return err
}

// recover begins another session after an error, and tells whether the batch is announced. If what stands in the store is
// neither what stood there before nor the announcement, the counters may have gone back in time: the partition is reopened.
func (p *quotaPartition) recover(ctx context.Context, r Range) (announced bool, err error) {
	p.session.Close()
	p.session = p.quota.cfg.Session(p.Topic(), p.ID())
	p.renewed = true
	found, err := p.session.Load(ctx)
	if err != nil {
		return false, err
	}
	if p.lost {
		if err := p.begin(ctx, found, "half_applied"); err != nil {
			return false, err
		}
		return false, p.reopen(ctx, r.From, dragonfly.ErrMoved)
	}
	switch {
	case found.New || found.Epoch != p.state.Epoch:
	case found.Done == r.From && found.Pending == p.pending(r):
		p.state, p.renewed = found, false // all of it is counted now, on this connection
		return true, nil
	case found.Same(p.state) && found.Clean():
		p.renewed = false
		return false, nil
	}
	// Also where the batch before this one is announced but not known to be done: the server may have been restarted
	// from a state in which it was not counted yet.
	return false, p.reopen(ctx, r.From, dragonfly.ErrMoved)
}

// Idle says that nothing is half counted, and looks whether the counters are what they were.
func (p *quotaPartition) Idle(ctx context.Context) error {
	err := func() error {
		if p.renewed {
			return errRenewed
		}
		// A range that was found half counted and is not counted to its end yet stays so: by then its identities may be forgotten.
		if !p.state.Clean() && p.next == p.state.Pending {
			moved, err := p.session.Move(ctx, p.state, p.clean())
			if err == nil {
				p.state = moved
			}
			return err
		}
		found, err := p.session.Load(ctx)
		if err == nil && !found.Same(p.state) {
			err = fmt.Errorf("look at the progress of %s/%d: %w", p.Topic(), p.ID(), dragonfly.ErrMoved)
		}
		return err
	}()
	if err == nil {
		p.Waiting(nil)
		return nil
	}
	if err = p.reopen(ctx, p.next, err); final(err) {
		return err
	}
	p.Waiting(err)
	if _, err := p.recover(ctx, Range{From: p.next, To: p.next}); final(err) {
		return err
	}
	return nil // the next look will tell
}

func (p *quotaPartition) step(s QuotaStep) { p.quota.cfg.OnStep(s) }

// judge makes calls of the groups of a batch, and returns those whose user belongs to another company, by the offsets of their events.
func (p *quotaPartition) judge(ctx context.Context, b *quotaBatch) (map[int64]*quotaGroup, error) {
	p.users, p.calls = p.users[:0], p.calls[:0]
	for i := range b.groups {
		p.users = append(p.users, b.groups[i].user)
	}
	for len(p.known) < len(p.users) {
		p.known = append(p.known, nil)
	}
	known := p.known[:len(p.users)]
	delays := retryDelays()
	for {
		err := p.quota.cfg.Users.Resolve(ctx, p.users, known)
		if err == nil {
			break
		}
		p.Waiting(err)
		if pause(ctx, delays.NextBackOff()) != nil {
			return nil, err
		}
	}
	refused := map[int64]*quotaGroup{}
	today := time.Now().UnixMilli() / dayMillis
	for i := range b.groups {
		g, sub := &b.groups[i], known[i]
		p.entries = b.of(g, p.entries)
		if sub != nil && sub.CompanyID != g.company {
			for _, e := range p.entries {
				refused[e.offset] = g
			}
			continue
		}
		limit := int64(tier.Unlimited)
		if sub != nil && sub.Tier != "" && g.day == today {
			limit = int64(sub.Limits.DailyAPICalls)
		}
		for from := 0; from < len(p.entries); from += dragonfly.MaxEvents {
			part := p.entries[from:min(from+dragonfly.MaxEvents, len(p.entries))]
			call := dragonfly.Call{User: g.user, Day: time.UnixMilli(g.day * dayMillis).UTC(), Bucket: g.bucket, Limit: limit,
				Identities: make([]uint64, len(part)), Points: make([]uint32, len(part)), Offsets: make([]int64, len(part))}
			for k, e := range part {
				call.Identities[k], call.Points[k], call.Offsets[k] = e.identity, e.points, e.offset
			}
			p.calls = append(p.calls, call)
		}
	}
	return refused, nil
}

// mismatches makes dead letters of refused events, whose records are read again. What the log no longer holds can't be one.
func (p *quotaPartition) mismatches(ctx context.Context, refused map[int64]*quotaGroup) error {
	const most = 8 << 20 // bytes held at a time: a batch may have been hundreds of megabytes in the log
	var letters []DeadLetter
	held := int64(0)
	publish := func() error {
		err := p.DeadLetter(ctx, letters)
		letters, held = letters[:0], 0
		return err
	}
	// Together: one tenant's mistake must not keep the others waiting.
	err := readOffsets(ctx, p.group.client, p.Topic(), p.ID(), slices.Collect(maps.Keys(refused)), func(r *events.Record) error {
		g := refused[r.Offset]
		letters = append(letters, DeadLetter{Record: CopyRecord(r), Attempts: 1,
			Rejection: events.Reject(events.TenantMismatch, "user %s does not belong to company %s; the event was not counted", g.user, g.company)})
		if held += recordBytes(r); held < most {
			return nil
		}
		return publish()
	})
	if err != nil {
		return fmt.Errorf("make dead letters of the events of users who belong to another company: %w", err)
	}
	return publish()
}
