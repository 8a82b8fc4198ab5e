package producer

import (
	"errors"

	"github.com/segmentio/kafka-go"
)

var (
	// ErrFull says that the buffer has no room for the event.
	ErrFull = errors.New("producer: the buffer is full")
	// ErrClosed says that the producer is closed: of an event that was enqueued before, that Close gave up waiting for its acknowledgement.
	ErrClosed = errors.New("producer: closed")
	// ErrExpired says that an event was not acknowledged within Config.Timeout. The error that wraps it names the last failure.
	ErrExpired = errors.New("producer: not acknowledged in time")
)

// refused reports whether the broker refuses a record of the request, or the request for its size: a smaller one may pass.
func refused(err error) bool {
	var code kafka.Error
	if !errors.As(err, &code) {
		return false
	}
	switch code {
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, // more than the topic takes, or than a segment holds
		kafka.InvalidMessage, kafka.InvalidMessageSize, kafka.InvalidRecord, // a record is not as the broker wants it
		kafka.InvalidTimestamp, // a topic of producers' times bounds them
		kafka.PolicyViolation:  // the operator's own rules for records
		return true
	}
	return false
}

// final reports whether the broker refuses the producer itself, until a person has changed something.
func final(err error) bool {
	var code kafka.Error
	if !errors.As(err, &code) {
		return false
	}
	switch code {
	case kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.SASLAuthenticationFailed, kafka.UnsupportedSASLMechanism,
		kafka.UnsupportedVersion, kafka.UnsupportedForMessageFormat, kafka.InvalidTopic:
		return true
	}
	return false
}
