// Package model makes usage traffic and predicts its effect.
//
// A Generator is seeded: the same Config gives the same messages, byte for byte, on every machine. While it makes
// them it keeps a model of the result that shares no code with the service: how many rows there must be and which,
// every hourly, daily and monthly total as an exact integer, and how many dead letters of which reason. Compare sets
// that beside what a store really holds.
//
//	g, err := model.New(model.Config{Seed: 1, Count: 1_000_000, Start: start})
//	published, err := model.Publish(ctx, g, model.Publishing{Brokers: brokers, Topic: "usage.events"})
//	// ... the service works ...
//	got, err := model.ReadViews(ctx, db)
//	for _, d := range model.Compare(got, g.Expected().Tables) { ... }
//
// Every message is a pure function of the seed and its number. So a resend is made by making its original again, and
// neither generator nor model has to remember what was sent.
package model

import (
	"tenantflow/events"
	"tenantflow/internal/generate"
)

// A Config describes a stream of usage messages. Malformed ones cycle through all that can be wrong.
type Config = generate.Usage

// Kind says what a message is to the receiver.
type Kind = generate.Kind

// The kinds of messages.
const (
	Fresh     = generate.Fresh
	Resend    = generate.Resend
	Conflict  = generate.Conflict
	Malformed = generate.Malformed
)

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
