// Package generate makes seeded events to try things out with, as `tenantflow generate` prints them: usage ([Usage]), and company and
// subscription events ([CompanyStream]). The same config gives the same bytes.
//
//	stream, err := generate.Usage{Seed: 1, Count: 1000, Start: start}.WithDefaults()
//	for n := range stream.Count {
//		e, _ := stream.At(n)
//		line := e.AppendStructured(nil, true)
//	}
//
// Every usage event is a pure function of the seed and its number. So a resend is made by making its original
// again, and nothing has to be remembered. All events are valid; packages model and tenantmodel predict what must result of them.
package generate

import (
	"errors"
	"fmt"
	"time"
)

// Usage describes a stream of usage events. Shares are of all events, 0 to 1; what remains of them are new events.
type Usage struct {
	// Seed picks the stream. Any value, also 0.
	Seed uint64
	// Count is the number of events, resends included.
	Count int

	// Companies is the number of tenants. Traffic is skewed: the first companies send most. Default 200.
	Companies int
	// UsersPerCompany is the number of users of each company. Default 50.
	UsersPerCompany int

	// Resends is the share of events that repeat an earlier one unchanged, half of them soon after it, half any
	// time later. The share is met as soon as there is something to repeat.
	Resends float64
	// Conflicts is the share of events that repeat the identity of an earlier one with other data.
	Conflicts float64
	// Late is the share of new events whose timestamp lies up to LateSpan in the past.
	Late float64
	// LateSpan is how far back late events reach. Default 90 days.
	LateSpan time.Duration
	// Structured is the share of new events and resends in structured content mode; the rest is binary.
	Structured float64
	// Malformed is the share of numbers left to package model, which makes malformed messages of them. Nothing repeats them.
	Malformed float64

	// Start is the timestamp of the first event. The service refuses events of the future, so the last one,
	// Start + Count*Step, should not be ahead of now. Required.
	Start time.Time
	// Step is the average distance of two events in time. Default 20ms.
	Step time.Duration
}

// Limits of Usage.
const (
	MaxCompanies       = 1 << 20
	MaxUsersPerCompany = 1 << 20
)

// WithDefaults returns the config with its zero values filled in, or all that is wrong with it.
func (c Usage) WithDefaults() (Usage, error) {
	if c.Companies == 0 {
		c.Companies = 200
	}
	if c.UsersPerCompany == 0 {
		c.UsersPerCompany = 50
	}
	if c.LateSpan == 0 {
		c.LateSpan = 90 * 24 * time.Hour
	}
	if c.Step == 0 {
		c.Step = 20 * time.Millisecond
	}

	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.Count < 0 {
		bad("count %d is negative", c.Count)
	}
	if c.Companies < 1 || c.Companies > MaxCompanies {
		bad("companies %d is not between 1 and %d", c.Companies, MaxCompanies)
	}
	if c.UsersPerCompany < 1 || c.UsersPerCompany > MaxUsersPerCompany {
		bad("users per company %d is not between 1 and %d", c.UsersPerCompany, MaxUsersPerCompany)
	}
	if c.Step < 0 || c.LateSpan < 0 {
		bad("step %s and late span %s must not be negative", c.Step, c.LateSpan)
	}
	if c.Start.IsZero() {
		bad("start is missing")
	}
	for _, share := range []struct {
		name  string
		value float64
	}{
		{"resends", c.Resends},
		{"conflicts", c.Conflicts},
		{"late", c.Late},
		{"malformed", c.Malformed},
		{"structured", c.Structured},
	} {
		if !(share.value >= 0 && share.value <= 1) { // catches NaN
			bad("%s %v is not between 0 and 1", share.name, share.value)
		}
	}
	if sum := c.Resends + c.Conflicts + c.Malformed; sum > 1 {
		bad("resends, conflicts and malformed make %v of the messages, more than all", sum)
	}
	if len(problems) > 0 {
		return c, fmt.Errorf("generate usage: %w", errors.Join(problems...))
	}
	return c, nil
}

// Kind says what the event of a number is to the receiver.
type Kind int

// The kinds of events.
const (
	Fresh     Kind = iota // becomes a row
	Resend                // repeats an earlier event and changes nothing
	Conflict              // repeats an earlier identity with other data: a dead letter
	Malformed             // to be made malformed by the caller: a dead letter
)

func (k Kind) String() string { return [...]string{"new", "resend", "conflict", "malformed"}[k] }

// At makes the event of a number from 0. Of a resend or conflict, Event.Number is that of the original.
func (c *Usage) At(number int) (Event, Kind) {
	kind, original := c.kindOf(number)
	e := c.event(uint64(original))
	if kind == Conflict {
		e = e.conflicting()
	}
	return e, kind
}

// kindOf says what the message with this number is and, of a resend or conflict, which number it repeats.
func (c *Usage) kindOf(number int) (Kind, int) {
	kind, r := c.wantedKind(number)
	if kind == Fresh || kind == Malformed {
		return kind, number
	}
	const near = 200
	original := r.below(max(number, 1))
	if r.chance(0.5) {
		original = number - 1 - r.below(near)
	}
	for ; original >= 0; original-- {
		if k, _ := c.wantedKind(original); k == Fresh {
			return kind, original
		}
	}
	return Fresh, number // nothing to repeat yet
}

// wantedKind is what the message is, unless it is to repeat something and there is nothing.
func (c *Usage) wantedKind(number int) (Kind, random) {
	r := randomOf(c.Seed^0x6b696e64, uint64(number))
	switch u := r.unit(); {
	case u < c.Malformed:
		return Malformed, r
	case u < c.Malformed+c.Conflicts:
		return Conflict, r
	case u < c.Malformed+c.Conflicts+c.Resends:
		return Resend, r
	}
	return Fresh, r
}
