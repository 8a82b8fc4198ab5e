package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/retry"
	"tenantflow/internal/trace"
)

// A Result is an event this service publishes.
type Result struct {
	Topic string // prefix included
	Key   string
	// Event is nil for a tombstone: a record without a value.
	Event *events.Envelope
	// Partition is where it goes; nil: where its key does. Everywhere: to every partition.
	Partition  *int
	Everywhere bool
	// Span is the one that the event came about in. The event is published in its trace, unless it names another by its extension: the
	// effects of one event may bring those of others about. Default: the span that is under way.
	Span trace.Context
}

// Results publishes events.
type Results struct {
	client    *kafkago.Client
	many, one *kafkago.Writer // of events that fit into a batch of maxBatchBytes with others, and of larger ones
	tracer    *trace.Tracer
}

// A TooLargeError says that events are larger than their topic takes. They will be, however often it is tried.
type TooLargeError struct{ Err error }

func (e *TooLargeError) Error() string { return e.Err.Error() }

func (e *TooLargeError) Unwrap() error { return e.Err }

// NewResults returns a publisher. Close it.
func NewResults(client *kafkago.Client) *Results {
	writer := func(results int, bytes int64) *kafkago.Writer {
		return &kafkago.Writer{
			Addr:         client.Addr,
			Transport:    client.Transport,
			Balancer:     Partitioner{},
			RequiredAcks: kafkago.RequireAll,
			BatchTimeout: time.Millisecond, // a lone result must not wait for others
			BatchSize:    results,
			BatchBytes:   bytes,
			MaxAttempts:  1, // tries again here, where it can be seen
		}
	}
	const together = 100
	return &Results{client: client, many: writer(together, maxBatchBytes), one: writer(1, maxLetterBytes)}
}

// Traced has a span recorded for every event, and its place written into the headers of the record. nil: neither.
func (r *Results) Traced(tracer *trace.Tracer) *Results {
	r.tracer = tracer
	return r
}

// Close waits for what is under way.
func (r *Results) Close() error { return errors.Join(r.many.Close(), r.one.Close()) }

// Publish returns when the brokers have all of them. It tries again for as long as ctx lasts, reporting to waiting what it waits
// for, so a result may be there twice, with the same id. Not transient is only what a person has to mend: a *FatalError.
func (r *Results) Publish(ctx context.Context, results []Result, waiting func(error)) error {
	return r.publish(ctx, results, waiting, false)
}

// PublishFitting is Publish, but its error is a *TooLargeError if one of them is larger than its topic takes. Others may be there then.
func (r *Results) PublishFitting(ctx context.Context, results []Result, waiting func(error)) error {
	return r.publish(ctx, results, waiting, true)
}

func (r *Results) publish(ctx context.Context, results []Result, waiting func(error), fitting bool) error {
	if len(results) == 0 {
		return nil
	}
	results, err := r.expand(ctx, results, waiting)
	if err != nil {
		return err
	}
	messages := make([]kafkago.Message, len(results))
	var spans []trace.Span
	if r.tracer != nil {
		spans = make([]trace.Span, len(results))
	}
	for i, one := range results {
		var value []byte
		var headers []events.Header
		if one.Event != nil {
			value, headers = one.Event.EncodeBinary()
		}
		if spans != nil {
			spans[i] = r.tracer.Publish(ctx, one.Topic, one.cause())
			headers = spans[i].Append(headers)
		}
		messages[i] = message(one.Topic, []byte(one.Key), value, headers)
		if one.Partition != nil {
			messages[i].WriterData = *one.Partition
		}
	}
	err = retry.Do(ctx, func() error {
		if err := writeInOrder(ctx, r.many, r.one, messages); err != nil {
			return fmt.Errorf("publish %d results to %s: %w", len(results), results[0].Topic, err)
		}
		return nil
	}, func(err error) error {
		var refused kafkago.WriteErrors
		if errors.As(err, &refused) && slices.ContainsFunc(refused, func(one error) bool { return one != nil && !kafkaTransient(one) }) {
			return &FatalError{Err: err}
		}
		if fitting && tooLarge(err) {
			return &TooLargeError{Err: err}
		}
		waiting(err)
		return nil
	})
	if err == nil {
		waiting(nil)
	}
	for _, span := range spans {
		span.End(err)
	}
	return err
}

// cause is the place in a trace that a result comes from.
func (r *Result) cause() trace.Context {
	if r.Event == nil {
		return r.Span
	}
	return r.Span.Or(trace.Parse(r.Event.TraceParent, r.Event.TraceState))
}

// message makes what kafka-go's Writer takes.
func message(topic string, key, value []byte, headers []events.Header) kafkago.Message {
	m := kafkago.Message{Topic: topic, Key: key, Value: value, Headers: make([]kafkago.Header, len(headers))}
	for i, h := range headers {
		m.Headers[i] = kafkago.Header{Key: h.Key, Value: h.Value}
	}
	return m
}
