package events

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// general decodes a usage event the way every other type is decoded: encoding/json and the JSON Schema. It is
// the definition of what the fast path has to do, it gives the reason whenever that one does not accept an event, and
// it takes 30 times as long.
func (d *UsageDecoder) general(r *Record, u *Usage) error {
	envelope, err := ParseEnvelope(r)
	if err != nil {
		return err
	}
	schema := d.schema
	switch envelope.Type {
	case TypeUsageRecorded:
	case TypeUsageVoided:
		if rejection := checkVoidSource(envelope); rejection != nil {
			return rejection
		}
		if schema, err = d.voidSchema(); err != nil {
			return err
		}
	default:
		return Reject(UnknownType, "type %s is neither %s nor %s", quotedOr(envelope.Type, likeName), TypeUsageRecorded, TypeUsageVoided)
	}
	if len(r.Key) == 0 {
		return Reject(MissingKey, "the record has no key")
	}
	data, rejection := parseData(envelope.Data)
	if rejection != nil {
		return rejection
	}
	if rejection := checkData(schema, data); rejection != nil {
		return rejection
	}
	if err := envelope.CheckYear(); err != nil {
		return err
	}
	if rejection := checkVoidID(envelope, data); rejection != nil {
		return rejection
	}
	if err := fillUsage(envelope, data, u); err != nil {
		return err
	}
	if envelope.Type == TypeUsageVoided {
		fillVoids(data, u)
	}
	return nil
}

// voidSchema is the schema of voids.
func (d *UsageDecoder) voidSchema() (schema *jsonschema.Schema, err error) {
	if d.voided == nil {
		d.voided, err = compileSchema(TypeUsageVoided)
	}
	return d.voided, err
}

// fillUsage takes the values out of data that its schema has accepted.
func fillUsage(envelope *Envelope, data any, u *Usage) error {
	object, ok := data.(map[string]any)
	if !ok {
		return Reject(InvalidData, "the data is no object")
	}
	text := func(name string) []byte {
		s, _ := object[name].(string)
		return []byte(s)
	}
	amount := func(name string, decimals int) int64 {
		var value int64
		var rest remainder
		switch v := object[name].(type) {
		case json.Number:
			value, rest, _ = fixedPoint([]byte(v), decimals)
		case string:
			value, rest, _ = fixedPoint([]byte(v), decimals) // the pattern allows nothing that is no number
		}
		if rest == halfOrUp {
			value++
		}
		return value
	}

	*u = Usage{
		ID: []byte(envelope.ID), Source: []byte(envelope.Source),
		CompanyID: text("company_id"), UserID: text("user_id"), Tier: text("subscription_tier"),
		Service: text("service_name"), Endpoint: text("api_endpoint"), BillingPeriod: text("billing_period"),
	}
	u.DataPoints = uint32(amount("data_points_consumed", 0)) // the schema bounds it
	u.ProcessingTime = amount("processing_time_ms", 3)
	u.Revenue = amount("revenue_attributed", 6)

	if id := text("reservation_id"); isReservationID(id) {
		u.ReservationID = id
	}

	at := envelope.Time
	if s, ok := object["timestamp"].(string); ok {
		at, _ = parseTime([]byte(s))
	}
	u.Timestamp = at.UnixMilli()
	if len(u.BillingPeriod) == 0 {
		u.BillingPeriod = appendBillingPeriod(nil, u.Timestamp)
	}
	return nil
}

// appendBillingPeriod writes the UTC month of a time in milliseconds as YYYY-MM.
func appendBillingPeriod(b []byte, ms int64) []byte {
	year, month := yearMonth(ms)
	if year < 0 || year > 9999 {
		return strconv.AppendInt(b, int64(year), 10) // cannot pass the time limits
	}
	return append(b, byte('0'+year/1000), byte('0'+year/100%10), byte('0'+year/10%10), byte('0'+year%10), '-',
		byte('0'+month/10), byte('0'+month%10))
}

// check holds a decoded event against the limits.
func (l UsageLimits) check(u *Usage, now time.Time) error {
	ms := now.UnixMilli()
	switch {
	case u.Timestamp > ms+l.FutureTolerance.Milliseconds():
		return Reject(TimestampInFuture, "timestamp %s is more than %s ahead of %s", showTime(u.Timestamp), l.FutureTolerance, showTime(ms))
	case u.Timestamp < ms-l.MaxAge.Milliseconds():
		return Reject(TimestampTooOld, "timestamp %s is more than %s behind %s", showTime(u.Timestamp), l.MaxAge, showTime(ms))
	}
	return nil
}

func showTime(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}
