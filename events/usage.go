package events

import "time"

// Usage is a usage.recorded.v1 event, decoded and checked; or a usage.voided.v1, which repeats the data of one and has Voids.
//
// The byte slices point into the record it was decoded from, or into the decoder's scratch space. They are valid
// until the decoder's next call.
type Usage struct {
	ID     []byte // CloudEvents id
	Source []byte // CloudEvents source; source and id together are the event's identity

	CompanyID []byte
	UserID    []byte
	Tier      []byte
	Service   []byte
	Endpoint  []byte

	Timestamp      int64  // milliseconds since the Unix epoch, what is finer cut off; the event's time where the data has none
	DataPoints     uint32 // data_points_consumed
	ProcessingTime int64  // processing_time_ms in thousandths of a millisecond, half rounded up
	BillingPeriod  []byte // YYYY-MM; the UTC month of Timestamp where the event names none
	Revenue        int64  // revenue_attributed in millionths of the currency unit

	ReservationID []byte // whose hold ends when the event is counted; nil: the event names none. It is not stored
	Voids         *Voids // nil for usage
}

// UsageLimits are the bounds a usage event's timestamp must lie in.
type UsageLimits struct {
	FutureTolerance time.Duration // how far ahead of the record's time; 0 means DefaultFutureTolerance
	MaxAge          time.Duration // how far behind it; 0 means DefaultMaxAge
}
