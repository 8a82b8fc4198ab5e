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
	"time"

	"tenantflow/internal/generate"
)

// Config describes a stream of usage messages. Shares are of all messages, 0 to 1; what remains of the messages are
// new events.
type Config struct {
	// Seed picks the stream. Any value, also 0.
	Seed uint64
	// Count is the number of messages, resends and malformed ones included.
	Count int

	// Companies is the number of tenants. Traffic is skewed: the first companies send most. Default 200.
	Companies int
	// UsersPerCompany is the number of users of each company. Default 50.
	UsersPerCompany int

	// Resends is the share of messages that repeat an earlier event unchanged, half of them soon after it, half any
	// time later. The share is met as soon as there is something to repeat.
	Resends float64
	// Conflicts is the share of messages that repeat the identity of an earlier event with other data.
	Conflicts float64
	// Late is the share of new events whose timestamp lies up to LateSpan in the past.
	Late float64
	// LateSpan is how far back late events reach. Default 90 days.
	LateSpan time.Duration
	// Malformed is the share of messages that must become dead letters. They cycle through all that can be wrong.
	Malformed float64
	// Structured is the share of new events and resends in structured content mode; the rest is binary.
	Structured float64

	// Lines restricts malformed messages to flaws that a line of JSON can express. See AppendLine.
	Lines bool

	// Start is the timestamp of the first event. The service refuses events of the future, so the last one,
	// Start + Count*Step, should not be ahead of now. Required.
	Start time.Time
	// Step is the average distance of two messages in time. Default 20ms.
	Step time.Duration
}

// Limits of a Config. They come from the packed keys of the model.
const (
	MaxCompanies       = generate.MaxCompanies
	MaxUsersPerCompany = generate.MaxUsersPerCompany
)

// stream is the config of the events that are well-formed.
func (c *Config) stream() generate.Usage {
	return generate.Usage{Seed: c.Seed, Count: c.Count, Companies: c.Companies, UsersPerCompany: c.UsersPerCompany, Resends: c.Resends, Conflicts: c.Conflicts,
		Late: c.Late, LateSpan: c.LateSpan, Structured: c.Structured, Reserved: c.Malformed, Start: c.Start, Step: c.Step}
}
