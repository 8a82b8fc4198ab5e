package trace

import (
	"bytes"
	"encoding/hex"

	"go.opentelemetry.io/otel/baggage"
	oteltrace "go.opentelemetry.io/otel/trace"

	"tenantflow/events"
)

// Headers of W3C Trace Context and Baggage in a Kafka record, and the extension of CloudEvents that says the same in binary mode.
const (
	headerParent    = "traceparent"
	headerState     = "tracestate"
	headerBaggage   = "baggage"
	extensionParent = "ce_traceparent"
	extensionState  = "ce_tracestate"

	// In structured mode the extension is a member of the value.
	headerContentType     = "content-type"
	contentTypeStructured = "application/cloudevents+json"
	extensionInJSON       = `"traceparent"`
	stateInJSON           = `"tracestate"`
)

// A Context is a place in a trace: the span that something was caused by. The zero value is none.
type Context struct {
	span    oteltrace.SpanContext
	baggage string // as it came; empty: none, or it was malformed
}

// Valid reports whether there is a place.
func (c Context) Valid() bool { return c.span.IsValid() }

// Of reads the context of a record: the header traceparent, which the last hop has written, or else the extension of the event, which its
// producer has. Of a repeated header the last one counts. What is malformed is as if it were not there.
func Of(r *events.Record) Context {
	found, config := find(r)
	c := contextOf(config, found.state)
	const longest = 8192 // bytes, the specification's
	if len(found.baggage) > 0 && len(found.baggage) <= longest {
		if _, err := baggage.Parse(string(found.baggage)); err == nil {
			c.baggage = string(found.baggage)
		}
	}
	return c
}

// found are the values of a record's headers.
type found struct{ parent, state, baggage []byte }

// find looks for the place that a record names, and reads its ids. It allocates nothing.
func find(r *events.Record) (found, oteltrace.SpanContextConfig) {
	var hop, extension found
	structured := false
	for i := range r.Headers {
		switch h := &r.Headers[i]; h.Key {
		case headerParent:
			hop.parent = h.Value
		case headerState:
			hop.state = h.Value
		case headerBaggage:
			hop.baggage = h.Value
		case extensionParent:
			extension.parent = h.Value
		case extensionState:
			extension.state = h.Value
		case headerContentType:
			structured = bytes.HasPrefix(h.Value, []byte(contentTypeStructured))
		}
	}
	c, ok := parseParent(hop.parent)
	if ok {
		return hop, c
	}
	if structured {
		extension = found{parent: member(r.Value, extensionInJSON), state: member(r.Value, stateInJSON)}
	}
	extension.baggage = hop.baggage
	c, _ = parseParent(extension.parent)
	return extension, c
}

// member finds a member whose value is a plain string in a JSON object, wherever it stands: the event is taken apart elsewhere, and a
// mistake here costs no more than a link.
func member(object []byte, name string) []byte {
	i := bytes.Index(object, []byte(name))
	if i < 0 {
		return nil
	}
	rest := bytes.TrimLeft(object[i+len(name):], " \t\r\n")
	if len(rest) == 0 || rest[0] != ':' {
		return nil
	}
	rest = bytes.TrimLeft(rest[1:], " \t\r\n")
	if len(rest) == 0 || rest[0] != '"' {
		return nil
	}
	value, _, _ := bytes.Cut(rest[1:], []byte{'"'})
	return value
}

// Parse reads the values of traceparent and tracestate.
func Parse(parent, state string) Context {
	config, _ := parseParent([]byte(parent))
	return contextOf(config, []byte(state))
}

// Or returns the place that an event names, or c if that lies in the same trace, and so is nearer, or the event names none.
func (c Context) Or(named Context) Context {
	if !named.Valid() || c.span.TraceID() == named.span.TraceID() {
		return c
	}
	return named
}

// contextOf makes a context of what parseParent has read, and of a tracestate.
func contextOf(config oteltrace.SpanContextConfig, state []byte) Context {
	if !config.TraceID.IsValid() {
		return Context{}
	}
	config.Remote = true
	if len(state) > 0 {
		if s, err := oteltrace.ParseTraceState(string(state)); err == nil {
			config.TraceState = s
		}
	}
	return Context{span: oteltrace.NewSpanContext(config)}
}

// parseParent reads a traceparent, as https://www.w3.org/TR/trace-context/#traceparent-header defines it. It allocates nothing.
func parseParent(b []byte) (oteltrace.SpanContextConfig, bool) {
	const length = 55 // of version 00; later ones may go on behind a dash
	var c, none oteltrace.SpanContextConfig
	if len(b) < length || b[2] != '-' || b[35] != '-' || b[52] != '-' {
		return none, false
	}
	var version, flags [1]byte
	if !lowerHex(version[:], b[:2]) || !lowerHex(c.TraceID[:], b[3:35]) || !lowerHex(c.SpanID[:], b[36:52]) || !lowerHex(flags[:], b[53:55]) {
		return none, false
	}
	switch {
	case version[0] == 0xff, version[0] == 0 && len(b) != length, len(b) > length && b[length] != '-':
		return none, false
	}
	if !c.TraceID.IsValid() || !c.SpanID.IsValid() {
		return none, false
	}
	c.TraceFlags = oteltrace.TraceFlags(flags[0]) & oteltrace.FlagsSampled
	return c, true
}

// lowerHex decodes hexadecimal digits; capitals are malformed.
func lowerHex(to, from []byte) bool {
	for _, d := range from {
		if 'A' <= d && d <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(to, from)
	return err == nil
}

// ID returns the trace id of a record in hexadecimal, for the log; empty: there is none.
func ID(r *events.Record) string {
	if c := Of(r); c.Valid() {
		return c.span.TraceID().String()
	}
	return ""
}

// Complete gives an event without the extension traceparent that of its record's header. It is a function of the log, so every delivery
// comes to the same, and what is stored of the event leads to its trace as well.
func Complete(e *events.Envelope, r *events.Record) {
	if e.TraceParent != "" {
		return
	}
	c := Of(r)
	if !c.Valid() {
		return
	}
	e.TraceParent, e.TraceState = parentOf(c.span), c.span.TraceState().String()
}

// parentOf writes a traceparent.
func parentOf(c oteltrace.SpanContext) string {
	const version = "00-"
	return version + c.TraceID().String() + "-" + c.SpanID().String() + "-" + c.TraceFlags().String()
}

// Links collects the producers of a batch's events. The zero value of *Links, nil, collects nothing and allocates nothing.
type Links struct {
	seen    map[linkKey]struct{}
	all     []oteltrace.Link
	leftOut int
}

// MaxLinks is how many producers a span is linked to.
const MaxLinks = 128

type linkKey struct {
	trace oteltrace.TraceID
	span  oteltrace.SpanID
}

// Add notes the context of one record. One that is not sampled is not noted: it is not recorded anywhere, so a link would lead nowhere.
func (l *Links) Add(r *events.Record) {
	if l == nil {
		return
	}
	found, config := find(r)
	if !config.TraceFlags.IsSampled() {
		return
	}
	key := linkKey{config.TraceID, config.SpanID}
	if _, seen := l.seen[key]; seen {
		return
	}
	if len(l.all) == MaxLinks {
		l.leftOut++
		return
	}
	if l.seen == nil {
		l.seen = map[linkKey]struct{}{}
	}
	l.seen[key] = struct{}{}
	l.all = append(l.all, oteltrace.Link{SpanContext: contextOf(config, found.state).span})
}
