package trace

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"tenantflow/internal/logs"
)

// A sender is an exporter that counts, and that says in the log when it can't send: once when that begins, now and then while it lasts, and
// once when it is over.
type sender struct {
	next     sdktrace.SpanExporter
	troubles *logs.Troubles
	spans    *prometheus.CounterVec

	ended, sent, failed prometheus.Counter
}

// Metrics makes the metrics of spans, without a tracer.
func Metrics() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tenantflow_trace_spans_total",
		Help: "Spans that were recorded (ended), that the collector has taken (sent), and that could not be sent (failed). Ended ones that become neither were dropped because too many waited.",
	}, []string{"state"})
}

func newSender(next sdktrace.SpanExporter, log *slog.Logger) *sender {
	spans := Metrics()
	return &sender{next: next, troubles: logs.NewTroubles(log), spans: spans,
		ended: spans.WithLabelValues("ended"), sent: spans.WithLabelValues("sent"), failed: spans.WithLabelValues("failed")}
}

const sendFailed = "sending spans to the collector failed; they are dropped, and nothing else is affected"

// ExportSpans implements sdktrace.SpanExporter. It returns no error: the SDK would print it past the logger.
func (s *sender) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	s.note(ctx, len(spans), s.next.ExportSpans(ctx, spans))
	return nil
}

func (s *sender) note(ctx context.Context, spans int, err error) {
	if err != nil {
		s.failed.Add(float64(spans))
		s.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: sendFailed, Err: err})
		return
	}
	s.sent.Add(float64(spans))
	s.troubles.Over(ctx, sendFailed, "")
}

// Shutdown implements sdktrace.SpanExporter.
func (s *sender) Shutdown(ctx context.Context) error { return s.next.Shutdown(ctx) }

// counter counts the spans that end.
func (s *sender) counter() sdktrace.SpanProcessor { return endCounter{s.ended} }

type endCounter struct{ ended prometheus.Counter }

func (endCounter) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (endCounter) Shutdown(context.Context) error                  { return nil }
func (endCounter) ForceFlush(context.Context) error                { return nil }

func (c endCounter) OnEnd(span sdktrace.ReadOnlySpan) {
	if span.SpanContext().IsSampled() {
		c.ended.Inc()
	}
}
