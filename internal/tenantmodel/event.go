package tenantmodel

import (
	"encoding/json"
	"fmt"
	"time"

	"tenantflow/events"
)

// A Message is one record to publish.
type Message struct {
	Topic   string // without prefix
	Key     []byte
	Value   []byte
	Headers []events.Header
	// Phase is the one it belongs to, from 0: everything of an earlier phase is to be done before it is published.
	Phase int
}

// An event is what a message says.
type event struct {
	topic, company string
	source, id     string
	kind           string // its type
	at             time.Time
	appended       time.Time // by the broker; of events of the schedule alone
	data           map[string]any
	phase          int
}

func (e *event) identity() Identity { return Identity{e.source, e.id} }

// result is the id of the nth event of a type that this one causes.
func (e *event) result(kind string, n int) string { return events.ResultID(e.source, e.id, kind, n) }

func (e *event) text(name string) string {
	s, _ := e.data[name].(string)
	return s
}

// payment is the id of the payment that it names; empty: none.
func (e *event) payment() string {
	if p, ok := e.data["payment"].(map[string]any); ok {
		return fmt.Sprint(p["payment_id"])
	}
	return ""
}

// moment reads a member that is a time.
func (e *event) moment(name string) time.Time {
	at, _ := time.Parse(time.RFC3339Nano, e.text(name)) // what is made here can be read
	return at
}

// envelope is the event as it travels.
func (e *event) envelope() (*events.Envelope, error) {
	data, err := json.Marshal(e.data)
	if err != nil {
		return nil, fmt.Errorf("write the data of event %s: %w", e.id, err)
	}
	return &events.Envelope{ID: e.id, Source: e.source, Type: e.kind, Time: e.at, DataContentType: "application/json", Data: data}, nil
}

// message writes an event in one of the two content modes.
func (e *event) message(structured bool) (Message, error) {
	m := Message{Topic: e.topic, Key: []byte(e.company), Phase: e.phase}
	envelope, err := e.envelope()
	if err != nil {
		return m, err
	}
	if !structured {
		m.Value, m.Headers = envelope.EncodeBinary()
		return m, nil
	}
	m.Headers = []events.Header{{Key: "content-type", Value: []byte("application/cloudevents+json; charset=UTF-8")}}
	m.Value, err = envelope.ToStructured(nil)
	return m, err
}

// stamp writes a time as data does.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
