package clickhouse

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	chgo "github.com/ClickHouse/clickhouse-go/v2"
)

// An encoder keeps the memory it takes to encode a block, from insert to insert.
type encoder struct {
	proto.Buffer
	order order
}

// Intent is what an insert of the live rows first..last-1 of b would do to the range [from, to) of a partition. It
// has no parts when no row is live.
func (b *Block) Intent(topic string, partition int, from, to int64, first, last int) *Intent {
	in := &Intent{Topic: topic, Partition: partition, From: from, To: to}
	for _, p := range b.parts(first, last) {
		in.Parts = append(in.Parts, p.Part)
	}
	return in
}

// Acquire waits for one of the slots for inserts and returns what gives it back. It comes before the intent, because
// time spent waiting would otherwise count against the deadline.
func (s *Store) Acquire(ctx context.Context) (release func(), err error) {
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Insert sends the live rows first..last-1 of b, one block per month, with the deadline and the tokens of the intent,
// which must be what [Block.Intent] made of the same rows and must be committed. Its error is an *InsertError.
func (s *Store) Insert(ctx context.Context, in *Intent, b *Block, first, last int) error {
	return s.send(ctx, in, in.InsertBy, b, b.parts(first, last))
}

func (s *Store) send(ctx context.Context, in *Intent, insertBy time.Time, b *Block, parts []part) error {
	for i, p := range parts {
		err := s.sendPart(ctx, in, insertBy, b, p)
		s.hurried(err != nil && (Classify(err) == Late || timedOut(err)))
		if err != nil {
			known := outcome(err)
			if i > 0 && known == NotSent {
				known = Answered // not this part, but the ones before it have landed
			}
			return &InsertError{
				Err:     fmt.Errorf("insert %d rows of %s, month %d: %w", len(p.rows), in.Range(), p.Month, err),
				Class:   Classify(err),
				Outcome: known,
			}
		}
		s.onPart(p.Month)
	}
	return nil
}

func (s *Store) sendPart(ctx context.Context, in *Intent, insertBy time.Time, b *Block, p part) error {
	left := insertBy.Sub(s.Now())
	if left <= 0 {
		// The server would refuse it; spare it the bytes.
		return &chgo.Exception{Code: codeViolatedConstraint, Message: "Constraint `" + deadlineConstraint + "`: the deadline passed before sending"}
	}
	// The client gives up a little after the server would, so that the server's own answer is heard if there is one.
	ctx, cancel := context.WithTimeout(ctx, left+time.Second)
	defer cancel()

	enc := s.encoder()
	defer s.release(enc)
	rows := enc.order.of(b, p.rows)

	token := in.token(p.Part)
	ctx = chgo.Context(ctx, chgo.WithSettings(chgo.Settings{
		// One insert is one block, written now and not gathered with others.
		"async_insert":       0,
		"max_insert_threads": 1,
		// The token, and that it counts: 26.x switches deduplication of plain inserts by deduplicate_insert and
		// ignores insert_deduplicate where that is set.
		"insert_deduplicate":                                 1,
		"deduplicate_insert":                                 "enable",
		"insert_deduplication_token":                         token,
		"deduplicate_blocks_in_dependent_materialized_views": 1,
		"max_execution_time":                                 max(1, int(left/time.Second)),
		"log_comment":                                        token,
		"materialized_views_ignore_errors":                   0,
		"optimize_on_insert":                                 1,
	}))
	if s.native {
		return s.sendNative(ctx, b, rows, in.Topic, in.Partition, insertBy)
	}
	encodeNative(&enc.Buffer, b, rows, in.Topic, in.Partition, insertBy.UnixMilli())
	return s.conn.InsertFormat(ctx, "Native", "INSERT INTO usage_tracking ("+usageColumns+")", bytes.NewReader(enc.Buf))
}

func (s *Store) encoder() *encoder {
	select {
	case e := <-s.encoders:
		e.Reset()
		return e
	default:
		return &encoder{}
	}
}

func (s *Store) release(e *encoder) {
	select {
	case s.encoders <- e:
	default: // more inserts than kept encoders: let it go
	}
}
