// Package trace records spans by OpenTelemetry and carries trace contexts through Kafka records and HTTP requests.
//
//	tracer, err := trace.FromEnvironment(ctx, log, version) // nil where OTEL_* does not switch tracing on
//	defer tracer.Close(ctx)
//
//	ctx, span := tracer.Apply(ctx, event.Type, record)
//	err := apply(ctx)
//	span.End(err)
//
// A nil *Tracer records nothing: its methods return the context they were given and an empty [Span], and allocate nothing. So callers
// have no second path for "tracing is off", and nothing is installed globally.
//
// The spans that exist are the methods of [Tracer] in span.go. A batch of many events is one span with links to its producers; what is done
// for one event is a span in that event's own trace. Names and attributes hold topics, types, routes and numbers, never the id of a user or a
// company.
package trace
