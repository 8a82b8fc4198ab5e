package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	kafkago "github.com/segmentio/kafka-go"
)

// What keeps a member from looking for its ghosts must not keep it from joining for good.
func TestHindersJoins_OnlyWhatEndsByItself(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		kafkago.NotCoordinatorForGroup: true,
		kafkago.GroupLoadInProgress:    true,
		io.EOF:                         true,
		context.DeadlineExceeded:       true,
		&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}:           true,
		kafkago.GroupAuthorizationFailed:                              false,
		kafkago.UnsupportedVersion:                                    false,
		errors.New("a member's metadata has more bytes than it says"): false,
	} {
		if got := hindersJoins(fmt.Errorf("describe the group: %w", err)); got != want {
			t.Errorf("%v hinders joins: %t, want %t", err, got, want)
		}
	}
}

// A broker that drops packets must not hold a stop up with each dial.
func TestJoining_AnInterruptBoundsDials(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		silent := &kafkago.Dialer{DialFunc: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		d, j := newJoining(silent, func(context.Context) error { return nil })
		time.AfterFunc(time.Second, j.interrupt)
		began := time.Now()
		for range 3 { // brokers
			if _, err := d.DialFunc(t.Context(), "tcp", "kafka:9092"); err == nil {
				t.Error("it is connected to nothing")
			}
		}
		if took := time.Since(began); took != time.Second+leaveTimeout {
			t.Errorf("three dials end %s after the first began, want %s", took, time.Second+leaveTimeout)
		}
	})
}

// The time that a dial may take is too short for a look for ghosts on a slow broker.
func TestJoining_TheLookBeforeAJoinOutlivesTheDialsTime(t *testing.T) {
	t.Parallel()
	quick := &kafkago.Dialer{DialFunc: func(context.Context, string, string) (net.Conn, error) {
		c, _ := net.Pipe()
		return c, nil
	}}
	looked := false
	d, j := newJoining(quick, func(ctx context.Context) error {
		looked = true
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, err := d.DialFunc(ctx, "tcp", "kafka:9092")
	if err != nil || !looked {
		t.Fatalf("%v, looked: %t", err, looked)
	}
	_ = c.Close()
	j.interrupt()
	looked = false
	if c, err = d.DialFunc(t.Context(), "tcp", "kafka:9092"); err != nil || looked {
		t.Fatalf("after an interrupt: %v, looked: %t", err, looked)
	}
	_ = c.Close()
}
