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
	"tenantflow/internal/task"
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
	at := kafka.Cursor{Next: r.From}
	for at.Next < r.To {
		err := kafka.ReadLogFrom(ctx, s.client, s.topic, r.Partition, &at, r.To, each)
		if at.Next >= r.To {
			return nil // an error is one of reading the mark, which nothing here needs
		}
		if err != nil && !errors.Is(err, kafkago.OffsetOutOfRange) {
			return err
		}
		log, boundsErr := kafka.Bounds(ctx, s.client, s.topic, r.Partition)
		switch {
		case boundsErr != nil:
			return boundsErr
		case log.To < r.To:
			return task.Fatalf("read %s/%d up to offset %d: the log ends at %d. It is not the log that was planned for: the topic was created again, "+
				"or the broker has lost records; ask for a new replay", s.topic, r.Partition, r.To, log.To)
		case log.From > at.Next:
			return &GoneError{at.Next, min(log.From, r.To)}
		case err == nil:
			return fmt.Errorf("read %s/%d up to offset %d: a transaction is open at %d", s.topic, r.Partition, r.To, at.Next)
		}
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
