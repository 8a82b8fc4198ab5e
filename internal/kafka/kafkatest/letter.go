package kafkatest

import (
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
)

// Letter is the dead letter of a record, as a group publishes it.
func Letter(rec *events.Record, group string, why *events.Rejection, failedAt time.Time) kafkago.Message {
	key, value, headers := events.NewDeadLetter(rec, group, why, 1, failedAt)
	m := kafkago.Message{Key: key, Value: value}
	for _, h := range headers {
		m.Headers = append(m.Headers, kafkago.Header{Key: h.Key, Value: h.Value})
	}
	return m
}
