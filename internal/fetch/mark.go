package fetch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
)

// A Mark names a record: its offset, and a hash of key, value and headers. It reports whether a log still holds the record
// there that was read. The zero Mark names none.
type Mark struct {
	Offset int64
	Hash   uint64
}

// IsZero reports whether the mark names no record.
func (m Mark) IsZero() bool { return m == Mark{} }

// MarkOf is the mark of a record.
func MarkOf(r *events.Record) Mark { return Mark{Offset: r.Offset, Hash: r.ContentHash()} }

// A ChangedError says that a log holds another record at an offset than it did: the topic was deleted and created again, or
// the log lost its end and has grown since.
type ChangedError struct{ Offset int64 }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("the log holds another record at offset %d than before", e.Offset)
}

// Expect says which record the log is to hold. The reader looks whether it does before it shows anything.
func (r *Reader) Expect(m Mark) { r.last = m }

// doubt is after which time without records the next ones are shown only if the log still holds the last one shown. In
// less, no topic is deleted, created again, and filled again past that place.
const doubt = 500 * time.Millisecond

// compare looks whether the log still holds the record that was shown last. One that retention or compaction has taken away
// is no difference. Whether the log ends before it, a fetch of what follows shows.
func (r *Reader) compare(ctx context.Context) error {
	if r.last.IsZero() {
		return nil
	}
	body, err := r.conn.fetch(ctx, request{topic: r.topic, partition: r.partition, offset: r.last.Offset, most: 1})
	if err != nil {
		return err
	}
	defer body.release()
	answer, err := parseAnswer(body.bytes)
	switch {
	case err != nil:
		return err
	case errors.Is(kafka.Error(answer.code), kafka.OffsetOutOfRange):
		return nil
	case answer.code != 0:
		return kafka.Error(answer.code)
	}
	enough := errors.New("the record was compared")
	err = r.walk(answer, &Result{Next: r.last.Offset}, func(rec *events.Record) error {
		if rec.Offset == r.last.Offset && MarkOf(rec) != r.last {
			return &ChangedError{rec.Offset}
		}
		return enough
	})
	if err != nil && !errors.Is(err, enough) {
		return err
	}
	r.proven = time.Now()
	return nil
}
