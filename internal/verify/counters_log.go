package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/recent"
	"tenantflow/sinks/dragonfly"
)

// A tally is what a partition has counted of a user's day, and what it should have.
type tally struct {
	share *dragonfly.Share // as it is stored; nil: there is none

	// Of the log, before the share's watermark: what must be counted, less what must be taken back, and what may be counted or taken back.
	must, may, back sums
	// The voids among it. One that stands there again takes nothing back.
	voids map[uint64]bool
	// Before the partition's progress, and not before the watermark: such an event is missing.
	missing int64
}

// sums are events and the sum of their data points.
type sums struct{ calls, points int64 }

func (e *sums) add(sign int8, points uint32) {
	e.calls += int64(sign)
	e.points += int64(sign) * int64(points)
}

// between reports whether a sum is what must be counted with none, some or all of what may be counted or taken back (less than 0).
func between(got, must, may, back int64) bool { return got >= must+back && got <= must+may }

// repeats notes a void, and reports whether it was there before.
func (t *tally) repeats(void uint64) bool {
	if t.voids[void] {
		return true
	}
	if t.voids == nil {
		t.voids = map[uint64]bool{}
	}
	t.voids[void] = true
	return false
}

var errCounted = errors.New("everything that is counted is read")

// partition reads the log of a partition as the service does, and compares what it has counted. The verdicts are functions of the
// log alone: whether an event can be understood, is a resend, or came too late.
func (c *counterCheck) partition(ctx context.Context, id int, state *dragonfly.State, refused map[int64]struct{}) error {
	v, counting := c.v, c.v.cfg.Counting
	progress := state.Lowest
	if progress.Incarnation > 0 {
		return unproven("the log of partition %d was exchanged while it was counted: what was counted of it is not known", id)
	}
	log, err := kafka.Bounds(ctx, v.cfg.Client, v.cfg.Topic, id)
	if err != nil {
		return err
	}
	c.counted.Uncounted += max(0, log.To-max(progress.Offset, log.From))
	to := progress.Offset
	for _, t := range c.shares[id] {
		if t.share != nil && t.share.Watermark <= log.To {
			to = max(to, t.share.Watermark)
		}
	}
	// Twice the window of resends before the first record that may be of the first day.
	first := c.from.Add(-counting.Limits.FutureTolerance)
	from, err := kafka.OffsetAt(ctx, v.cfg.Client, v.cfg.Topic, id, first, log.To)
	if err != nil {
		return err
	}
	earlier, err := kafka.OffsetAt(ctx, v.cfg.Client, v.cfg.Topic, id, first.Add(-2*counting.ResendWindow), log.To)
	if err != nil {
		return err
	}
	from = max(log.From, min(from, max(earlier, from-int64(counting.ResendRecords))))
	p := &partitionTally{
		c: c, id: id, log: log, progress: progress.Offset, rebuilt: state.Epoch.Day, refused: refused,
		decoder: events.NewUsageDecoder(counting.Limits),
		seen:    recent.NewWindow(int64(counting.ResendRecords), int64(counting.ResendWindow/time.Second)),
	}
	if err := kafka.ReadLog(ctx, v.cfg.Client, v.cfg.Topic, id, kafka.Range{From: from, To: to}, p.record); err != nil {
		return fmt.Errorf("compare the counters of %s/%d: %w", v.cfg.Topic, id, err)
	}
	if log, err = kafka.Bounds(ctx, v.cfg.Client, v.cfg.Topic, id); err != nil {
		return err
	}
	if log.From > from {
		return unproven("the log of partition %d was cut while it was read; run verify again", id)
	}
	whole, err := c.whole(ctx, id, log)
	if err != nil {
		return err
	}
	p.judge(whole)
	delete(c.shares, id)
	return nil
}

// whole is the first day of which the log of a partition holds all events, and what is needed to recognise their resends.
func (c *counterCheck) whole(ctx context.Context, id int, log kafka.Range) (time.Time, error) {
	if log.From == 0 {
		return c.from, nil
	}
	var begins time.Time
	err := kafka.ReadLog(ctx, c.v.cfg.Client, c.v.cfg.Topic, id, log, func(r *events.Record) error {
		begins = r.Time
		return errCounted
	})
	if err != nil && !errors.Is(err, errCounted) {
		return begins, fmt.Errorf("read the first record of %s/%d: %w", c.v.cfg.Topic, id, err)
	}
	if begins.IsZero() {
		return c.from, nil // there is no record at all
	}
	whole := begins.Add(c.v.cfg.Counting.Limits.FutureTolerance + 2*c.v.cfg.Counting.ResendWindow).Truncate(day).Add(day)
	if whole.Before(c.from) {
		return c.from, nil
	}
	return whole, nil
}

// A partitionTally adds up what a partition should have counted.
type partitionTally struct {
	c        *counterCheck
	id       int
	log      kafka.Range
	progress int64
	rebuilt  time.Time // the first day of the last rebuild: of days before, no counter is made
	refused  map[int64]struct{}
	decoder  *events.UsageDecoder
	seen     *recent.Window
	usage    events.Usage
	read     int64

	uncounted map[uint64]bool // identities of usage that may not have been counted: what takes it back may have done nothing
}

// record takes a record in.
func (p *partitionTally) record(r *events.Record) error {
	if p.read++; p.read%65536 == 0 {
		p.c.v.cfg.Progress(Progress{Stage: "counters", Done: r.Offset, Total: p.log.To, Differences: p.c.findings.differences()})
	}
	if err := p.decoder.Decode(r, r.Time, &p.usage); err != nil {
		return nil //nolint:nilerr // it does not count
	}
	key := p.c.v.cfg.Counting.ReplayKey
	replayed, ok := events.ReadReplayed(r.Headers)
	switch ok = ok && !replayed.Names("quota"); {
	case ok && key == nil:
		p.event(r, true)
	case ok && key.Proven(&replayed, string(p.usage.Source), string(p.usage.ID)):
	default:
		p.event(r, false)
	}
	return nil
}

// event takes an event in that can be understood: others do not count. Nor, perhaps, does one that is unsure.
func (p *partitionTally) event(r *events.Record, unsure bool) {
	u := &p.usage
	identity := u.IdentityHash()
	again := !unsure && p.seen.Add(identity, r.Offset, r.Time.Unix())
	of := time.UnixMilli(u.Timestamp).UTC().Truncate(day)
	recorded := time.UnixMilli(u.RecordedAt(r.Time))
	if again || u.TakesNothingOff() || of.Before(p.c.from) || !recorded.Before(of.Add(day+p.c.v.cfg.Counting.Store.Lateness)) {
		return
	}
	optional := unsure || p.optional(r.Offset, identity)
	key := userDay{string(u.UserID), of.Unix() / int64(day/time.Second)}
	known := p.c.shares[p.id][key]
	if r.Offset >= p.progress && (known == nil || known.share == nil || r.Offset >= known.share.Watermark) {
		return // not counted yet
	}
	t := p.c.of(p.id, key)
	void := u.Voids != nil
	if void && (t.share == nil || t.repeats(identity)) {
		return // alone it makes no share
	}
	switch {
	case t.share != nil && r.Offset < t.share.Watermark && optional && void:
		t.back.add(-1, u.DataPoints)
	case t.share != nil && r.Offset < t.share.Watermark && optional:
		// It was refused in one count; in another, the user may have been unknown.
		t.may.add(1, u.DataPoints)
	case t.share != nil && r.Offset < t.share.Watermark:
		t.must.add(u.Sign(), u.DataPoints)
	case !optional:
		t.missing++
	}
}

// optional reports whether the event at hand may have been left out, or, if it is a void, its usage.
func (p *partitionTally) optional(offset int64, identity uint64) bool {
	if v := p.usage.Voids; v != nil {
		return p.uncounted[events.IdentityHash(v.Source, v.ID)]
	}
	if _, refused := p.refused[offset]; !refused {
		return false
	}
	if p.uncounted == nil {
		p.uncounted = map[uint64]bool{}
	}
	p.uncounted[identity] = true
	return true
}

// judge compares all shares of the partition, of days from one on.
func (p *partitionTally) judge(whole time.Time) {
	c := p.c
	for key, t := range c.shares[p.id] {
		of := time.Unix(key.day*int64(day/time.Second), 0).UTC()
		if of.Before(whole) {
			c.counted.NotInLog++
			continue
		}
		c.counted.Shares++
		c.counted.Events += t.must.calls
		kind, detail := WrongCounter, ""
		s := t.share
		switch {
		case s == nil && t.missing == 0:
			continue // all its events were refused
		case s == nil && of.Before(p.rebuilt):
			kind = LeftOut
			detail = fmt.Sprintf("partition %d has counted nothing, and the log has %d calls before offset %d; when counters were rebuilt from %s on there was none, or it was deleted since",
				p.id, t.missing, p.progress, p.rebuilt.Format(time.DateOnly))
		case s == nil:
			detail = fmt.Sprintf("partition %d has counted nothing, and the log has %d calls before offset %d", p.id, t.missing, p.progress)
		case s.Watermark > p.log.To:
			detail = fmt.Sprintf("partition %d is counted up to %d, and its log ends at %d", p.id, s.Watermark, p.log.To)
		case t.missing > 0:
			detail = fmt.Sprintf("partition %d has counted %d calls up to offset %d, and the log has %d more before %d, which it has counted", p.id, s.Calls, s.Watermark, t.missing, p.progress)
		case !between(s.Calls, t.must.calls, t.may.calls, t.back.calls) || !between(s.Points, t.must.points, t.may.points, t.back.points):
			detail = fmt.Sprintf("partition %d has counted %d calls and %d data points, and the log has %d and %d before offset %d",
				p.id, s.Calls, s.Points, t.must.calls, t.must.points, s.Watermark)
		default:
			continue
		}
		c.findings.add(Finding{Kind: kind, Where: dragonfly.QuotaKey(key.user, of), Detail: detail})
		if c.wrong.first.IsZero() || of.Before(c.wrong.first) {
			c.wrong.first = of
		}
	}
}
