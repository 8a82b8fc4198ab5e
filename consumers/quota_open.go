package consumers

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/recent"
	"tenantflow/sinks/dragonfly"
)

// quotaMetadata is committed with every offset.
type quotaMetadata struct {
	Epoch       int64 // which a store that was emptied forgets
	Incarnation int64 // of the log
}

func (m quotaMetadata) String() string { return fmt.Sprintf("q1 %d %d", m.Epoch, m.Incarnation) }

// parseQuotaMetadata reads what String wrote. Nothing, and what another version has written, is nothing.
func parseQuotaMetadata(text string) quotaMetadata {
	part := strings.Fields(text)
	if len(part) != 3 || part[0] != "q1" {
		return quotaMetadata{}
	}
	epoch, err := strconv.ParseInt(part[1], 10, 64)
	incarnation, err2 := strconv.ParseInt(part[2], 10, 64)
	if err != nil || err2 != nil {
		return quotaMetadata{}
	}
	return quotaMetadata{epoch, incarnation}
}

// Open finds out where to go on: at the lowest progress of the sentinels, whatever Kafka says. Where a sentinel has none,
// the epoch is counted from the beginning of its day; where the counters can't be trusted, an epoch is begun before.
func (q *Quota) Open(ctx context.Context, p *kafka.Partition) (kafka.BatchPartition, error) {
	qp := &quotaPartition{
		Partition: p,
		quota:     q,
		session:   q.cfg.Session(p.Topic(), p.ID()),
		decoder:   events.NewUsageDecoder(q.cfg.Limits),
		seen:      recent.NewWindow(int64(q.cfg.ResendRecords), int64(q.cfg.ResendWindow/time.Second)),
	}
	qp.lateness = qp.session.Lateness().Milliseconds()
	err := qp.open(ctx)
	if err == nil {
		err = qp.fill(ctx)
	}
	if err != nil {
		qp.session.Close()
		qp.forget()
		return nil, err
	}
	return qp, nil
}

// open decides where to go on, trying again while the store is away.
func (p *quotaPartition) open(ctx context.Context) error {
	again := false
	err := p.KeepTrying(ctx, fatalForCounters, func() error {
		if again {
			p.session.Close()
			p.session = p.quota.cfg.Session(p.Topic(), p.ID())
		}
		again = true
		return p.settle(ctx)
	})
	if err == nil {
		p.Waiting(nil)
	}
	return err
}

// settle looks at the sentinels once, and notes where the partition goes on.
func (p *quotaPartition) settle(ctx context.Context) error {
	found, err := p.session.Look(ctx)
	if err != nil {
		return err
	}
	if found.Doubt != "" {
		if err := p.begin(ctx, found, found.Doubt, 0); err != nil {
			return err
		}
		if found, err = p.session.Look(ctx); err != nil {
			return err
		}
		if found.Doubt != "" {
			return fmt.Errorf("begin an epoch of %s: the counters can't be trusted, once more (%s)", p.Topic(), found.Doubt)
		}
	}
	p.state = found
	// Behind this nothing was counted and is lost: an open transaction can't be read.
	read, rebuilt := time.Now(), false
	readable, err := kafka.StableEnd(ctx, p.Client(), p.Topic(), p.ID())
	if err != nil {
		return err
	}
	readable = min(readable, p.Bounds().To)
	next := found.Lowest
	committed := parseQuotaMetadata(p.Metadata())
	switch {
	case next.Epoch != 0 && committed.Incarnation > found.Latest.Incarnation:
		next, rebuilt = p.incarnationBegins(ctx, next.Epoch, readable), true
	case next.Epoch == 0:
		if next, err = p.dayBegins(ctx, found); err != nil {
			return err
		}
		next.Until, rebuilt = readable, true
	case found.Restarted:
		next.Until, rebuilt = readable, true
	default:
		at := min(p.Offset(), p.Bounds().To)
		next.Until, rebuilt = max(next.Until, at), next.Until > at // one that was begun before
	}
	next.Incarnation = max(found.Latest.Incarnation, committed.Incarnation)
	next, another, err := p.checkLog(ctx, next, found, readable)
	if err != nil {
		return err
	}
	if begun, err := p.shrink(ctx, found); err != nil {
		return err
	} else if begun {
		return p.settle(ctx)
	}
	if next.Offset < p.Bounds().From {
		p.gone(ctx, next.Offset, p.Bounds().From-next.Offset)
		next.Offset = p.Bounds().From
	}
	next.Epoch = found.Epoch.Number
	if err := p.session.Note(ctx, next); err != nil {
		return err
	}
	p.noted, p.next, p.record, p.tended = next, next.Offset, next.Record, time.Now()
	if p.untilRead, p.untilTook = (time.Time{}), 0; rebuilt || another {
		p.untilRead = read
	}
	p.step(QuotaNoted)
	switch {
	case another:
	case next.Offset < p.Offset():
		p.Line(ctx, slog.LevelWarn, "the counters do not hold all that was counted; counting from there again",
			slog.Int64("from", next.Offset), slog.Int64("to", next.Until), slog.Int64("epoch", next.Epoch))
		p.quota.metrics.rewinds.WithLabelValues("went_back").Inc()
	case next.Offset > p.Offset():
		p.Line(ctx, slog.LevelInfo, "what lies behind the committed offset is counted already; skipping it",
			slog.Int64("offset", p.Offset()), slog.Int64("counted", next.Offset))
		p.quota.metrics.skips.Inc()
	default:
		return nil
	}
	return &kafka.MovedError{To: next.Offset, Cut: another, Metadata: p.Annotation()}
}

// caughtUpWithin is how soon a partition comes to where the log ended, if it has caught up with it.
const caughtUpWithin = 2 * time.Second

// followLog has a rebuild last until the partition has caught up with the log: what was published while it went on lies behind the end that was noted when
// the partition was opened, and is not counted either. It has caught up when it comes to an end soon after that was read, or no sooner than to the one
// before: then what is left is how far it always is behind.
func (p *quotaPartition) followLog(ctx context.Context, progress dragonfly.Progress) (dragonfly.Progress, error) {
	if p.untilRead.IsZero() || p.next < p.noted.Until {
		return progress, nil
	}
	now := time.Now()
	took := now.Sub(p.untilRead)
	if took <= caughtUpWithin || p.untilTook > 0 && took > p.untilTook*3/4 {
		p.untilRead = time.Time{}
		return progress, nil
	}
	end, err := kafka.StableEnd(ctx, p.Client(), p.Topic(), p.ID())
	if err != nil {
		return progress, err
	}
	if p.untilRead, p.untilTook = now, took; end > p.next {
		progress.Until = end
	}
	return progress, nil
}

// shrink begins an epoch if the topic has fewer partitions than when the present one began, and reports whether it has: the topic was created
// again, and no owner would ever bring what is noted of the others up to where they were.
func (p *quotaPartition) shrink(ctx context.Context, found *dragonfly.State) (begun bool, err error) {
	n, err := p.PartitionCount(ctx, time.Now())
	if err != nil || n >= found.Epoch.Partitions {
		return false, err
	}
	return true, p.begin(ctx, found, "fewer_partitions", 0)
}

// incarnationBegins is where a log is counted from that was taken as another one after the store was in the state found: its offsets name
// events of the log before, and nothing of this one is counted there.
func (p *quotaPartition) incarnationBegins(ctx context.Context, epoch, readable int64) dragonfly.Progress {
	log := p.Bounds()
	if log.From > 0 {
		p.gone(ctx, 0, 1)
	}
	return dragonfly.Progress{Epoch: epoch, Offset: log.From, Until: readable, Record: dragonfly.Record{Offset: -1}}
}

// gone reports that events which should be recounted are no longer in the log.
func (p *quotaPartition) gone(ctx context.Context, from, n int64) {
	p.Line(ctx, slog.LevelError, "events that are to be counted again are no longer in the log; the counters of the day stay as they are, and may be short",
		slog.Int64("from", from), slog.Int64("log_start", p.Bounds().From), slog.Int64("events", n))
	p.quota.metrics.gone.Add(float64(n))
}

// dayBegins is where an epoch begins to count the partition: an hour before its day, since an event's timestamp may be
// ahead of its record by as much as the service takes, or at the committed offset if that is further back. Where the log begins behind what was
// counted before, shares of earlier epochs are kept: a part of the log is no count.
func (p *quotaPartition) dayBegins(ctx context.Context, found *dragonfly.State) (dragonfly.Progress, error) {
	begin := dragonfly.Progress{Offset: p.Bounds().From, Record: dragonfly.Record{Offset: -1}}
	counted := p.Offset() // as far as is known: by the commit or, where the group was deleted, by the progress in an earlier epoch
	if found.Latest.Incarnation >= parseQuotaMetadata(p.Metadata()).Incarnation {
		counted = max(counted, found.Latest.Offset)
	}
	cut := p.Bounds().From > 0 && counted > p.Bounds().From
	day := p.state.Epoch.Day
	if day.IsZero() {
		// It clears nothing even if no one knows of earlier counts: group and sentinels may both have been deleted, and the counters not.
		begin.Keep = p.Bounds().From > 0
		if cut {
			p.gone(ctx, 0, 1)
		}
		return begin, nil
	}
	ahead := p.quota.cfg.Limits.FutureTolerance
	if ahead == 0 {
		ahead = events.DefaultFutureTolerance
	}
	from, err := p.offsetAt(ctx, day.Add(-ahead))
	if err != nil {
		return begin, err
	}
	if from <= p.Bounds().From && cut {
		// Is the record before also of that time? It can't be known if the first one that is left is.
		first, err := p.recordedAt(ctx, kafka.Range{From: p.Bounds().From, To: p.Bounds().To})
		if err != nil {
			return begin, err
		}
		if !first.IsZero() && first.After(day.Add(-ahead)) {
			begin.Keep = true
			p.gone(ctx, 0, 1)
		}
	}
	begin.Offset = max(p.Bounds().From, min(from, p.Offset()))
	p.Line(ctx, slog.LevelWarn, "counting the day again", slog.String("day", day.Format(time.DateOnly)),
		slog.Int64("from", begin.Offset), slog.Int64("to", p.Bounds().To), slog.Int64("epoch", p.state.Epoch.Number))
	return begin, nil
}

// checkLog compares the last record that the sentinels know to be counted with what the log holds there. Another record,
// or an end before it, means that the topic was deleted and created again, or cut. That stops the partition, until
// TENANTFLOW_OFFSET_OUT_OF_RANGE says where to go on: then it is another incarnation of the log, with a share of its own.
// The runtime compares the mark that is committed to Kafka, which is gone where a deleted topic's offsets are.
func (p *quotaPartition) checkLog(ctx context.Context, next dragonfly.Progress, found *dragonfly.State, readable int64) (checked dragonfly.Progress, another bool, err error) {
	if found.Latest.Incarnation < next.Incarnation {
		return next, false, nil // taken as another one since
	}
	if same, err := p.holds(ctx, found.Latest.Record); err != nil || same {
		return next, false, err
	}
	next = dragonfly.Progress{Incarnation: next.Incarnation + 1, Offset: p.Bounds().From, Until: readable, Record: dragonfly.Record{Offset: -1}}
	switch p.OutOfRange() {
	case kafka.OutOfRangeEarliest:
	case kafka.OutOfRangeLatest:
		next.Offset = p.Bounds().To
	case kafka.OutOfRangeStop:
		return next, true, &kafka.StopError{Kind: "topic_recreated", Err: fmt.Errorf("%s/%d holds another event than the one counted from there: the topic was deleted and created again, "+
			"or its log was cut and has grown again. The partition is stopped: its offsets no longer name the events that were counted. To count the log as a new one, beside what "+
			"was counted before, set TENANTFLOW_OFFSET_OUT_OF_RANGE=earliest (or latest) for one start", p.Topic(), p.ID())}
	}
	p.Line(ctx, slog.LevelError, "the log is another one; counting it as such, as configured", slog.Int64("from", next.Offset), slog.Int64("incarnation", next.Incarnation))
	p.quota.metrics.rewinds.WithLabelValues("log_recreated").Inc()
	return next, true, nil
}

// holds reports whether the log may hold a record: it does not if there is another one in its place, or the log ends before
// it. What the log no longer holds can't be compared.
func (p *quotaPartition) holds(ctx context.Context, record dragonfly.Record) (bool, error) {
	switch {
	case record.Offset < p.Bounds().From:
		return true, nil
	case record.Offset >= p.Bounds().To:
		return false, nil
	}
	same := true
	err := p.ReadRange(ctx, kafka.Range{From: record.Offset, To: record.Offset + 1}, func(r *events.Record) error {
		same = r.ContentHash() == record.Hash
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("compare the last record counted of %s/%d with the log: %w", p.Topic(), p.ID(), err)
	}
	return same, nil
}

// begin begins an epoch: all partitions count the day again.
func (p *quotaPartition) begin(ctx context.Context, found *dragonfly.State, reason string, above int64) error {
	n, err := p.PartitionCount(ctx, time.Now())
	if err != nil {
		return err
	}
	ends := make(map[int]kafka.Range, n)
	for id := range n {
		if ends[id], err = kafka.Bounds(ctx, p.Client(), p.Topic(), id); err != nil {
			return err
		}
	}
	next := dragonfly.Epoch{Partitions: n}
	highest, committed, err := p.highestEpoch(ctx, ends)
	if err != nil {
		return err
	}
	fresh := !committed && found.Epoch.Number == 0
	switch {
	case fresh:
		reason = "none" // a new installation, which counts everything that the log holds
	case !committed && found.Epoch.Day.IsZero():
		// So did the epoch in doubt. It may be a part of one that two processes have begun, or its group was deleted.
	default:
		// Not tomorrow because a clock is ahead, and not today if the newest events are yesterday's.
		newest, err := p.newestRecord(ctx, ends)
		if err != nil {
			return err
		}
		at := found.ServerTime()
		if !newest.IsZero() && newest.Before(at) {
			at = newest
		}
		next.Day = at.UTC().Truncate(24 * time.Hour)
	}
	if fresh {
		p.Line(ctx, slog.LevelInfo, "nothing was counted before: counting all that the log holds")
	} else {
		p.Line(ctx, slog.LevelWarn, "there are no counters, or none that can be trusted: counting from the log", slog.String("reason", reason))
	}
	p.quota.metrics.rebuilds.WithLabelValues(reason).Inc()
	return p.session.Begin(ctx, found, max(above, highest), next)
}

// highestEpoch is the highest epoch in the metadata committed for any partition, and whether anything was committed at all.
func (p *quotaPartition) highestEpoch(ctx context.Context, ends map[int]kafka.Range) (highest int64, committed bool, err error) {
	all, err := kafka.Committed(ctx, p.Client(), p.Group(), p.Topic(), slices.Collect(maps.Keys(ends)))
	if err != nil {
		return 0, false, err
	}
	for _, one := range all {
		committed = committed || one.Offset >= 0
		highest = max(highest, parseQuotaMetadata(one.Metadata).Epoch)
	}
	return highest, committed, nil
}

// newestRecord is the time of the newest record of the topic; zero: there is none.
func (p *quotaPartition) newestRecord(ctx context.Context, ends map[int]kafka.Range) (time.Time, error) {
	const few = 16 // the last offsets may be those of transactions' markers
	var newest time.Time
	for id, log := range ends {
		err := kafka.ReadLog(ctx, p.Client(), p.Topic(), id, kafka.Range{From: max(log.From, log.To-few), To: log.To}, func(r *events.Record) error {
			if r.Time.After(newest) {
				newest = r.Time
			}
			return nil
		})
		if err != nil {
			return newest, fmt.Errorf("read the newest record of %s/%d: %w", p.Topic(), id, err)
		}
	}
	return newest, nil
}

// recordedAt is the time of the first record of a range; zero: it has none.
func (p *quotaPartition) recordedAt(ctx context.Context, r kafka.Range) (time.Time, error) {
	var at time.Time
	err := p.ReadRange(ctx, r, func(rec *events.Record) error {
		at = rec.Time
		return kafka.ErrEnough
	})
	if err != nil {
		return at, fmt.Errorf("read the time of the first record of %s/%d %s: %w", p.Topic(), p.ID(), r, err)
	}
	return at, nil
}

// fill has the filter of resends see the records before the first that is counted. Twice the window is read, since a
// record's time may be a little before that of an earlier one.
func (p *quotaPartition) fill(ctx context.Context) error {
	began := time.Now()
	from := max(p.Bounds().From, p.next-int64(p.quota.cfg.ResendRecords))
	if from >= p.next {
		return nil
	}
	at, err := p.recordedAt(ctx, kafka.Range{From: max(p.Bounds().From, p.next-1), To: p.Bounds().To})
	if err != nil {
		return err
	}
	if !at.IsZero() {
		first, err := p.offsetAt(ctx, at.Add(-2*p.quota.cfg.ResendWindow))
		if err != nil {
			return err
		}
		from = max(from, min(first, p.next))
	}
	var usage events.Usage
	err = p.ReadRange(ctx, kafka.Range{From: from, To: p.next}, func(r *events.Record) error {
		if hash, err := p.identify(r, &usage); err == nil {
			p.remember(hash, r)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the identities before %s/%d/%d: %w", p.Topic(), p.ID(), p.next, err)
	}
	p.quota.metrics.filling.Add(time.Since(began).Seconds())
	p.Logger().DebugContext(ctx, "the filter of resends is filled", slog.Int64("from", from), slog.Int64("to", p.next), slog.Duration("took", time.Since(began)))
	return nil
}

// offsetAt is the offset of the first record that is not older than a time, or the end of the log.
func (p *quotaPartition) offsetAt(ctx context.Context, at time.Time) (int64, error) {
	return kafka.OffsetAt(ctx, p.Client(), p.Topic(), p.ID(), at, p.Bounds().To)
}
