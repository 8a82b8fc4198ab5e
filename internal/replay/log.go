package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/totals"
)

// logSource is the log of the topic itself.
type logSource struct {
	client *kafkago.Client
	topic  string
}

// Ranges implements Source: all that the log holds.
func (s *logSource) Ranges(ctx context.Context) ([]Range, error) {
	ends, err := kafka.Ends(ctx, s.client, s.topic)
	if err != nil {
		return nil, err
	}
	var all []Range
	for id, r := range ends {
		all = append(all, Range{id, r.From, r.To})
	}
	slices.SortFunc(all, func(a, b Range) int { return a.Partition - b.Partition })
	return all, nil
}

// Read implements Source.
func (s *logSource) Read(ctx context.Context, r Range, each func(*events.Record) error) error {
	for at := r.From; at < r.To; {
		err := kafka.ReadLog(ctx, s.client, s.topic, r.Partition, kafka.Range{From: at, To: r.To}, func(rec *events.Record) error {
			if err := each(rec); err != nil {
				return err
			}
			at = rec.Offset + 1
			return nil
		})
		if err != nil {
			return err
		}
		// ReadLog ends where retention cuts the log under it. What is left behind the cut is still to be read.
		log, err := kafka.Bounds(ctx, s.client, s.topic, r.Partition)
		if err != nil {
			return err
		}
		if log.From <= at {
			return nil
		}
		at = log.From
	}
	return nil
}

// Close implements Source.
func (s *logSource) Close() error { return nil }

// A Bound is one end of what is to be replayed.
type Bound struct {
	Time   time.Time // of the records, by the broker's clock; zero: Offset counts
	Offset int64     // negative: none
}

// Unbounded is no bound.
func Unbounded() Bound { return Bound{Offset: -1} }

// A timed source finds records by their times.
type timed interface {
	// offsetAt is the offset of the first record of a partition that is not older, or r.To if there is none.
	offsetAt(ctx context.Context, r Range, at time.Time) (int64, error)
}

// offsetAt implements timed.
func (s *logSource) offsetAt(ctx context.Context, r Range, at time.Time) (int64, error) {
	return kafka.OffsetAt(ctx, s.client, s.topic, r.Partition, at, r.To)
}

// cut narrows a range of a source down to two bounds.
func cut(ctx context.Context, s timed, r Range, from, to Bound) (Range, error) {
	at := func(b Bound, otherwise int64) (int64, error) {
		switch {
		case !b.Time.IsZero():
			return s.offsetAt(ctx, r, b.Time)
		case b.Offset >= 0:
			return b.Offset, nil
		}
		return otherwise, nil
	}
	first, err := at(from, r.From)
	if err != nil {
		return r, err
	}
	last, err := at(to, r.To)
	if err != nil {
		return r, err
	}
	r.From = min(max(r.From, first), r.To)
	r.To = max(r.From, min(r.To, last))
	return r, nil
}

// consumed cuts off what the group has not committed: the service has yet to consume it.
func consumed(ctx context.Context, client *kafkago.Client, group, topic string, ranges []Range) (cut []Range, left int64, err error) {
	positions, _, err := totals.ReadPositions(ctx, client, group, topic)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range ranges {
		at := int64(0)
		for _, p := range positions {
			if p.Partition == r.Partition {
				at = max(0, p.Committed)
			}
		}
		to := max(r.From, min(r.To, at))
		left += r.To - to
		r.To = to
		cut = append(cut, r)
	}
	return cut, left, nil
}

// letters are the origins of the dead letters that a group has written for the records of a topic.
type letters struct {
	client       *kafkago.Client
	topic, group string

	loaded  bool
	reasons map[int]map[int64]events.Reason // by partition and offset
}

// of reads the dead letters when it is first asked: most replays find nothing missing that has one, and need not read the topic.
func (l *letters) of(ctx context.Context, partition int, offset int64) (events.Reason, bool, error) {
	if !l.loaded {
		if err := l.load(ctx); err != nil {
			return "", false, err
		}
		l.loaded = true
	}
	reason, ok := l.reasons[partition][offset]
	return reason, ok, nil
}

func (l *letters) load(ctx context.Context) error {
	l.reasons = map[int]map[int64]events.Reason{}
	from := events.DeadLetterTopic(l.topic)
	ends, err := kafka.Ends(ctx, l.client, from)
	if errors.Is(err, kafkago.UnknownTopicOrPartition) {
		return nil
	}
	if err != nil {
		return err
	}
	known := map[events.Reason]events.Reason{} // one string for each reason
	for id, r := range ends {
		err := kafka.ReadLog(ctx, l.client, from, id, r, func(rec *events.Record) error {
			d, err := events.ParseDeadLetter(rec)
			if err != nil || d.Topic != l.topic || d.Group != l.group {
				return nil //nolint:nilerr // a record that is no dead letter of this group says nothing
			}
			if _, ok := known[d.Reason]; !ok {
				known[d.Reason] = d.Reason
			}
			if l.reasons[d.Partition] == nil {
				l.reasons[d.Partition] = map[int64]events.Reason{}
			}
			l.reasons[d.Partition][d.Offset] = known[d.Reason]
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the dead letters of %s: %w", l.topic, err)
		}
	}
	return nil
}
