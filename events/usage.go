package events

import "time"

// Usage is a usage.recorded.v1 event, decoded and checked.
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

	Timestamp      int64  // milliseconds since the Unix epoch
	DataPoints     uint32 // data_points_consumed
	ProcessingTime int64  // processing_time_ms in thousandths of a millisecond
	BillingPeriod  []byte // YYYY-MM
	Revenue        int64  // revenue_attributed in millionths of the currency unit
}

// UsageLimits are the bounds a usage event's timestamp must lie in.
type UsageLimits struct {
	FutureTolerance time.Duration // how far ahead of the service's clock; default 1h
	MaxAge          time.Duration // how far behind it
}
