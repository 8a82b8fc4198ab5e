package model

import (
	"fmt"
	"strconv"

	"tenantflow/events"
	"tenantflow/internal/generate"
)

// Sums are the totals of one group of rows. Amounts are exact integers of the smallest unit that is stored.
type Sums struct {
	Rows       int64 `json:"rows"`
	DataPoints int64 `json:"data_points"`
	Processing int64 `json:"processing,omitempty"` // thousandths of a millisecond; 0 where the view has none
	Revenue    int64 `json:"revenue"`              // millionths of the currency unit
	Last       int64 `json:"last,omitempty"`       // newest timestamp, ms since the epoch; 0 where the view has none
}

func (s Sums) String() string {
	return fmt.Sprintf("rows %d, data points %d, processing %d, revenue %d, last %d",
		s.Rows, s.DataPoints, s.Processing, s.Revenue, s.Last)
}

// A Fingerprint is the sum, modulo 2^64, of the xxHash64 of every member of a set. Two sets with equal fingerprints
// and equal counts are taken to be equal; order does not matter. In JSON it is a string of hexadecimal digits.
type Fingerprint uint64

// MarshalText writes 16 hexadecimal digits.
func (f Fingerprint) MarshalText() ([]byte, error) {
	return generate.AppendHex(nil, uint64(f), 16), nil
}

// UnmarshalText reads what MarshalText wrote.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil {
		return fmt.Errorf("read fingerprint: %w", err)
	}
	*f = Fingerprint(n)
	return nil
}

// Tables is the content of the usage tables, reduced to what can be compared: the set of rows as fingerprints, the
// aggregates in full.
type Tables struct {
	Rows       int64       `json:"rows"`
	Identities Fingerprint `json:"identities"` // of source and id: which events are there
	Contents   Fingerprint `json:"contents"`   // of all columns that come from the event
	Total      Sums        `json:"total"`      // over all rows

	// The aggregates by key. The parts of a key are separated by a bar:
	// company|tier|service|2026-11-23T16, company|user|tier|2026-11-23 and company|user|tier|2026-11.
	Hourly  map[string]Sums `json:"hourly"`
	Daily   map[string]Sums `json:"daily"`
	Monthly map[string]Sums `json:"monthly"`
}

// Expected is everything that must result from a stream of messages. It can be carried to another process as JSON.
type Expected struct {
	Messages    int64                   `json:"messages"`
	Duplicates  int64                   `json:"duplicates"` // resends: read, and without effect
	DeadLetters map[events.Reason]int64 `json:"dead_letters"`
	Tables      Tables                  `json:"tables"`
}

// DeadLetterTotal is the number of dead letters of all reasons.
func (e *Expected) DeadLetterTotal() int64 {
	var n int64
	for _, count := range e.DeadLetters {
		n += count
	}
	return n
}
