package fetch

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/internal/broker"
)

// A conn is a connection to one broker. It has at most one request under way.
type conn struct {
	net         net.Conn
	clientID    string
	correlation int32
	request     []byte
}

func dial(ctx context.Context, t *kafka.Transport, addr string) (*conn, error) {
	raw, err := broker.Dial(ctx, t, addr)
	if err != nil {
		return nil, err
	}
	return &conn{net: raw, clientID: t.ClientID}, nil
}

func (c *conn) close() { _ = c.net.Close() } // nothing is lost: what was read is read

// fetchVersion 4 is the oldest that Kafka 4 speaks, and has all that is needed: read-committed fetches, record batches.
// Source: Kafka protocol guide, Fetch API (key 1).
const (
	fetchKey     = 1
	fetchVersion = 4
)

// answerLimit bounds an answer. One is about MaxBytes, or one record batch; a batch is at most the topic's
// max.message.bytes.
const answerLimit = 1 << 30

// slack is what an answer may take beyond the wait that was asked for.
const slack = 30 * time.Second

// A request asks for the records of a partition from an offset on: at least so many bytes, if they come within the wait,
// and at most so many, or one record batch.
type request struct {
	topic       string
	partition   int
	offset      int64
	wait        time.Duration
	least, most int
	uncommitted bool
}

// fetch sends one request and reads its answer. The buffer goes back with release.
func (c *conn) fetch(ctx context.Context, r request) (*buffer, error) {
	// A context that ends interrupts the reading, which has no other way to notice.
	stop := context.AfterFunc(ctx, func() { _ = c.net.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.net.SetDeadline(time.Now().Add(r.wait + slack)); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil { // the deadline set just now may have overwritten the interruption
		return nil, err
	}
	isolation := byte(kafka.ReadCommitted)
	if r.uncommitted {
		isolation = byte(kafka.ReadUncommitted)
	}
	c.correlation++
	b := append(c.request[:0], 0, 0, 0, 0) // its size, filled in below
	b = binary.BigEndian.AppendUint16(b, fetchKey)
	b = binary.BigEndian.AppendUint16(b, fetchVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(c.correlation)) // #nosec G115 -- bits on the wire
	b = appendString(b, c.clientID)
	b = binary.BigEndian.AppendUint32(b, ^uint32(0))                      // replica: a client
	b = binary.BigEndian.AppendUint32(b, uint32(r.wait/time.Millisecond)) // #nosec G115 -- seconds at most
	b = binary.BigEndian.AppendUint32(b, uint32(max(1, r.least)))         // #nosec G115 -- at most MaxBytes
	b = binary.BigEndian.AppendUint32(b, uint32(r.most))                  // in all; #nosec G115 -- at most MaxBytes
	b = append(b, isolation)                                              // of transactions
	b = binary.BigEndian.AppendUint32(b, 1)                               // topics
	b = appendString(b, r.topic)                                          //
	b = binary.BigEndian.AppendUint32(b, 1)                               // partitions
	b = binary.BigEndian.AppendUint32(b, uint32(r.partition))             // #nosec G115 -- bits on the wire
	b = binary.BigEndian.AppendUint64(b, uint64(r.offset))                // #nosec G115 -- bits on the wire
	b = binary.BigEndian.AppendUint32(b, uint32(r.most))                  // of the partition; #nosec G115 -- as above
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))                       // #nosec G115 -- short
	c.request = b
	if _, err := c.net.Write(b); err != nil {
		return nil, err
	}
	var head [8]byte
	if _, err := io.ReadFull(c.net, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != c.correlation { // #nosec G115 -- bits on the wire
		return nil, fmt.Errorf("the broker answered request %d instead of %d", got, c.correlation)
	}
	if size < 4 || size > answerLimit {
		return nil, fmt.Errorf("the broker's answer claims %d bytes", size)
	}
	body := takeBuffer(int(size) - 4)
	if _, err := io.ReadFull(c.net, body.bytes); err != nil {
		body.release()
		return nil, err
	}
	return body, nil
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s))) // #nosec G115 -- topic names have at most 249 bytes
	return append(b, s...)
}

// A buffer holds an answer. Buffers are shared among all readers: one that waits for records holds none.
type buffer struct{ bytes []byte }

var buffers = sync.Pool{New: func() any { return new(buffer) }} //nolint:gochecknoglobals // a pool is shared by its nature

func takeBuffer(size int) *buffer {
	b, _ := buffers.Get().(*buffer)
	if cap(b.bytes) < size {
		b.bytes = make([]byte, max(size, MaxBytes+MaxBytes/8))
	}
	b.bytes = b.bytes[:size]
	return b
}

func (b *buffer) release() {
	if cap(b.bytes) <= 8*MaxBytes { // a giant is left to the collector
		buffers.Put(b)
	}
}
