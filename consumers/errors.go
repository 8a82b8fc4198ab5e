package consumers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"tenantflow/internal/fetch"
)

// errLost says that this member may not commit for the partition any more: it belongs to another member now, or will in a
// moment, or this one has to join the group again. Whatever is under way is given up: the next owner finds it.
var errLost = errors.New("the member has lost the partition")

// A StopError stops one partition until a person has acted; the others go on.
type StopError struct {
	Kind string // short and stable, for the metric: offset_out_of_range, topic_recreated, ...
	Err  error
}

func (e *StopError) Error() string { return e.Err.Error() }

func (e *StopError) Unwrap() error { return e.Err }

// A movedError ends a session of a partition, which goes on at another offset. It is committed with the handler's metadata.
// Cut: by the operator's word, because the log no longer holds what was read.
type movedError struct {
	to       int64
	cut      bool
	metadata string
}

func (e *movedError) Error() string { return fmt.Sprintf("going on at offset %d", e.to) }

// A FatalError ends the consumer: the configuration or a schema is wrong, and waiting would not mend it.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return e.Err.Error() }

func (e *FatalError) Unwrap() error { return e.Err }

// retryDelays is how long to wait between tries of something transient: from 100 ms to 5 s, without an end.
func retryDelays() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(0),
	)
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// commitLost reports whether an error of an offset commit means that this member may not commit any more.
func commitLost(err error) bool {
	return errors.Is(err, kafka.IllegalGeneration) || // the group has moved on without us
		errors.Is(err, kafka.UnknownMemberId) || // our session has timed out
		errors.Is(err, kafka.RebalanceInProgress) || // all members are rejoining; what we hold is no longer ours to commit
		errors.Is(err, kafka.FencedInstanceID)
}

// NoTopic reports whether an error says that a topic does not exist.
func NoTopic(err error) bool { return err != nil && missing(err) }

// missing reports whether an error says that the topic or the partition is not there. The client says so in its own words
// when the broker had reported it before.
func missing(err error) bool {
	return errors.Is(err, kafka.UnknownTopicOrPartition) || errors.Is(err, protocol.ErrNoTopic) || errors.Is(err, protocol.ErrNoPartition)
}

// kafkaTransient reports whether an error of the broker or of the connection to it may pass.
func kafkaTransient(err error) bool {
	var changed *fetch.ChangedError
	if errors.As(err, &changed) {
		return false
	}
	var code kafka.Error
	if errors.As(err, &code) {
		switch code {
		case kafka.TopicAuthorizationFailed, kafka.GroupAuthorizationFailed, kafka.ClusterAuthorizationFailed,
			kafka.SASLAuthenticationFailed, kafka.UnsupportedSASLMechanism, kafka.UnsupportedVersion,
			kafka.InvalidGroupId, kafka.InvalidTopic, kafka.InconsistentGroupProtocol:
			return false // a person has to change something
		}
		return true // the rest: elections, loading coordinators, an unknown topic that may yet be created
	}
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) ||
		!errors.Is(err, context.Canceled)
}

// fatal wraps an error that ends the consumer.
func fatal(format string, args ...any) error { return &FatalError{Err: fmt.Errorf(format, args...)} }
