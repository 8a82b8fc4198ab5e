package consumers_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tenantflow/consumers"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/sinks/clickhouse"
)

// A deafConn is a connection to a broker on which every offset commit seems to succeed. A service without generations
// in its commits would see the same: it never learns that the partition is no longer its own.
type deafConn struct {
	net.Conn
	in   *bufio.Reader
	rest []byte // of the answer being read

	mu      sync.Mutex
	out     []byte         // of the request being written
	commits map[int32]bool // by correlation id
}

func dialDeaf(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &deafConn{Conn: c, in: bufio.NewReader(c), commits: map[int32]bool{}}, nil
}

// Write looks for commits. A request is its size, then key, version and correlation id.
func (c *deafConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.out = append(c.out, b...)
	for len(c.out) >= 12 && len(c.out) >= 4+int(binary.BigEndian.Uint32(c.out)) {
		if binary.BigEndian.Uint16(c.out[4:]) == uint16(kmsg.OffsetCommit) {
			c.commits[int32(binary.BigEndian.Uint32(c.out[8:]))] = true
		}
		c.out = c.out[4+binary.BigEndian.Uint32(c.out):]
	}
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *deafConn) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		size := make([]byte, 4)
		if _, err := io.ReadFull(c.in, size); err != nil {
			return 0, err
		}
		frame := append(size, make([]byte, binary.BigEndian.Uint32(size))...)
		if _, err := io.ReadFull(c.in, frame[4:]); err != nil {
			return 0, err
		}
		id := int32(binary.BigEndian.Uint32(frame[4:]))
		c.mu.Lock()
		if c.commits[id] {
			delete(c.commits, id)
			forgive(frame[8:])
		}
		c.mu.Unlock()
		c.rest = frame
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// forgive takes the error codes out of the answer to a commit, versions 3 to 7: throttle time, then an array of topics,
// each a name and an array of partitions, each a number and an error code.
func forgive(b []byte) {
	number := func(size int) int {
		n := 0
		for _, c := range b[:size] {
			n = n<<8 | int(c)
		}
		b = b[size:]
		return n
	}
	number(4)
	for range number(4) {
		b = b[number(2):]
		for range number(4) {
			number(4)
			b[0], b[1] = 0, 0
			number(2)
		}
	}
}

// fresh is a store that makes sure of its connection before it inserts. Else one that was closed during the sleep would
// make the outcome unknown, and settling that would find the heir's rows: another mechanism, which masks this one.
type fresh struct{ consumers.UsageStore }

func (s fresh) Insert(ctx context.Context, in *clickhouse.Intent, b *clickhouse.Block, first, last int) error {
	for range 3 {
		_ = s.SyncClock(ctx) // the insert says what is wrong
	}
	return s.UsageStore.Insert(ctx, in, b, first, last)
}

// The member is frozen before it announces an insert, so its deadline is a new one when it wakes up: the deadline does not
// keep it from inserting what its heir has inserted long ago, in other batches.
func TestWithoutTheGenerationInCommitsAWokenMemberDoublesRows(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 1})
	messages, want := traffic(t, model.Config{Seed: 21, Count: 1000})
	f.publish(t, messages)
	sleeper := f.startFrozen(t, frozen{Step: consumers.StepDeadLettered, Nth: 3, Deaf: true})
	enginetest.Await(t, "the child stands still", func() bool { return standsStill(sleeper.Pid) })
	f.Join(t, f.usage(t), kafkatest.Brisk)
	f.AwaitConsumed(t)
	f.verify(t, want)
	if err := sleeper.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	enginetest.Await(t, "the woken member is back in the group", func() bool { return f.members(t) == 2 })
	red(t, "the generation in commits", f.differences(t, want), "rows: ", "")
}
