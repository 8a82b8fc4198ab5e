package model

import (
	"tenantflow/events"
	"tenantflow/internal/generate"
)

// A Generator makes the messages of one stream, in order, and keeps the model of what must result. It is not safe for
// use by several goroutines.
type Generator struct {
	config Config
	flaws  []flaw

	next   int // number of the next message
	flawed int // malformed messages so far

	tally       tally
	duplicates  int64
	deadLetters map[events.Reason]int64

	fixed   fixedHeaders
	bytes   []byte          // what is left of the current block, see grow
	headers []events.Header // likewise
}

// fixedHeaders are header values that many messages share. They are never written to.
type fixedHeaders struct {
	specVersion, eventType, data, structured []byte
	sources                                  [len(generate.Sources)][]byte
}

// New checks the config, fills in its defaults and makes a generator that stands before the first message. The error
// names everything that is wrong with the config.
func New(config Config) (*Generator, error) {
	config, err := config.WithDefaults()
	if err != nil {
		return nil, err
	}
	g := &Generator{
		config:      config,
		flaws:       flaws(),
		tally:       newTally(),
		deadLetters: map[events.Reason]int64{},
		fixed: fixedHeaders{
			specVersion: []byte("1.0"),
			eventType:   []byte(events.TypeUsageRecorded),
			data:        []byte(dataContentType),
			structured:  []byte(structuredContentType),
		},
	}
	for i, source := range generate.Sources {
		g.fixed.sources[i] = []byte(source)
	}
	return g, nil
}

// Config returns the config with its defaults filled in.
func (g *Generator) Config() Config { return g.config }

// Next fills m with the next message and adds it to what is expected. It is false, and m untouched, when there is none
// left. The slices of m are new for every message and belong to the caller.
func (g *Generator) Next(m *Message) bool {
	if g.next >= g.config.Count {
		return false
	}
	e, kind, f := g.step()
	switch {
	case kind == Malformed:
		d := draftOf(&e)
		f.put(&d)
		mode := f.mode
		if mode == AnyMode && e.Structured {
			mode = Structured
		}
		*m = d.message(mode)
		m.Reason, m.Flaw = f.reason, f.name
	case e.Structured:
		g.structured(&e, m)
	default:
		g.binary(&e, m)
	}
	if kind == Conflict {
		m.Reason, m.Flaw = events.Conflict, "other data under a known identity"
	}
	m.Kind = kind
	m.Number = int(e.Number)
	return true
}

// step decides what the next message is and adds it to the model. The flaw is set when it is malformed.
func (g *Generator) step() (generate.Event, Kind, *flaw) {
	e, kind := g.config.At(g.next)
	g.next++
	switch kind {
	case Resend:
		g.duplicates++
	case Conflict:
		g.deadLetters[events.Conflict]++
	case Malformed:
		f := &g.flaws[g.flawed%len(g.flaws)]
		g.flawed++
		g.deadLetters[f.reason]++
		return e, Malformed, f
	case Fresh:
		g.tally.add(&e)
	}
	return e, kind, nil
}

// Expected returns what must result from the messages made so far. It shares nothing with the generator.
func (g *Generator) Expected() Expected {
	e := Expected{
		Messages:    int64(g.next),
		Duplicates:  g.duplicates,
		DeadLetters: make(map[events.Reason]int64, len(g.deadLetters)),
		Tables:      g.tally.tables(),
	}
	for reason, n := range g.deadLetters {
		e.DeadLetters[reason] = n
	}
	return e
}

func (g *Generator) binary(e *generate.Event, m *Message) {
	b := g.grow(1024)
	var id, at, trace, key []byte
	id, b = cut(e.AppendID(b))
	at, b = cut(generate.AppendTime(b, e.Time))
	headers := append(g.growHeaders(7),
		events.Header{Key: contentTypeHeader, Value: g.fixed.data},
		events.Header{Key: "ce_specversion", Value: g.fixed.specVersion},
		events.Header{Key: "ce_id", Value: id},
		events.Header{Key: "ce_source", Value: g.fixed.sources[e.Source]},
		events.Header{Key: "ce_type", Value: g.fixed.eventType},
		events.Header{Key: "ce_time", Value: at},
	)
	if e.Traced {
		trace, b = cut(e.AppendTraceparent(b))
		headers = append(headers, events.Header{Key: "ce_traceparent", Value: trace})
	}
	key, b = cut(e.AppendKey(b))
	value, b := cut(e.AppendData(b))
	g.bytes, g.headers = b, headers[len(headers):]
	*m = Message{Key: key, Headers: headers[:len(headers):len(headers)], Value: value, Mode: Binary}
}

func (g *Generator) structured(e *generate.Event, m *Message) {
	b := g.grow(2048)
	key, b := cut(e.AppendKey(b))
	value, b := cut(e.AppendStructured(b, false))
	headers := append(g.growHeaders(1), events.Header{Key: contentTypeHeader, Value: g.fixed.structured})
	g.bytes, g.headers = b, headers[len(headers):]
	*m = Message{Key: key, Headers: headers[:1:1], Value: value, Mode: Structured}
}

// grow returns an empty slice with room for n bytes. Messages are cut from large blocks, because an allocation for
// every part of every message would take longer than all the rest.
func (g *Generator) grow(n int) []byte {
	if cap(g.bytes) < n {
		g.bytes = make([]byte, 0, 64<<10)
	}
	return g.bytes
}

func (g *Generator) growHeaders(n int) []events.Header {
	if cap(g.headers) < n {
		g.headers = make([]events.Header, 0, 1024)
	}
	return g.headers
}

// cut takes what was appended and the room behind it apart. Appending to the part can't overwrite its neighbour.
func cut(b []byte) (part, rest []byte) {
	n := len(b)
	return b[:n:n], b[n:]
}
