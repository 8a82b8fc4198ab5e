package trace

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"tenantflow/events"
)

// Attributes of our own.
const (
	keyFrom    = attribute.Key("tenantflow.offset.from")
	keyTo      = attribute.Key("tenantflow.offset.to") // of the first record behind the batch
	keyLeftOut = attribute.Key("tenantflow.links_left_out")
	keyRows    = attribute.Key("tenantflow.rows")
	keyCalls   = attribute.Key("tenantflow.calls")
	keyType    = attribute.Key("cloudevents.event_type")
)

// A Span is work under way. The zero value records nothing.
type Span struct {
	span    oteltrace.Span // nil: none
	baggage string
}

// End ends the span. An error marks it as failed.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(codes.Error, err.Error())
	}
	s.span.End()
}

// Context is the span's place, for what it causes.
func (s Span) Context() Context {
	if s.span == nil {
		return Context{}
	}
	return Context{span: s.span.SpanContext(), baggage: s.baggage}
}

// Append adds the span's place to the headers of a record, in place of one that they name already. The slice given is not changed.
func (s Span) Append(headers []events.Header) []events.Header {
	if s.span == nil || !s.span.SpanContext().IsValid() {
		return headers
	}
	all := make([]events.Header, 0, len(headers)+3)
	for _, h := range headers {
		if h.Key != headerParent && h.Key != headerState && h.Key != headerBaggage {
			all = append(all, h)
		}
	}
	at := s.span.SpanContext()
	all = append(all, events.Header{Key: headerParent, Value: []byte(parentOf(at))})
	if state := at.TraceState().String(); state != "" {
		all = append(all, events.Header{Key: headerState, Value: []byte(state)})
	}
	if s.baggage != "" {
		all = append(all, events.Header{Key: headerBaggage, Value: []byte(s.baggage)})
	}
	return all
}

// A Batch is what a span says of a batch: a range of offsets of one partition.
type Batch struct {
	Topic, Group string
	Partition    int
	From, To     int64
	Events       int // that count: what is not one, or is dropped while it is read, does not
}

// NewLinks returns a collection of links for a batch that is being read; nil where nothing is recorded.
func (t *Tracer) NewLinks() *Links {
	if t == nil {
		return nil
	}
	return &Links{}
}

// Batch begins the span of a batch's effects. It begins a trace of its own and is linked to the producers of its events.
func (t *Tracer) Batch(ctx context.Context, b Batch, links *Links) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	options := []oteltrace.SpanStartOption{oteltrace.WithNewRoot(), oteltrace.WithSpanKind(oteltrace.SpanKindConsumer), oteltrace.WithAttributes(
		semconv.MessagingSystemKafka, semconv.MessagingOperationTypeProcess, semconv.MessagingOperationName("process"), semconv.MessagingDestinationName(b.Topic),
		semconv.MessagingConsumerGroupName(b.Group), attribute.Int("messaging.destination.partition.id", b.Partition),
		semconv.MessagingBatchMessageCount(b.Events), keyFrom.Int64(b.From), keyTo.Int64(b.To))}
	return t.start(ctx, "process "+b.Topic, append(options, links.options()...)...)
}

func (l *Links) options() []oteltrace.SpanStartOption {
	if l == nil || len(l.all) == 0 {
		return nil
	}
	options := []oteltrace.SpanStartOption{oteltrace.WithLinks(l.all...)}
	if l.leftOut > 0 {
		options = append(options, oteltrace.WithAttributes(keyLeftOut.Int(l.leftOut)))
	}
	return options
}

// Insert begins the span of one try to insert rows into ClickHouse.
func (t *Tracer) Insert(ctx context.Context, rows int) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	return t.start(ctx, "INSERT usage_tracking", oteltrace.WithSpanKind(oteltrace.SpanKindClient), oteltrace.WithAttributes(
		semconv.DBSystemNameClickHouse, semconv.DBOperationName("INSERT"), semconv.DBCollectionName("usage_tracking"), keyRows.Int(rows)))
}

// Count begins the span of the calls that count a batch, each the events of one user and day.
func (t *Tracer) Count(ctx context.Context, calls int) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	return t.start(ctx, "count quota", oteltrace.WithAttributes(keyCalls.Int(calls)))
}

// Apply begins the span of what one event of a company does, in the trace that its record names. It is linked to the span of its batch.
func (t *Tracer) Apply(ctx context.Context, eventType string, r *events.Record) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	cause := Of(r)
	options := []oteltrace.SpanStartOption{oteltrace.WithSpanKind(oteltrace.SpanKindConsumer), oteltrace.WithAttributes(keyType.String(eventType))}
	if batch := oteltrace.SpanContextFromContext(ctx); batch.IsValid() {
		options = append(options, oteltrace.WithLinks(oteltrace.Link{SpanContext: batch}))
	}
	ctx, span := t.start(cause.into(ctx), "apply "+eventType, options...)
	span.baggage = cause.baggage
	return ctx, span
}

// Publish begins the span of one event that is published. It goes on with the trace of its cause; without one it belongs to what is
// under way, and without that there is no span, and no place for the record's headers.
func (t *Tracer) Publish(ctx context.Context, topic string, cause Context) Span {
	if t == nil {
		return Span{}
	}
	if cause.Valid() {
		ctx = cause.into(ctx)
	} else if !oteltrace.SpanContextFromContext(ctx).IsValid() {
		return Span{}
	}
	_, span := t.start(ctx, "publish "+topic, publishes(topic)...)
	span.baggage = cause.baggage
	return span
}

func publishes(topic string) []oteltrace.SpanStartOption {
	return []oteltrace.SpanStartOption{oteltrace.WithSpanKind(oteltrace.SpanKindProducer), oteltrace.WithAttributes(
		semconv.MessagingSystemKafka, semconv.MessagingOperationTypeSend, semconv.MessagingOperationName("publish"), semconv.MessagingDestinationName(topic))}
}

// DeadLetters begins the span of records that go to the dead letters, linked to their producers. The letters keep their own headers, and so
// the place in their own traces.
func (t *Tracer) DeadLetters(ctx context.Context, topic string, letters int, links *Links) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	options := append(publishes(topic), oteltrace.WithAttributes(semconv.MessagingBatchMessageCount(letters)))
	return t.start(ctx, "publish "+topic, append(options, links.options()...)...)
}

// Request begins the span of an HTTP request. It goes on with the caller's trace, if the request names one. The route is the pattern, empty for
// requests that no route takes.
func (t *Tracer) Request(r *http.Request, route string) (*http.Request, Span) {
	if t == nil {
		return r, Span{}
	}
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	method := knownMethod(r.Method)
	name := method
	attributes := []attribute.KeyValue{semconv.HTTPRequestMethodKey.String(method)}
	if route != "" {
		name += " " + route
		attributes = append(attributes, semconv.HTTPRoute(route))
	}
	ctx, span := t.start(ctx, name, oteltrace.WithSpanKind(oteltrace.SpanKindServer), oteltrace.WithAttributes(attributes...))
	return r.WithContext(ctx), span
}

// Names reports whether a request names a trace, well or not.
func Names(r *http.Request) bool { return r.Header.Get(headerParent) != "" }

// Answered ends the span of a request with the status of its answer.
func (s Span) Answered(status int) {
	if s.span == nil {
		return
	}
	s.span.SetAttributes(semconv.HTTPResponseStatusCode(status))
	if status >= http.StatusInternalServerError {
		s.span.SetStatus(codes.Error, "")
	}
	s.span.End()
}

// knownMethod keeps names of spans bounded: a client may send any word.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "_OTHER"
}

func (t *Tracer) start(ctx context.Context, name string, options ...oteltrace.SpanStartOption) (context.Context, Span) {
	ctx, span := t.tracer.Start(ctx, name, options...)
	return ctx, Span{span: span}
}

// into makes the context the parent of what begins in ctx: its own root where there is none.
func (c Context) into(ctx context.Context) context.Context {
	ctx = oteltrace.ContextWithSpanContext(ctx, c.span)
	if c.baggage != "" {
		if b, err := baggage.Parse(c.baggage); err == nil {
			ctx = baggage.ContextWithBaggage(ctx, b)
		}
	}
	return ctx
}
