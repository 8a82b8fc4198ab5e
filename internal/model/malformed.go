package model

import (
	"strconv"
	"strings"

	"tenantflow/events"
	"tenantflow/internal/generate"
)

// A draft is an event taken apart, so that a flaw can be put into it before it becomes a message.
type draft struct {
	key        []byte // nil: the record has no key
	attributes []field
	data       []field // members of the data, values as JSON
	rawData    *string // instead of data, when set
	value      *[]byte // instead of the whole value, when set; nil is a tombstone
}

type field struct{ name, value string }

// A flaw is one way in which a message can be wrong, and what the service must say to it.
type flaw struct {
	name   string
	reason events.Reason
	mode   Mode // the content mode the flaw needs; AnyMode when both do
	put    func(*draft)
}

// flaws returns all of them. Malformed messages go through the list in order, so every flaw occurs equally often.
func flaws() []flaw {
	const (
		farFuture = `"2098-01-01T00:00:00Z"`
		farPast   = `"2001-01-01T00:00:00Z"`
	)
	return []flaw{
		{"a tombstone", events.MalformedEnvelope, Binary, value(nil)},
		{"no CloudEvents headers", events.MalformedEnvelope, Binary, func(d *draft) { d.attributes = nil }},
		{"an unknown version of CloudEvents", events.MalformedEnvelope, AnyMode, attribute("specversion", "0.3")},
		{"an id that is not UTF-8", events.MalformedEnvelope, Binary, attribute("id", "id-\xff\xfe")},
		{"an id with a control character", events.MalformedEnvelope, Binary, attribute("id", "line\nbreak")},
		{"a time that is none", events.MalformedEnvelope, AnyMode, attribute("time", "yesterday")},
		{"data that is not UTF-8", events.MalformedEnvelope, Binary, member("api_endpoint", "\"/v1/\xc3\x28\"")},
		{"a structured event that is not JSON", events.MalformedEnvelope, Structured, value([]byte(`{"specversion":"1.0","id":`))},
		{"a structured event that is not UTF-8", events.MalformedEnvelope, Structured, value([]byte("{\"id\":\"\xa0\xa1\"}"))},
		{"a structured event that is a list", events.MalformedEnvelope, Structured, value([]byte(`[{"specversion":"1.0"}]`))},

		{"no id", events.MissingAttribute, AnyMode, withoutAttribute("id")},
		{"an empty id", events.MissingAttribute, AnyMode, attribute("id", "")},
		{"no source", events.MissingAttribute, AnyMode, withoutAttribute("source")},
		{"no type", events.MissingAttribute, AnyMode, withoutAttribute("type")},
		{"no time", events.MissingAttribute, AnyMode, withoutAttribute("time")},
		{"no version of CloudEvents", events.MissingAttribute, AnyMode, withoutAttribute("specversion")},

		{"no key", events.MissingKey, AnyMode, func(d *draft) { d.key = nil }},
		{"an unknown type", events.UnknownType, AnyMode, attribute("type", "usage.recorded.v999")},
		{"a type of another topic", events.UnknownType, AnyMode, attribute("type", "subscription.renewed.v1")},

		{"data cut off", events.MalformedData, Binary, data(`{"company_id":"acme-0001","user_id":`)},
		{"data that is not JSON", events.MalformedData, Binary, data(`company_id=acme-0001&user_id=u-1`)},
		{"data with something behind it", events.MalformedData, Binary, data(`{} {}`)},

		{"data that is a list", events.InvalidData, AnyMode, data(`[1,2,3]`)},
		{"data that is null", events.InvalidData, Binary, data(`null`)},
		{"no company", events.InvalidData, AnyMode, withoutMember("company_id")},
		{"no user", events.InvalidData, AnyMode, withoutMember("user_id")},
		{"no service", events.InvalidData, AnyMode, withoutMember("service_name")},
		{"no data points", events.InvalidData, AnyMode, withoutMember("data_points_consumed")},
		{"a company that is a number", events.InvalidData, AnyMode, member("company_id", `4711`)},
		{"a company that is SQL", events.InvalidData, AnyMode, member("company_id", `"x'; DROP TABLE usage_tracking; --"`)},
		{"a company that is a path", events.InvalidData, AnyMode, member("company_id", `"../../etc/passwd"`)},
		{"a company that is too long", events.InvalidData, AnyMode, member("company_id", `"`+strings.Repeat("c", 51)+`"`)},
		{"a user in braces", events.InvalidData, AnyMode, member("user_id", `"u-1}:{u-2"`)},
		{"an empty user", events.InvalidData, AnyMode, member("user_id", `""`)},
		{"a user with a zero byte", events.InvalidData, AnyMode, member("user_id", `"u-1\u0000"`)},
		{"a tier with a space", events.InvalidData, AnyMode, member("subscription_tier", `"Gold Plus"`)},
		{"negative data points", events.InvalidData, AnyMode, member("data_points_consumed", `-1`)},
		{"fractional data points", events.InvalidData, AnyMode, member("data_points_consumed", `1.5`)},
		{"data points beyond 32 bits", events.InvalidData, AnyMode, member("data_points_consumed", `4294967296`)},
		{"absurd data points", events.InvalidData, AnyMode, member("data_points_consumed", `1e999`)},
		{"data points as text", events.InvalidData, AnyMode, member("data_points_consumed", `"12"`)},
		{"a negative processing time", events.InvalidData, AnyMode, member("processing_time_ms", `-0.5`)},
		{"a processing time as text", events.InvalidData, AnyMode, member("processing_time_ms", `"fast"`)},
		{"negative revenue", events.InvalidData, AnyMode, member("revenue_attributed", `"-1"`)},
		{"revenue with seven decimals", events.InvalidData, AnyMode, member("revenue_attributed", `"0.0000001"`)},
		{"a billing period without that month", events.InvalidData, AnyMode, member("billing_period", `"2026-13"`)},
		{"a timestamp that is none", events.InvalidData, AnyMode, member("timestamp", `"2026-02-30T00:00:00Z"`)},

		{"a timestamp of the future", events.TimestampInFuture, AnyMode, member("timestamp", farFuture)},
		{"an ancient timestamp", events.TimestampTooOld, AnyMode, member("timestamp", farPast)},
	}
}

func value(v []byte) func(*draft)   { return func(d *draft) { d.value = &v } }
func data(text string) func(*draft) { return func(d *draft) { d.rawData = &text } }

func attribute(name, value string) func(*draft) {
	return func(d *draft) { d.attributes = with(d.attributes, name, value) }
}

func withoutAttribute(name string) func(*draft) {
	return func(d *draft) { d.attributes = without(d.attributes, name) }
}

func member(name, json string) func(*draft) {
	return func(d *draft) { d.data = with(d.data, name, json) }
}

func withoutMember(name string) func(*draft) {
	return func(d *draft) { d.data = without(d.data, name) }
}

func with(fields []field, name, value string) []field {
	return append(without(fields, name), field{name, value})
}

func without(fields []field, name string) []field {
	kept := fields[:0]
	for _, f := range fields {
		if f.name != name {
			kept = append(kept, f)
		}
	}
	return kept
}

// draftOf takes the event apart. Its id is one of a kind and begins with "flawed-".
func draftOf(e *generate.Event) draft {
	text := func(append func([]byte) []byte) string { return string(append(nil)) }
	return draft{
		key: e.AppendKey(nil),
		attributes: []field{
			{"specversion", "1.0"},
			{"id", "flawed-" + strconv.FormatUint(e.Number, 10)},
			{"source", text(e.AppendSource)},
			{"type", events.TypeUsageRecorded},
			{"time", text(func(b []byte) []byte { return generate.AppendTime(b, e.Time) })},
		},
		data: []field{
			{"company_id", `"` + text(func(b []byte) []byte { return generate.AppendCompanyID(b, e.Company) }) + `"`},
			{"user_id", `"` + text(func(b []byte) []byte { return generate.AppendUserID(b, e.Company, e.User) }) + `"`},
			{"subscription_tier", `"` + generate.Tiers[e.Tier] + `"`},
			{"service_name", `"` + generate.Services[e.Service] + `"`},
			{"api_endpoint", `"` + text(e.AppendEndpoint) + `"`},
			{"data_points_consumed", strconv.FormatUint(uint64(e.DataPoints), 10)},
			{"processing_time_ms", text(func(b []byte) []byte { return generate.AppendDecimal(b, e.Processing, 3) })},
		},
	}
}

// message writes the draft in one of the content modes.
func (d *draft) message(mode Mode) Message {
	m := Message{Key: d.key, Mode: mode}
	if mode == Structured {
		m.Headers = []events.Header{{Key: contentTypeHeader, Value: []byte(structuredContentType)}}
		m.Value = d.structured()
	} else {
		m.Mode = Binary
		m.Headers = []events.Header{{Key: contentTypeHeader, Value: []byte(dataContentType)}}
		for _, a := range d.attributes {
			m.Headers = append(m.Headers, events.Header{Key: "ce_" + a.name, Value: []byte(a.value)})
		}
		m.Value = []byte(d.dataText())
	}
	if d.value != nil {
		m.Value = *d.value
	}
	return m
}

func (d *draft) structured() []byte {
	b := []byte{'{'}
	for _, a := range d.attributes {
		b = append(b, '"')
		b = append(b, a.name...)
		b = append(b, `":`...)
		b = generate.AppendString(b, []byte(a.value))
		b = append(b, ',')
	}
	b = append(b, `"data":`...)
	b = append(b, d.dataText()...)
	return append(b, '}')
}

func (d *draft) dataText() string {
	if d.rawData != nil {
		return *d.rawData
	}
	var b strings.Builder
	for i, f := range d.data {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(`"` + f.name + `":` + f.value)
	}
	b.WriteByte('}')
	return b.String()
}
