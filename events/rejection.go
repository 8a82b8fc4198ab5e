package events

import (
	"cmp"
	"fmt"
)

// A Reason says why an event could not be taken. The list is closed: it is the value of the dlq-reason header, and
// operators filter by it.
type Reason string

// The reasons for which an event becomes a dead letter.
const (
	MalformedEnvelope Reason = "malformed_envelope" // no CloudEvent, not UTF-8, or a tombstone
	MissingAttribute  Reason = "missing_attribute"  // a required CloudEvents attribute is absent or empty
	MissingKey        Reason = "missing_key"        // the record has no key
	KeyMismatch       Reason = "key_mismatch"       // the key is not the company_id
	UnknownType       Reason = "unknown_type"       // the type is none of the topic's
	MalformedData     Reason = "malformed_data"     // the data is not JSON
	InvalidData       Reason = "invalid_data"       // the data breaks its schema
	TimestampInFuture Reason = "timestamp_in_future"
	TimestampTooOld   Reason = "timestamp_too_old"
	TooLarge          Reason = "too_large"
	Conflict          Reason = "conflict"          // a known identity with other data
	TenantMismatch    Reason = "tenant_mismatch"   // the user belonged to another company
	RejectedByStore   Reason = "rejected_by_store" // the store refuses this very row
)

// Reasons lists all reasons.
func Reasons() []Reason {
	return []Reason{MalformedEnvelope, MissingAttribute, MissingKey, KeyMismatch, UnknownType, MalformedData, InvalidData,
		TimestampInFuture, TimestampTooOld, TooLarge, Conflict, TenantMismatch, RejectedByStore}
}

// A Rejection is the error of an event that can't be taken. It never means that trying again could help.
type Rejection struct {
	Reason Reason

	// Detail is words for a person: where, what was expected, and how the value is not so. It goes to logs and dead letters, which can't be
	// erased for one person. So it never has a text of the event's data, which may be an address or a name, whatever the place: only
	// numbers, times, sizes, and names that the schema has.
	Detail string

	withValues string // Detail with the values that are wrong; empty: the same
}

func (r *Rejection) Error() string { return string(r.Reason) + ": " + r.Detail }

// Reject makes a Rejection with a formatted detail.
func Reject(reason Reason, format string, args ...any) *Rejection {
	return &Rejection{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// rejectValue makes a Rejection of a value. The second text may have it.
func rejectValue(reason Reason, detail, withValues string) *Rejection {
	return &Rejection{Reason: reason, Detail: detail, withValues: withValues}
}

// WithValues is Detail with the values that are wrong, for the person who has the event at hand. Don't log or keep it.
func (r *Rejection) WithValues() string { return cmp.Or(r.withValues, r.Detail) }
