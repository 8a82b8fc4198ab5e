package clickhouse

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	chgo "github.com/ClickHouse/clickhouse-go/v2"
)

// An encoder keeps the memory it takes to encode a block, from one successful insert to the next.
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
	rows := enc.order.of(b, p.rows)
	encodeNative(&enc.Buffer, b, rows, in.Topic, in.Partition, insertBy.UnixMilli())
	ctx = chgo.Context(ctx, chgo.WithSettings(oneBlock(in.token(p.Part), int(left/time.Second))))
	err := s.conn.InsertFormat(undated{ctx}, "Native", "INSERT INTO usage_tracking ("+usageColumns+")", bytes.NewReader(enc.Buf))
	if err != nil {
		// net/http may go on reading the body after it has given the request up. An encoder that was used again would
		// put other rows under the token of this one, so its memory is left to the collector.
		return err
	}
	s.release(enc)
	return nil
}

// undated hides a context's deadline, not its end. From a deadline clickhouse-go makes a max_execution_time of its own,
// more than five seconds later than the one that the settings say, and lets it win: the server would never be the first
// to give up, and every slow insert would end without an answer.
type undated struct{ context.Context }

func (undated) Deadline() (time.Time, bool) { return time.Time{}, false }

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
