package trace_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/trace"
	"tenantflow/internal/trace/tracetest"
)

// Nothing that is called for each record, batch, insert or event costs anything while tracing is off.
func TestTracer_OffAllocatesNothing(t *testing.T) {
	var tracer *trace.Tracer
	ctx := t.Context()
	r := record("ce_id", "1", "traceparent", parent, "tracestate", "vendor=1", "baggage", "a=b")
	q := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/users/u/quota", nil)
	failed := errors.New("it failed")
	headers := r.Headers
	for name, do := range map[string]func(){
		"links": func() { tracer.NewLinks().Add(r) },
		"batch": func() {
			_, s := tracer.Batch(ctx, trace.Batch{Topic: "t", Group: "g", To: 9, Events: 9}, nil)
			s.End(failed)
		},
		"insert":       func() { _, s := tracer.Insert(ctx, 9); s.End(nil) },
		"count":        func() { _, s := tracer.Count(ctx, 9); s.End(nil) },
		"apply":        func() { _, s := tracer.Apply(ctx, events.TypeCompanyRegistered, r); s.End(nil); _ = s.Context() },
		"publish":      func() { s := tracer.Publish(ctx, "t", trace.Context{}); headers = s.Append(headers); s.End(nil) },
		"dead letters": func() { _, s := tracer.DeadLetters(ctx, "t", 9, nil); s.End(nil) },
		"request":      func() { _, s := tracer.Request(q, "/v1/users/{user_id}/quota"); s.Answered(200) },
	} {
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	handler := slog.DiscardHandler
	if tracer.LogHandler(handler) != handler || tracer.Collector() != nil || tracer.Close(ctx) != nil || len(headers) != len(r.Headers) {
		t.Error("tracing that is off changes something")
	}
}

// While tracing is on, a record whose producer is linked already costs no allocation either.
func TestLinks_KnownProducersAllocateNothing(t *testing.T) {
	tracer := tracetest.NewReceiver(t).Tracer(t, nil)
	links := tracer.NewLinks()
	r := record("ce_id", "1", "traceparent", parent, "tracestate", "vendor=1")
	links.Add(r)
	if n := testing.AllocsPerRun(100, func() { links.Add(r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What tracing costs each usage event that is read, where every event has a producer's span of its own.
func BenchmarkLinks_Add(b *testing.B) {
	tracer := tracetest.NewReceiver(b).Tracer(b, nil)
	records := make([]*events.Record, 1000)
	for i := range records {
		records[i] = record("ce_specversion", "1.0", "ce_id", "1", "ce_source", "/s", "ce_type", "t", "ce_time", "now", "content-type", "application/json", "traceparent", sampled(i))
	}
	links := tracer.NewLinks()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		links.Add(records[i%len(records)])
	}
}

func TestBatch_LinksAtMost128Producers(t *testing.T) {
	t.Parallel()
	receiver := tracetest.NewReceiver(t)
	tracer := receiver.Tracer(t, nil)
	links := tracer.NewLinks()
	for range 3 {
		for i := range 100 {
			links.Add(record("traceparent", sampled(i)))
		}
	}
	for i := range 200 {
		links.Add(record("ce_traceparent", sampled(i)))
		links.Add(record("traceparent", strings.Replace(sampled(1000+i), "-01", "-00", 1))) // not recorded by its producer
		links.Add(record("traceparent", "malformed"))
	}
	_, span := tracer.Batch(t.Context(), trace.Batch{Topic: "usage.events", Group: "g", Partition: 3, From: 10, To: 310, Events: 300}, links)
	span.End(errors.New("the store is down"))
	flush(t, tracer)
	got := receiver.Named("process usage.events")
	if len(got) != 1 {
		t.Fatalf("%d spans", len(got))
	}
	s := got[0]
	seen := map[string]bool{}
	for _, l := range s.GetLinks() {
		seen[string(l.GetTraceId())+string(l.GetSpanId())] = true
	}
	if len(s.GetLinks()) != trace.MaxLinks || len(seen) != trace.MaxLinks || s.Numbers["tenantflow.links_left_out"] != 200-trace.MaxLinks || s.Parent != "" {
		t.Errorf("%d links, %d of them different, %d left out, parent %q", len(s.GetLinks()), len(seen), s.Numbers["tenantflow.links_left_out"], s.Parent)
	}
	if s.GetStatus().GetMessage() != "the store is down" || s.Numbers["messaging.batch.message_count"] != 300 || s.Numbers["tenantflow.offset.to"] != 310 ||
		s.Says["messaging.consumer.group.name"] != "g" || s.Numbers["messaging.destination.partition.id"] != 3 {
		t.Errorf("got %v", s)
	}
}

func flush(t *testing.T, tracer *trace.Tracer) {
	t.Helper()
	if err := tracer.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What a producer does not record is not recorded here, and what is published says so too.
func TestApply_FollowsTheDecisionOfTheParent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, header, flags string
		sampler             sdktrace.Sampler
		spans               int
	}{
		{"the producer records", parent, "-01", nil, 2},
		{"the producer does not", strings.TrimSuffix(parent, "1") + "0", "-00", nil, 0},
		{"nothing that begins here, and the producer records", parent, "-01", sdktrace.ParentBased(sdktrace.NeverSample()), 2},
		{"nothing that begins here", "malformed", "-00", sdktrace.ParentBased(sdktrace.NeverSample()), 0},
	} {
		receiver := tracetest.NewReceiver(t)
		tracer := receiver.Tracer(t, c.sampler)
		r := record("traceparent", c.header, "tracestate", "vendor=1", "baggage", "shop=9")
		_, applied := tracer.Apply(t.Context(), events.TypeCompanyRegistered, r)
		published := tracer.Publish(t.Context(), "company.results", applied.Context())
		headers := published.Append([]events.Header{{Key: "ce_id", Value: []byte("7")}, {Key: "traceparent", Value: []byte("stale")}})
		published.End(nil)
		applied.End(nil)
		flush(t, tracer)
		spans := receiver.Spans(func(tracetest.Span) bool { return true })
		if len(spans) != c.spans {
			t.Errorf("%s: %d spans, want %d", c.name, len(spans), c.spans)
		}
		got := map[string]string{}
		for _, h := range headers {
			got[h.Key] += string(h.Value)
		}
		if !strings.HasSuffix(got["traceparent"], c.flags) || len(got["traceparent"]) != len(parent) || got["ce_id"] != "7" {
			t.Errorf("%s: the record has the headers %v", c.name, got)
		}
		if c.header != "malformed" && (!strings.Contains(got["traceparent"], parentID) || got["tracestate"] != "vendor=1" || got["baggage"] != "shop=9") {
			t.Errorf("%s: the record has the headers %v", c.name, got)
		}
		for _, s := range spans {
			if s.Trace != parentID {
				t.Errorf("%s: %s is in another trace", c.name, s.GetName())
			}
		}
	}
}

func TestRequest_GoesOnWithTheCallersTrace(t *testing.T) {
	t.Parallel()
	receiver := tracetest.NewReceiver(t)
	tracer := receiver.Tracer(t, nil)
	for _, header := range []string{parent, "malformed"} {
		q := httptest.NewRequestWithContext(t.Context(), "BREW", "/v1/users/alice/quota", nil)
		q.Header.Set("traceparent", header)
		_, span := tracer.Request(q, "/v1/users/{user_id}/quota")
		span.Answered(503)
	}
	flush(t, tracer)
	got := receiver.Named("_OTHER /v1/users/{user_id}/quota")
	if len(got) != 2 || got[0].Trace != parentID || got[1].Trace == parentID || got[1].Parent != "" || got[0].GetStatus().GetCode() == 0 || got[0].Numbers["http.response.status_code"] != 503 {
		t.Errorf("got %v", got)
	}
}

func TestLogHandler_AddsTheTrace(t *testing.T) {
	t.Parallel()
	tracer := tracetest.NewReceiver(t).Tracer(t, nil)
	var out bytes.Buffer
	log := slog.New(tracer.LogHandler(slog.NewTextHandler(&out, nil))).With("part", "company")
	ctx, span := tracer.Apply(t.Context(), events.TypeCompanyRegistered, record("traceparent", parent))
	defer span.End(nil)
	log.InfoContext(ctx, "inside")
	log.InfoContext(t.Context(), "outside")
	if text := out.String(); !strings.Contains(text, "msg=inside part=company trace_id="+parentID) || strings.Count(text, "trace_id") != 1 {
		t.Error(text)
	}
}

// A collector that refuses, and one that never answers, cost spans and a line in the log, and the end of the process two seconds.
func TestTracer_ADeadCollectorCostsOnlySpans(t *testing.T) {
	hung, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hung.Close() })
	gone, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	t.Setenv("OTEL_BSP_EXPORT_TIMEOUT", "200")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
	for name, address := range map[string]string{"hung": hung.Addr().String(), "gone": gone.Addr().String()} {
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+address)
		var out bytes.Buffer
		tracer, err := trace.FromEnvironment(t.Context(), slog.New(slog.NewTextHandler(&out, nil)), "")
		if err != nil || tracer == nil {
			t.Fatal(tracer, err)
		}
		const spans = 100_000
		began := time.Now()
		for range spans {
			_, span := tracer.Insert(t.Context(), 1)
			span.End(nil)
		}
		took := time.Since(began)
		eventually(t, func() bool { return value(t, tracer, "failed") > 0 })
		closing := time.Now()
		_ = tracer.Close(context.Background())
		// Had each span waited for the collector, it would be minutes. The rest is for a machine that stands still meanwhile.
		if took > time.Minute || time.Since(closing) > 30*time.Second {
			t.Errorf("%s: %d spans took %s, and closing %s", name, spans, took, time.Since(closing))
		}
		if value(t, tracer, "ended") != spans || value(t, tracer, "failed") > spans/2 || value(t, tracer, "sent") != 0 {
			t.Errorf("%s: %v ended, %v failed, %v sent", name, value(t, tracer, "ended"), value(t, tracer, "failed"), value(t, tracer, "sent"))
		}
		if lines := strings.Count(out.String(), "\n"); lines == 0 || lines > 5 {
			t.Errorf("%s: %d lines:\n%s", name, lines, out.String())
		}
	}
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	enginetest.Await(t, "what is expected", condition)
}
