package events

import (
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Limits that hold where UsageLimits names none.
const (
	DefaultFutureTolerance = time.Hour
	// DefaultMaxAge is the shortest length that two years have: the usage table forgets rows of that age.
	DefaultMaxAge = 730 * 24 * time.Hour
)

// A UsageDecoder decodes usage.recorded.v1 events. It owns scratch space: one goroutine at a time may use it.
type UsageDecoder struct {
	limits UsageLimits
	schema *jsonschema.Schema
}

// NewUsageDecoder makes a decoder. A limit that is zero has its default.
func NewUsageDecoder(limits UsageLimits) *UsageDecoder {
	if limits.FutureTolerance == 0 {
		limits.FutureTolerance = DefaultFutureTolerance
	}
	if limits.MaxAge == 0 {
		limits.MaxAge = DefaultMaxAge
	}
	schema, err := compileSchema(TypeUsageRecorded)
	if err != nil {
		panic(err) // the schema is part of the program
	}
	return &UsageDecoder{limits: limits, schema: schema}
}

// Decode reads one record into u. Its byte slices are valid until the next call, and as long as the record's are.
//
// The error is a *Rejection with the first reason that applies, in the order malformed_envelope, missing_attribute,
// unknown_type, missing_key, malformed_data, invalid_data, timestamp_in_future, timestamp_too_old; u is then undefined.
func (d *UsageDecoder) Decode(r *Record, now time.Time, u *Usage) error {
	if err := decodeGeneral(d.schema, r, u); err != nil {
		return err
	}
	return d.limits.check(u, now)
}
