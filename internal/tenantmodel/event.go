package tenantmodel

import (
	"fmt"
	"time"

	"tenantflow/events"
)

func identity(e *Event) Identity { return Identity{e.Source, e.ID} }

// result is the id of the nth event of a type that this one causes.
func result(e *Event, kind string, n int) string { return events.ResultID(e.Source, e.ID, kind, n) }

func text(e *Event, name string) string {
	s, _ := e.Data[name].(string)
	return s
}

// payment is the id of the payment that it names; empty: none.
func payment(e *Event) string {
	if p, ok := e.Data["payment"].(map[string]any); ok {
		return fmt.Sprint(p["payment_id"])
	}
	return ""
}

// moment reads a member that is a time.
func moment(e *Event, name string) time.Time {
	at, _ := time.Parse(time.RFC3339Nano, text(e, name)) // what is made here can be read
	return at
}

// stamp writes a time as data does.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
