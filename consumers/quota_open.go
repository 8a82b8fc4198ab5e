package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/sinks/dragonfly"
)

// Open finds out where to go on. What decides is the progress that stands beside the counters:
//
//   - The offset committed to Kafka is behind it: the group's offsets were set back, or a commit was lost. What lies
//     between is counted; it is skipped.
//   - It is ahead: the counters have gone back in time. The partition goes back, too.
//   - A range may be half counted: it is counted again, and the identities tell what of it was. If they may have been
//     forgotten, everything of the day is counted anew.
//   - There is none: likewise.
func (q *Quota) Open(ctx context.Context, p *Partition) (BatchPartition, error) {
	qp := &quotaPartition{
		Partition: p,
		quota:     q,
		session:   q.cfg.Session(p.Topic(), p.ID()),
		decoder:   events.NewUsageDecoder(q.cfg.Limits),
		next:      p.Offset(),
	}
	if err := qp.open(ctx); err != nil {
		qp.session.Close()
		return nil, err
	}
	qp.lateness, qp.bucket = qp.session.Lateness().Milliseconds(), qp.session.Bucket().Milliseconds()
	if !qp.state.Floor.IsZero() {
		qp.floor = qp.state.Floor.UnixMilli() / dayMillis
	}
	return qp, nil
}

// open brings the state in line with the log, trying again while the store is away.
func (p *quotaPartition) open(ctx context.Context) error {
	delays := retryDelays()
	for {
		err := p.settle(ctx)
		switch {
		case err == nil:
			p.Waiting(nil)
			return nil
		case final(err) || ctx.Err() != nil:
			return err
		case dragonfly.Classify(err) == dragonfly.Fatal:
			return &FatalError{Err: err}
		}
		p.Waiting(err)
		if pause(ctx, delays.NextBackOff()) != nil {
			return err
		}
		p.session.Close()
		p.session = p.quota.cfg.Session(p.Topic(), p.ID())
	}
}

func (p *quotaPartition) settle(ctx context.Context) error {
	found, err := p.session.Load(ctx)
	if err != nil {
		return err
	}
	if found.Epoch == 0 {
		return p.again(ctx, p.begin(ctx, found, "lost"))
	}
	if found.New {
		return p.restart(ctx, found)
	}
	log := p.Logger()
	// Half of the window is left for getting there.
	if age := time.Since(found.At); !found.Clean() && age > p.session.Window()/2 {
		log.WarnContext(ctx, "a range was half counted, and so long ago that its identities may be forgotten: counting the day anew",
			slog.Int64("from", found.Done), slog.Int64("to", found.Pending), slog.Duration("age", age))
		return p.again(ctx, p.begin(ctx, found, "window"))
	}
	p.state, p.next = found, found.Done
	switch {
	case found.Done == p.Offset():
		return nil
	case found.Done > p.bounds.To && p.bounds.holds(p.Offset()):
		// Another log than the one that was counted; or the broker has lost its end. Its events have identities of their own.
		log.ErrorContext(ctx, "the log ends before what is counted: it was truncated or recreated; going on at the committed offset",
			slog.Int64("counted", found.Done), slog.Int64("offset", p.Offset()), slog.Int64("log_end", p.bounds.To))
		p.quota.metrics.rewinds.WithLabelValues("log_recreated").Inc()
		next := found
		next.Done, next.Pending, next.At, next.Until = p.Offset(), p.Offset(), time.Now(), 0
		p.state, err = p.session.Move(ctx, found, next)
		p.next = p.state.Done
		return p.again(ctx, err)
	case found.Done > p.Offset():
		log.InfoContext(ctx, "what lies behind the committed offset is counted already; skipping it", slog.Int64("offset", p.Offset()), slog.Int64("counted", found.Done))
		p.quota.metrics.skips.Inc()
		return &movedError{to: found.Done}
	}
	to := found.Done
	if to < p.bounds.From {
		log.ErrorContext(ctx, "events that are to be counted again are no longer in the log", slog.Int64("from", to), slog.Int64("log_start", p.bounds.From))
		p.quota.metrics.gone.Add(float64(p.bounds.From - to))
		to = p.bounds.From
	}
	log.WarnContext(ctx, "the counters have gone back in time, or a range was half counted: counting from there again",
		slog.Int64("from", to), slog.Int64("to", p.Offset()))
	p.quota.metrics.rewinds.WithLabelValues("went_back").Inc()
	next := found
	next.Done, next.Pending, next.Until = to, max(to, found.Pending), max(found.Until, p.Offset())
	if _, err := p.session.Move(ctx, found, next); err != nil {
		return p.again(ctx, err)
	}
	return &movedError{to: to}
}

// again looks at the state once more after it was changed, by us or by somebody else meanwhile.
func (p *quotaPartition) again(ctx context.Context, err error) error {
	if err != nil && !errors.Is(err, dragonfly.ErrMoved) {
		return err
	}
	return p.settle(ctx)
}

// begin begins an epoch: all partitions count the day anew.
func (p *quotaPartition) begin(ctx context.Context, found dragonfly.Progress, reason string) error {
	return p.beginAt(ctx, found, reason, time.Now())
}

// outrank looks at an error of counting that names a later epoch. Somebody may have begun it, and Open will see that. But if it has
// not begun, it never will: it was lost, and a clock was ahead when it was named. So a later one is begun.
func (p *quotaPartition) outrank(ctx context.Context, err error) error {
	var later *dragonfly.LaterEpochError
	if !errors.As(err, &later) {
		return err
	}
	found, loading := p.session.Load(ctx)
	if loading != nil {
		return loading
	}
	if found.Epoch == p.state.Epoch {
		if beginning := p.beginAt(ctx, found, "epoch", time.UnixMilli(later.Epoch+1)); beginning != nil {
			return beginning
		}
	}
	return err
}

func (p *quotaPartition) beginAt(ctx context.Context, found dragonfly.Progress, reason string, at time.Time) error {
	n, err := p.PartitionCount(ctx, time.Now())
	if err != nil {
		return err
	}
	if p.Offset() <= p.bounds.From && reason == "lost" {
		reason = "none" // as in a new installation
	}
	p.Logger().WarnContext(ctx, "there are no counters, or none that can be trusted: counting the day from the log", slog.String("reason", reason))
	p.quota.metrics.rebuilds.WithLabelValues(reason).Inc()
	return p.session.Begin(ctx, found, n, at)
}

// restart counts the partition anew: from an hour before the UTC day on, since an event's timestamp may be ahead of its
// publishing by as much as the service takes, or from the committed offset if that is further back, as in a new group.
func (p *quotaPartition) restart(ctx context.Context, found dragonfly.Progress) error {
	now := time.Now().UTC()
	day := now.Truncate(24 * time.Hour)
	ahead := p.quota.cfg.Limits.FutureTolerance
	if ahead == 0 {
		ahead = events.DefaultFutureTolerance
	}
	from, err := p.offsetAt(ctx, day.Add(-ahead))
	if err != nil {
		return err
	}
	next := dragonfly.Progress{At: now, Until: p.bounds.To}
	if p.Offset() <= from {
		from = max(p.Offset(), p.bounds.From)
	} else {
		// Events of earlier days that come from here on are a part of what there was; a part is no count.
		next.Floor = day
	}
	next.Done, next.Pending = from, from
	moved, err := p.session.Move(ctx, found, next)
	if err != nil {
		return p.again(ctx, err)
	}
	p.Logger().WarnContext(ctx, "counting anew", slog.Int64("from", from), slog.Int64("to", p.bounds.To), slog.Int64("epoch", found.Epoch))
	p.state, p.next = moved, from
	if from != p.Offset() {
		return &movedError{to: from}
	}
	return nil
}

// offsetAt is the offset of the first record that is not older than a time, or the end of the log.
func (p *quotaPartition) offsetAt(ctx context.Context, at time.Time) (int64, error) {
	what := fmt.Sprintf("find the offset of %s in %s/%d", at.Format(time.RFC3339), p.Topic(), p.ID())
	res, err := p.group.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{p.Topic(): {kafka.TimeOffsetOf(p.ID(), at)}},
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	for _, one := range res.Topics[p.Topic()] {
		if one.Partition != p.ID() {
			continue
		}
		if one.Error != nil {
			return 0, fmt.Errorf("%s: %w", what, one.Error)
		}
		for offset := range one.Offsets {
			if offset >= 0 {
				return offset, nil
			}
		}
		return p.bounds.To, nil
	}
	return 0, fmt.Errorf("%s: the answer does not name it", what)
}
