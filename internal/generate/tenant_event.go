package generate

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

// A TenantEvent is a company or subscription event.
type TenantEvent struct {
	Topic, Type, Company string // the topic without prefix
	Source, ID           string
	Time                 time.Time // the sender's
	Appended             time.Time // by the broker; of events of the schedule alone
	Data                 map[string]any
	Phase                int
	Partition            int // of the topic, that it was read from: in logs that are judged

	refused bool
}

func (e *TenantEvent) text(name string) string {
	s, _ := e.Data[name].(string)
	return s
}

// Envelope is the event as it travels.
func (e *TenantEvent) Envelope() (*events.Envelope, error) {
	data, err := json.Marshal(e.Data)
	if err != nil {
		return nil, fmt.Errorf("write the data of event %s: %w", e.ID, err)
	}
	return &events.Envelope{ID: e.ID, Source: e.Source, Type: e.Type, Time: e.Time, DataContentType: "application/json", Data: data}, nil
}

// message writes an event in one of the two content modes.
func (e *TenantEvent) message(structured bool) (Message, error) {
	m := Message{Topic: e.Topic, Key: []byte(e.Company), Phase: e.Phase}
	envelope, err := e.Envelope()
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

// MonthAfter is the end of a month that starts at a time, on a day of the month or the last one there is.
func MonthAfter(start time.Time, day int) time.Time {
	first := time.Date(start.Year(), start.Month(), 1, start.Hour(), start.Minute(), start.Second(), start.Nanosecond(), time.UTC).AddDate(0, 1, 0)
	end := first
	for next := first; next.Month() == first.Month() && next.Day() <= day; next = next.AddDate(0, 0, 1) {
		end = next
	}
	return end
}
