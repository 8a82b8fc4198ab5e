package kafka

import (
	"context"
	"errors"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/fetch"
	"tenantflow/internal/retry"
)

// A Cursor is how far the log of a partition was read: the offset to read next, and the last record that was read, zero
// if there was none.
type Cursor struct {
	Next int64
	Mark Mark
}

// ReadLogFrom is ReadLog for a caller that must know how far it came. It reads from a position up to an offset, to not included, and
// moves the position on: behind each record that each has taken, and at last behind what no record stands for. It ends
// before to where an open transaction begins.
//
// Before it shows anything it looks whether the log still holds the record of the mark: if another one is there, the error is a
// *fetch.ChangedError. A record that retention has deleted is no difference. Where the log does not hold the next offset the
// error is kafkago.OffsetOutOfRange; ReadLog passes over it.
func ReadLogFrom(ctx context.Context, client *kafkago.Client, topic string, partition int, at *Cursor, to int64, each func(*events.Record) error) error {
	f := fetch.New(client, topic, partition)
	defer f.Close()
	f.Expect(at.Mark)
	delays := retry.New()
	for at.Next < to {
		var eachErr error
		unmarked := int64(-1) // the last record that was taken and has no mark yet
		got, err := f.Fetch(ctx, at.Next, 500*time.Millisecond, func(rec *events.Record) error {
			if rec.Offset >= to {
				return ErrEnough
			}
			if eachErr = each(rec); eachErr != nil {
				return eachErr
			}
			at.Next, unmarked = rec.Offset+1, rec.Offset
			return nil
		})
		switch {
		case eachErr != nil:
			return eachErr
		case errors.Is(err, ErrEnough):
			at.Next = to
			return at.mark(ctx, f, unmarked)
		case errors.Is(err, kafkago.OffsetOutOfRange), err != nil && (ctx.Err() != nil || !kafkaTransient(err)):
			return err
		case err != nil:
			if delays.Wait(ctx) != nil {
				return err
			}
			continue
		}
		delays.Reset()
		if got.Records > 0 {
			at.Mark = got.Last
		}
		if at.Next = min(max(at.Next, got.Next), to); at.Next >= got.LastStable {
			return nil
		}
	}
	return nil
}

// mark reads a record once more for its mark: a hash of each record would cost more than that.
func (p *Cursor) mark(ctx context.Context, f *fetch.Reader, offset int64) error {
	if offset < 0 {
		return nil
	}
	_, err := f.Fetch(ctx, offset, 0, func(rec *events.Record) error {
		if rec.Offset == offset {
			p.Mark = fetch.MarkOf(rec)
		}
		return ErrEnough
	})
	if err == nil || errors.Is(err, ErrEnough) || errors.Is(err, kafkago.OffsetOutOfRange) {
		return nil // deleted meanwhile: the mark before it will do
	}
	return err
}
