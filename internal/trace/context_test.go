package trace_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"

	"tenantflow/events"
	"tenantflow/internal/trace"
)

const (
	parent   = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	another  = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	parentID = "0af7651916cd43dd8448eb211c80319c"
	otherID  = "4bf92f3577b34da6a3ce929d0e0e4736"
)

// record makes a record of names and values of headers.
func record(headers ...string) *events.Record {
	r := &events.Record{Value: []byte("{}")}
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, events.Header{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func TestOf_TakesTheHeaderThenTheExtension(t *testing.T) {
	t.Parallel()
	structured := func(value string, headers ...string) *events.Record {
		r := record(append(headers, "content-type", "application/cloudevents+json; charset=utf-8")...)
		r.Value = []byte(value)
		return r
	}
	for name, c := range map[string]struct {
		record *events.Record
		want   string
	}{
		"nothing":                    {record("ce_id", "1"), ""},
		"the header":                 {record("traceparent", parent), parentID},
		"the extension":              {record("ce_traceparent", parent), parentID},
		"both":                       {record("traceparent", another, "ce_traceparent", parent), otherID},
		"a malformed header":         {record("traceparent", "00-1-2-01", "ce_traceparent", parent), parentID},
		"a repeated header":          {record("traceparent", parent, "traceparent", another), otherID},
		"structured mode":            {structured(`{"id":"1", "traceparent" : "` + parent + `"}`), parentID},
		"structured mode and header": {structured(`{"traceparent":"`+parent+`"}`, "traceparent", another), otherID},
		"an object":                  {structured(`{"traceparent":{}}`), ""},
		"cut off":                    {structured(`{"traceparent"`), ""},
		"binary data that looks so":  {&events.Record{Value: []byte(`{"traceparent":"` + parent + `"}`)}, ""},
		"a tombstone":                {&events.Record{}, ""},
	} {
		if got := trace.ID(c.record); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// judged is what OpenTelemetry's own reader makes of a traceparent. It takes one of version 00 with a dash behind it, which the
// specification does not.
func judged(text string) string {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": text})
	at := oteltrace.SpanContextFromContext(ctx)
	if !at.IsValid() || strings.HasPrefix(text, "00") && strings.HasSuffix(text, "-") {
		return ""
	}
	return at.TraceID().String()
}

func TestParse_AgreesWithOpenTelemetry(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		parent, another, "", "00", parent + "-", parent + "x", "01" + parent[2:], "01" + parent[2:] + "-more", "01" + parent[2:] + "more", "ff" + parent[2:], "cc" + parent[2:] + "-",
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
		"00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01", "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
	} {
		if got, want := trace.ID(record("traceparent", text)), judged(text); got != want || trace.Parse(text, "").Valid() != (want != "") {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func FuzzParse_AgreesWithOpenTelemetry(f *testing.F) {
	f.Add(parent)
	f.Add("01" + parent[2:] + "-more")
	f.Fuzz(func(t *testing.T, text string) {
		if got, want := trace.ID(record("traceparent", text)), judged(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	})
}

func TestComplete_KeepsTheExtension(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ has, header, want string }{
		{"", parent, parent}, {another, parent, another}, {"what its producer wrote", parent, "what its producer wrote"}, {"", "malformed", ""}, {"", "", ""},
	} {
		e := &events.Envelope{TraceParent: c.has}
		trace.Complete(e, record("traceparent", c.header, "tracestate", "vendor=1"))
		if e.TraceParent != c.want {
			t.Errorf("%+v: got %q", c, e.TraceParent)
		}
		if want := c.has == "" && c.want != ""; want != (e.TraceState == "vendor=1") {
			t.Errorf("%+v: the state is %q", c, e.TraceState)
		}
	}
}

// sampled is the header of a producer's span of its own.
func sampled(i int) string { return fmt.Sprintf("00-%032x-%016x-01", i+1, i+1) }
