package tenantmodel

import (
	"fmt"
	"time"

	"tenantflow/events"
)

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

// stamp writes a time as data does.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
