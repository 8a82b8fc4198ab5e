package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"tenantflow/internal/fetch"
)

// ErrLost says that this member may not commit for the partition any more: it belongs to another member now, or will in a
// moment, or this one has to join the group again. Whatever is under way is given up: the next owner finds it.
var ErrLost = errors.New("the member has lost the partition")

// A StopError stops one partition until a person has acted; the others go on.
type StopError struct {
	Kind string // short and stable, for the metric: offset_out_of_range, topic_recreated, ...
	Err  error
}

func (e *StopError) Error() string { return e.Err.Error() }

func (e *StopError) Unwrap() error { return e.Err }

// A MovedError ends a session of a partition, which goes on at another offset. It is committed with the handler's metadata.
// Cut: by the operator's word, because the log no longer holds what was read.
type MovedError struct {
	To       int64
	Cut      bool
	Metadata string
}

func (e *MovedError) Error() string { return fmt.Sprintf("going on at offset %d", e.To) }

// A FatalError ends the consumer: the configuration or a schema is wrong, and waiting would not mend it.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return e.Err.Error() }

func (e *FatalError) Unwrap() error { return e.Err }

// Final reports whether an error ends the session of a partition: trying again would not help.
func Final(err error) bool {
	var moved *MovedError
	var stop *StopError
	var failure *FatalError
	return errors.As(err, &moved) || errors.As(err, &stop) || errors.As(err, &failure) || errors.Is(err, ErrLost)
}

// commitLost reports whether an error of an offset commit means that this member may not commit any more.
func commitLost(err error) bool {
	return errors.Is(err, kafkago.IllegalGeneration) || // the group has moved on without us
		errors.Is(err, kafkago.UnknownMemberId) || // our session has timed out
		errors.Is(err, kafkago.RebalanceInProgress) || // all members are rejoining; what we hold is no longer ours to commit
		errors.Is(err, kafkago.FencedInstanceID)
}

// NoTopic reports whether an error says that a topic does not exist.
func NoTopic(err error) bool { return err != nil && missing(err) }

// missing reports whether an error says that the topic or the partition is not there. The client says so in its own words
// when the broker had reported it before.
func missing(err error) bool {
	return errors.Is(err, kafkago.UnknownTopicOrPartition) || errors.Is(err, protocol.ErrNoTopic) || errors.Is(err, protocol.ErrNoPartition)
}

// kafkaTransient reports whether an error of the broker or of the connection to it may pass.
func kafkaTransient(err error) bool {
	var changed *fetch.ChangedError
	if errors.As(err, &changed) {
		return false
	}
	var code kafkago.Error
	if errors.As(err, &code) {
		switch code {
		case kafkago.TopicAuthorizationFailed, kafkago.GroupAuthorizationFailed, kafkago.ClusterAuthorizationFailed,
			kafkago.SASLAuthenticationFailed, kafkago.UnsupportedSASLMechanism, kafkago.UnsupportedVersion,
			kafkago.InvalidGroupId, kafkago.InvalidTopic, kafkago.InconsistentGroupProtocol:
			return false // a person has to change something
		}
		return true // the rest: elections, loading coordinators, an unknown topic that may yet be created
	}
	return connectionFailed(err) || !errors.Is(err, context.Canceled)
}

// connectionFailed reports whether an error says that a connection can't be made, has ended, or has given no answer in time.
func connectionFailed(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) || ConnectionClosed(err) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, net.ErrClosed)
}

// ConnectionClosed reports whether an error says that the broker closed a connection, as a broker does with all of them that is restarted. The
// client finds that out when it uses one the next time.
func ConnectionClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// fatal wraps an error that ends the consumer.
func fatal(format string, args ...any) error { return &FatalError{Err: fmt.Errorf(format, args...)} }
