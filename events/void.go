package events

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// UsageVoided is the data of usage.voided.v1: the whole data of the usage that it takes back, and which one that is. The event is this
// service's own, and stands in the partition of that usage, behind it.
type UsageVoided struct {
	CompanyID string
	UserID    string
	Tier      string
	Service   string
	Endpoint  string

	Timestamp      time.Time // of the usage, to the millisecond
	DataPoints     uint32
	ProcessingTime int64 // in thousandths of a millisecond
	BillingPeriod  string
	Revenue        int64 // in millionths of the currency unit

	VoidsSource     string // identity of the usage
	VoidsID         string
	VoidsRecordedAt time.Time // the broker time of the usage's record: its time limits are judged by it once more
	Reason          string
	Uncounted       bool // the usage's record was not for the quota: its void takes nothing off the day
}

// VoidSource is the source of voids. No other source may take usage back.
func VoidSource() string { return SourceOf("company") }

// VoidID is the id of the void of one usage: the UUID version 5 of "<source>\n<id>\n<timestamp>\nusage.voided.v1\n0", with the
// timestamp of the usage in UTC and milliseconds. So voiding a usage twice gives one event.
func VoidID(source, id string, timestamp time.Time) string {
	return nameID(source + "\n" + id + "\n" + timestamp.UTC().Format("2006-01-02T15:04:05.000Z") + "\n" + TypeUsageVoided + "\n0")
}

// Event makes the void that a request (cause) has led to. At is the business time of the request.
func (v *UsageVoided) Event(cause *Envelope, at time.Time) (*Envelope, error) {
	members := map[string]any{
		"company_id": v.CompanyID, "user_id": v.UserID, "subscription_tier": v.Tier, "service_name": v.Service, "api_endpoint": v.Endpoint,
		"timestamp": showTime(v.Timestamp.UnixMilli()), "data_points_consumed": v.DataPoints,
		"processing_time_ms": json.Number(showFixed(v.ProcessingTime, 3)), "billing_period": v.BillingPeriod,
		"revenue_attributed": showFixed(v.Revenue, 6),
		"voids_source":       v.VoidsSource, "voids_id": v.VoidsID, "voids_recorded_at": showTime(v.VoidsRecordedAt.UnixMilli()), "reason": v.Reason,
	}
	if v.Uncounted {
		members["voids_counted"] = false
	}
	data, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("write the void of a usage: %w", err)
	}
	return &Envelope{
		ID: VoidID(v.VoidsSource, v.VoidsID, v.Timestamp), Source: VoidSource(), Type: TypeUsageVoided, Time: at.UTC(),
		DataContentType: "application/json", TraceParent: cause.TraceParent, TraceState: cause.TraceState,
		CausationID: cause.ID, CausationSource: cause.Source, Data: data,
	}, nil
}

// showFixed writes a value of at least 0 in units of 10^-decimals.
func showFixed(value int64, decimals int) string {
	unit := pow10(int64(decimals))
	return strconv.FormatInt(value/unit, 10) + "." + strconv.FormatInt(unit+value%unit, 10)[1:]
}

// Voids names the usage that an event takes back.
type Voids struct {
	Source, ID []byte
	RecordedAt int64 // milliseconds since the Unix epoch: the broker time of that usage's record
	Uncounted  bool  // that usage's record was published for other consumers than the quota, which has not counted it
}

// Sign is 1 for usage and -1 for a void.
func (u *Usage) Sign() int8 {
	if u.Voids != nil {
		return -1
	}
	return 1
}

// RecordedAt is the time, in milliseconds since the Unix epoch, that the event's timestamp is judged by: that of its record or, for a
// void, of the record of its usage. A void comes days later, and has the effect of its usage, whatever its own time is.
func (u *Usage) RecordedAt(record time.Time) int64 {
	if u.Voids != nil {
		return u.Voids.RecordedAt
	}
	return record.UnixMilli()
}

// TakesNothingOff reports whether an event is the void of usage that the quota has not counted.
func (u *Usage) TakesNothingOff() bool { return u.Voids != nil && u.Voids.Uncounted }

// checkVoidSource refuses voids of anyone but this service.
func checkVoidSource(e *Envelope) *Rejection {
	if e.Type == TypeUsageVoided && e.Source != VoidSource() {
		return Reject(MalformedEnvelope, "%s is this service's own event, of the source %s", TypeUsageVoided, VoidSource())
	}
	return nil
}

// checkVoidID refuses a void whose id is not that of the usage which its data names. The data follow their schema.
func checkVoidID(e *Envelope, data any) *Rejection {
	if e.Type != TypeUsageVoided {
		return nil
	}
	m, _ := data.(map[string]any)
	o := object(m)
	if id := VoidID(o.text("voids_source"), o.text("voids_id"), o.time("timestamp", e.Time)); e.ID != id {
		return Reject(MalformedEnvelope, "the id of a %s follows from the usage that it takes back, and should be %s", TypeUsageVoided, id)
	}
	return nil
}

// fillVoids takes out of data that its schema has accepted what it takes back.
func fillVoids(data any, u *Usage) {
	m, _ := data.(map[string]any)
	o := object(m)
	counted, said := m["voids_counted"].(bool)
	u.Voids = &Voids{
		Uncounted: said && !counted,
		Source:    []byte(o.text("voids_source")), ID: []byte(o.text("voids_id")),
		RecordedAt: o.time("voids_recorded_at", time.Time{}).UnixMilli(),
	}
}
