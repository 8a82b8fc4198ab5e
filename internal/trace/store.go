package trace

import (
	"context"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	oteltrace "go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// TracePostgres has the statements of connections recorded that are made from a configuration. The text of a statement stays out of the spans: it may name a
// company's schema.
func (t *Tracer) TracePostgres(options *pgx.ConnConfig) {
	if t == nil {
		return
	}
	options.Tracer = otelpgx.NewTracer(otelpgx.WithTracerProvider(children{t.provider}), otelpgx.WithMeterProvider(metricnoop.NewMeterProvider()),
		otelpgx.WithDisableSQLStatementInAttributes(), otelpgx.WithDisableConnectionDetailsInAttributes())
}

// TraceRedis has the commands of a client recorded, without their keys: those name users.
func (t *Tracer) TraceRedis(client redis.UniversalClient) error {
	if t == nil {
		return nil
	}
	return redisotel.InstrumentTracing(client, redisotel.WithTracerProvider(children{t.provider}), redisotel.WithDBStatement(false), redisotel.WithCallerEnabled(false))
}

// children is a provider that records only what belongs to a span of ours. What the service does on its own, such as the look at the
// counter store once a second, would be a trace each time.
type children struct{ oteltrace.TracerProvider }

func (c children) Tracer(name string, options ...oteltrace.TracerOption) oteltrace.Tracer {
	return childTracer{c.TracerProvider.Tracer(name, options...)}
}

type childTracer struct{ oteltrace.Tracer }

func (c childTracer) Start(ctx context.Context, name string, options ...oteltrace.SpanStartOption) (context.Context, oteltrace.Span) {
	if !oteltrace.SpanFromContext(ctx).IsRecording() {
		return ctx, noop.Span{}
	}
	return c.Tracer.Start(ctx, name, options...)
}
