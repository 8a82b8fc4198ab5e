package model

import (
	"context"
	"errors"

	"github.com/segmentio/kafka-go"

	"tenantflow/internal/topic"
)

// Publishing says where a stream goes.
type Publishing struct {
	Client *kafka.Client
	Topic  string // with its prefix; it exists
	// Limit ends after that many messages, so that a stream can be published in parts; 0: all that are left.
	Limit int
	// Attempts is how often a batch is tried; 0: 10. Tests that take the broker away need more.
	Attempts int
	// Progress, if set, is called now and then with the number of messages that were handed over.
	Progress func(published int)
}

// Publish publishes the next messages of the generator, each key's in their order, and waits for all acknowledgements.
// It returns how many were acknowledged, which with an error are fewer than were taken from the generator.
//
// When an acknowledgement gets lost, messages may stand in the log twice. For events that is one more resend, but a
// malformed message becomes one more dead letter than expected.
func Publish(ctx context.Context, g *Generator, p Publishing) (int64, error) {
	publisher, err := topic.NewPublisher(ctx, p.Client, p.Topic, p.Attempts)
	if err != nil {
		return 0, err
	}
	err = publishAll(ctx, g, p, publisher)
	err = errors.Join(err, publisher.Close())
	return publisher.Acknowledged(), err
}

func publishAll(ctx context.Context, g *Generator, p Publishing, publisher *topic.Publisher) error {
	const portion = 2000
	var m Message
	for published := 0; ; {
		n := portion
		if p.Limit > 0 {
			n = min(n, p.Limit-published)
		}
		messages := make([]kafka.Message, 0, n)
		headers := make([]kafka.Header, 0, 8*n)
		for len(messages) < n && g.Next(&m) {
			first := len(headers)
			for _, h := range m.Headers {
				headers = append(headers, kafka.Header{Key: h.Key, Value: h.Value})
			}
			messages = append(messages, kafka.Message{Key: m.Key, Value: m.Value, Headers: headers[first:len(headers):len(headers)]})
		}
		if len(messages) == 0 {
			return nil
		}
		if err := publisher.Publish(ctx, messages...); err != nil {
			return err
		}
		published += len(messages)
		if p.Progress != nil {
			p.Progress(published)
		}
	}
}
