package model

import "tenantflow/events"

// Mode is a CloudEvents content mode over Kafka.
type Mode int

// The content modes. AnyMode occurs in no message.
const (
	AnyMode    Mode = iota
	Binary          // attributes are ce_ headers, the value is the data
	Structured      // the value is the whole event as JSON
)

func (m Mode) String() string {
	return [...]string{"any", "binary", "structured"}[m]
}

// Kind says what a message is to the receiver.
type Kind int

// The kinds of messages.
const (
	Fresh     Kind = iota // becomes a row
	Resend                // repeats an earlier event and changes nothing
	Conflict              // repeats an earlier identity with other data: a dead letter
	Malformed             // a dead letter
)

func (k Kind) String() string {
	return [...]string{"new", "resend", "conflict", "malformed"}[k]
}

// A Message is one record to publish, and what is expected of it.
type Message struct {
	Key     []byte // nil: none
	Headers []events.Header
	Value   []byte // nil: a tombstone
	Mode    Mode

	Kind   Kind
	Reason events.Reason // of the dead letter; empty when it is none
	Flaw   string        // what is wrong, in words; empty when nothing is
	// Number is the number of the event, which is the place of its first message in the stream. Of a resend and of
	// a conflict it is the number of the original.
	Number int
}

const (
	contentTypeHeader     = "content-type"
	dataContentType       = "application/json"
	structuredContentType = "application/cloudevents+json; charset=UTF-8"
)
