package trace

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// closeTimeout bounds how long the spans that are left may take at the end of the process. A collector that is away must not hold it up.
const closeTimeout = 2 * time.Second

// scope names the spans of this module.
const scope = "tenantflow"

// Config is what a Tracer needs.
type Config struct {
	// Exporter takes the spans. It is closed with the tracer.
	Exporter sdktrace.SpanExporter
	// Sampler decides which traces are recorded. Default: what OTEL_TRACES_SAMPLER says, and without that the decision of the parent,
	// and every trace that begins here.
	Sampler sdktrace.Sampler
	// Version is the program's. Default: none.
	Version string
	Log     *slog.Logger // default: none
}

// A Tracer records spans and sends them, beside the work: spans that can't be sent in time are dropped. nil records nothing.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   oteltrace.Tracer
	sender   *sender
}

// New returns a tracer that records. Close it. The error is one of OTEL_RESOURCE_ATTRIBUTES.
func New(ctx context.Context, cfg Config) (*Tracer, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	// What the environment says of the resource counts more than what is said here.
	from, err := resource.New(ctx, resource.WithHost(), resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName("tenantflow"), semconv.ServiceVersion(cfg.Version)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("read what OTEL_RESOURCE_ATTRIBUTES says of this process: %w", err)
	}
	t := &Tracer{sender: newSender(cfg.Exporter, cfg.Log)}
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(from), sdktrace.WithSpanProcessor(t.sender.counter()), sdktrace.WithBatcher(t.sender)}
	if cfg.Sampler != nil {
		options = append(options, sdktrace.WithSampler(cfg.Sampler))
	}
	t.provider = sdktrace.NewTracerProvider(options...)
	t.tracer = t.provider.Tracer(scope)
	return t, nil
}

// Close sends the spans that are left, for closeTimeout at most.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

// Flush sends the spans that have ended. It is for tests.
func (t *Tracer) Flush(ctx context.Context) error { return t.provider.ForceFlush(ctx) }

// Collector are the metrics of spans; nil where nothing is recorded.
func (t *Tracer) Collector() prometheus.Collector {
	if t == nil {
		return nil
	}
	return t.sender.spans
}
