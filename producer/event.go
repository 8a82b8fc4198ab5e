package producer

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"tenantflow/events"
)

// An Event is one use of a service by a user, to be counted and billed. Fields without a default are required.
type Event struct {
	// ID and the producer's source are the event's identity. Default: a UUID v7, made by Enqueue. Make it yourself, when the call is served,
	// if the event is written down before it is enqueued.
	ID string
	// Time is when the call was served, from the year 2000 to 9998. Default: the time of Enqueue.
	Time time.Time
	// TraceParent and TraceState are the W3C trace context of the call. Default: none.
	TraceParent, TraceState string

	CompanyID string // [A-Za-z0-9_-]{1,50}
	UserID    string // likewise; unique over the platform
	Tier      string // the user's subscription tier, [a-z0-9_-]{1,20}
	Service   string // what was used, such as market-data
	Endpoint  string // and where, such as /v1/ticks

	DataPoints     uint32
	ProcessingTime time.Duration // kept to microseconds, half rounded up; 0 or more

	// Timestamp is the time the use counts for, kept to milliseconds. Default: Time.
	Timestamp time.Time
	// BillingPeriod is a month as YYYY-MM. Default: the UTC month of Timestamp.
	BillingPeriod string
	// Revenue is an exact amount of the company's currency in decimal digits: at most 12, a point and 6. Default: 0.
	Revenue string
	// ReservationID is that of the hold that ends when the event is counted, [A-Za-z0-9_-]{1,64}; see Reservations. Default: none.
	ReservationID string
}

// A FieldError says which field of an event is wrong, and what would be right. Nothing was sent.
type FieldError struct {
	Field string // as in the event's data, such as company_id; for attributes id, source, time, traceparent, tracestate
	Value string
	Want  string
}

func (e *FieldError) Error() string {
	const most = 80
	value := e.Value
	if len(value) > most {
		value = value[:most] + "..."
	}
	return fmt.Sprintf("usage event: %s is %s; want %s", e.Field, strconv.QuoteToASCII(value), e.Want)
}

// data is an event's data as its schema names it.
type data struct {
	CompanyID      string      `json:"company_id"`
	UserID         string      `json:"user_id"`
	Tier           string      `json:"subscription_tier"`
	Service        string      `json:"service_name"`
	Endpoint       string      `json:"api_endpoint"`
	DataPoints     uint32      `json:"data_points_consumed"`
	ProcessingTime json.Number `json:"processing_time_ms"`
	Timestamp      string      `json:"timestamp,omitempty"`
	BillingPeriod  string      `json:"billing_period,omitempty"`
	Revenue        string      `json:"revenue_attributed,omitempty"`
	ReservationID  string      `json:"reservation_id,omitempty"`
}

// complete fills in what makes the event the same one when it is sent again.
func (e *Event) complete(now time.Time) error {
	if e.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("make the id of a usage event: %w", err)
		}
		e.ID = id.String()
	}
	if e.Time.IsZero() {
		e.Time = now
	}
	e.Time = e.Time.UTC().Round(0) // without the monotonic clock
	return nil
}

// check names the first field that the service would refuse. It is stricter in two things: service_name and api_endpoint may not be empty, which in Go
// is a field that was forgotten, and a reservation_id must be one, or it would end no hold.
func (e *Event) check() error {
	const id, text = "1 to 50 of A-Z a-z 0-9 _ -", "valid UTF-8, and not empty"
	wrong := func(field, value, want string) error { return &FieldError{field, value, want} }
	switch {
	case !events.ValidAttribute(e.ID):
		return wrong("id", e.ID, "UTF-8 without control characters; leave it empty to get one")
	case !events.ValidAttribute(e.TraceParent):
		return wrong("traceparent", e.TraceParent, "UTF-8 without control characters")
	case !events.ValidAttribute(e.TraceState):
		return wrong("tracestate", e.TraceState, "UTF-8 without control characters")
	case !events.ValidTime(e.Time):
		return wrong("time", e.Time.String(), "a year from 2000 to 9998")
	case !events.ValidID(e.CompanyID):
		return wrong("company_id", e.CompanyID, id)
	case !events.ValidID(e.UserID):
		return wrong("user_id", e.UserID, id)
	case !events.ValidTier(e.Tier):
		return wrong("subscription_tier", e.Tier, "1 to 20 of a-z 0-9 _ -")
	case e.Service == "" || !utf8.ValidString(e.Service):
		return wrong("service_name", e.Service, text)
	case e.Endpoint == "" || !utf8.ValidString(e.Endpoint):
		return wrong("api_endpoint", e.Endpoint, text)
	case e.ProcessingTime < 0:
		return wrong("processing_time_ms", e.ProcessingTime.String(), "0 or more")
	case !e.Timestamp.IsZero() && !events.ValidTime(e.Timestamp):
		return wrong("timestamp", e.Timestamp.String(), "a year from 2000 to 9998, or none for the event's time")
	case e.BillingPeriod != "" && !events.ValidMonth(e.BillingPeriod):
		return wrong("billing_period", e.BillingPeriod, "a month as YYYY-MM, or none for that of the timestamp")
	case e.Revenue != "" && !amount(e.Revenue):
		return wrong("revenue_attributed", e.Revenue, "a decimal of 0 or more such as 0.0012, at most 12 digits before the point and 6 behind it")
	case e.ReservationID != "" && !events.ValidReservationID(e.ReservationID):
		return wrong("reservation_id", e.ReservationID, "1 to 64 of A-Z a-z 0-9 _ -, or none")
	}
	return nil
}

// encode makes the value and headers of the event's record, in binary mode.
func (e *Event) encode(source string) (value []byte, headers []events.Header, err error) {
	d := data{
		CompanyID: e.CompanyID, UserID: e.UserID, Tier: e.Tier, Service: e.Service, Endpoint: e.Endpoint,
		DataPoints: e.DataPoints, ProcessingTime: milliseconds(e.ProcessingTime),
		BillingPeriod: e.BillingPeriod, Revenue: e.Revenue, ReservationID: e.ReservationID,
	}
	if !e.Timestamp.IsZero() {
		d.Timestamp = e.Timestamp.UTC().Format(time.RFC3339Nano)
	}
	text, err := json.Marshal(d)
	if err != nil {
		return nil, nil, fmt.Errorf("encode usage event %s: %w", e.ID, err)
	}
	envelope := events.Envelope{
		ID: e.ID, Source: source, Type: events.TypeUsageRecorded, Time: e.Time,
		TraceParent: e.TraceParent, TraceState: e.TraceState, Data: text,
	}
	value, headers = envelope.EncodeBinary()
	return value, headers, nil
}

// milliseconds writes a duration in milliseconds with three decimals.
func milliseconds(d time.Duration) json.Number {
	micros := int64(d / time.Microsecond)
	if d%time.Microsecond >= time.Microsecond/2 {
		micros++
	}
	return json.Number(fmt.Sprintf("%d.%03d", micros/1000, micros%1000))
}

// amount is the pattern of revenue_attributed: ^[0-9]{1,12}(\.[0-9]{1,6}0*)?$
func amount(s string) bool {
	whole, decimals := s, "0"
	for i, c := range []byte(s) {
		if c == '.' {
			whole, decimals = s[:i], s[i+1:]
			break
		}
	}
	for len(decimals) > 6 && decimals[len(decimals)-1] == '0' {
		decimals = decimals[:len(decimals)-1]
	}
	return len(whole) >= 1 && len(whole) <= 12 && digits(whole) && len(decimals) >= 1 && len(decimals) <= 6 && digits(decimals)
}

func digits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
