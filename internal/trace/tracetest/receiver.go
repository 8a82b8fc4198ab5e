// Package tracetest has a receiver of OTLP over HTTP that keeps the spans it is sent, for tests.
package tracetest

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"tenantflow/internal/trace"
)

// A Span is one that was received.
type Span struct {
	*otlp.Span
	Trace, ID, Parent string            // hexadecimal; no Parent: the root
	Says              map[string]string // attributes that are text
	Numbers           map[string]int64  // attributes that are integers
}

// A Receiver is a collector.
type Receiver struct {
	URL string

	mu       sync.Mutex
	spans    []Span
	resource map[string]bool // name=value
}

// NewReceiver starts a receiver that ends with the test.
func NewReceiver(t testing.TB) *Receiver {
	t.Helper()
	r := &Receiver{resource: map[string]bool{}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

// Tracer returns a tracer that sends to the receiver, and is closed with the test.
func (r *Receiver) Tracer(t testing.TB, sampler sdktrace.Sampler) *trace.Tracer {
	t.Helper()
	// Spans that are not taken in time are dropped. By default that is ten seconds, for which a busy machine may stand still.
	exporter, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(r.URL+"/v1/traces"), otlptracehttp.WithTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	tracer, err := trace.New(t.Context(), trace.Config{Exporter: exporter, Sampler: sampler})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracer.Close(context.Background()) })
	return tracer
}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body := io.Reader(q.Body)
	if q.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(q.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unzipped
	}
	text, err := io.ReadAll(body)
	var request collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(text, &request)
	}
	if err != nil || q.URL.Path != "/v1/traces" || q.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "no spans", http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range request.GetResourceSpans() {
		for _, a := range of.GetResource().GetAttributes() {
			r.resource[a.GetKey()+"="+a.GetValue().GetStringValue()] = true
		}
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				r.spans = append(r.spans, received(s))
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func received(s *otlp.Span) Span {
	one := Span{Span: s, Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
		Says: map[string]string{}, Numbers: map[string]int64{}}
	for _, a := range s.GetAttributes() {
		one.Says[a.GetKey()] = a.GetValue().GetStringValue()
		one.Numbers[a.GetKey()] = a.GetValue().GetIntValue()
	}
	return one
}

// Spans are those received that a test wants, in the order in which they came.
func (r *Receiver) Spans(want func(Span) bool) []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Span
	for _, s := range r.spans {
		if want(s) {
			all = append(all, s)
		}
	}
	return all
}

// Named are the spans of a name.
func (r *Receiver) Named(name string) []Span {
	return r.Spans(func(s Span) bool { return s.GetName() == name })
}

// Resource reports whether a sender says an attribute of itself, as name=value.
func (r *Receiver) Resource(attribute string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resource[attribute]
}

// A Producer is a program that publishes events and records spans of its own.
type Producer struct {
	tracer oteltrace.Tracer
}

// NewProducer returns a producer that sends its spans to the receiver.
func (r *Receiver) NewProducer(t testing.TB) *Producer {
	t.Helper()
	exporter, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(r.URL+"/v1/traces"))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return &Producer{provider.Tracer("producer")}
}

// Publish records the span of one event that is published, and returns its place as the value of the header traceparent, and apart.
func (p *Producer) Publish(t testing.TB) (header, trace, span string) {
	t.Helper()
	ctx, s := p.tracer.Start(t.Context(), "a publisher", oteltrace.WithSpanKind(oteltrace.SpanKindProducer))
	s.End()
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"], s.SpanContext().TraceID().String(), s.SpanContext().SpanID().String()
}

// Linked reports whether a span is linked to another.
func (s *Span) Linked(trace, span string) bool {
	return slices.ContainsFunc(s.GetLinks(), func(l *otlp.Span_Link) bool {
		return hex.EncodeToString(l.GetTraceId()) == trace && hex.EncodeToString(l.GetSpanId()) == span
	})
}
