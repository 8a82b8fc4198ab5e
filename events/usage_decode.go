package events

import (
	"encoding/base64"
	"time"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Limits that hold where UsageLimits names none.
const (
	DefaultFutureTolerance = time.Hour
	// DefaultTenantFuture is how far ahead the time of a company or subscription event may lie. It is short, because nothing of its topic
	// happens to the company before that time any more.
	DefaultTenantFuture = 5 * time.Minute
	// DefaultMaxAge is the shortest length that two years have: the usage table forgets rows of that age.
	DefaultMaxAge = 730 * 24 * time.Hour
)

// A UsageDecoder decodes the events of usage.events. It owns scratch space: one goroutine at a time may use it.
//
// Decoding has two ways with one meaning. The fast one is a single pass over the record that copies and allocates
// nothing: the headers (or, in structured mode, the members of the envelope) are matched by name, and the data, a flat
// object, is read member by member straight into the Usage. It knows how to accept and nothing else: it gives up at the
// first thing it does not expect. Then the general way, through encoding/json and the JSON Schema, decides, and names the
// reason. So the schema is what counts, the reasons are written once, and a test need only show that what the fast way
// accepts the general way accepts with the same values. Voids are rare, and always go the general way.
type UsageDecoder struct {
	limits UsageLimits
	schema *jsonschema.Schema
	voided *jsonschema.Schema // of voids; nil until there was one
	stored bool               // voids are judged by what is stored, and not by the limits
	scan   scanner

	spelled spellings
	period  [7]byte // the default billing period
	base64  []byte  // data that came as data_base64
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

// VoidsOfStored has voids taken whatever their times: for a consumer that holds each against the stored usage, which was within the limits of
// its day.
func (d *UsageDecoder) VoidsOfStored() *UsageDecoder {
	d.stored = true
	return d
}

// Decode reads one record into u. Its byte slices are valid until the next call, and as long as the record's are.
// An accepted event costs no allocation.
//
// The error is a *Rejection with the first reason that applies, in the order malformed_envelope, missing_attribute,
// unknown_type, missing_key, malformed_data, invalid_data, timestamp_in_future, timestamp_too_old; u is then undefined.
func (d *UsageDecoder) Decode(r *Record, now time.Time, u *Usage) error {
	if !d.fast(r, u) {
		if err := d.general(r, u); err != nil {
			return err
		}
	}
	if d.stored && u.Voids != nil {
		return nil
	}
	return d.limits.check(u, time.UnixMilli(u.RecordedAt(now)))
}

// fast accepts an event, or is false.
func (d *UsageDecoder) fast(r *Record, u *Usage) bool {
	if r.Value == nil || len(r.Key) == 0 || !utf8.Valid(r.Key) {
		return false
	}
	d.scan.scratch = d.scan.scratch[:0]
	u.Voids = nil
	var contentType []byte
	found := false
	for i := range r.Headers {
		if r.Headers[i].Key == headerContentType {
			if found {
				return false
			}
			contentType, found = r.Headers[i].Value, true
		}
	}
	if !isEventFormat(contentType) {
		return validAttribute(contentType) && d.binary(r, u)
	}
	if !isStructured(contentType) {
		return false
	}
	return d.structured(r.Value, u)
}

// The attributes of the envelope, as bits of what has been seen.
const (
	hasSpecVersion = 1 << iota
	hasID
	hasSource
	hasType
	hasTime

	hasAllAttributes = 1<<iota - 1
)

// binary reads a record whose attributes are headers and whose value is the data.
func (d *UsageDecoder) binary(r *Record, u *Usage) bool {
	var envelopeTime int64
	seen := 0
	for i := range r.Headers {
		h := &r.Headers[i]
		if len(h.Key) <= len(attributePrefix) || h.Key[:len(attributePrefix)] != attributePrefix {
			continue
		}
		if !validAttribute(h.Value) {
			return false
		}
		bit := attributeBit(h.Key[len(attributePrefix):])
		if bit == 0 {
			continue
		}
		if seen&bit != 0 {
			return false
		}
		seen |= bit
		if !setAttribute(u, bit, h.Value, &envelopeTime) {
			return false
		}
	}
	if seen&hasAllAttributes != hasAllAttributes || !d.whole(r.Value, u) {
		return false
	}
	d.defaults(u, envelopeTime)
	return true
}

// whole reads data that stands alone, with nothing but white space around it.
func (d *UsageDecoder) whole(data []byte, u *Usage) bool {
	end := d.object(data, skipSpace(data, 0), 1, u)
	return end != bad && skipSpace(data, end) == len(data)
}

// structured reads a record that holds the whole event in the JSON format.
func (d *UsageDecoder) structured(text []byte, u *Usage) bool {
	var envelopeTime int64
	var data64 []byte
	seen, hasData := 0, false
	i := skipSpace(text, 0)
	if i >= len(text) || text[i] != '{' {
		return false
	}
	for {
		var name []byte
		if name, i = d.scan.name(text, i+1); i == bad {
			return false
		}
		switch bit := attributeBit(name); {
		case bit != 0 || string(name) == "data_base64":
			var value []byte
			if value, i = d.text(text, i); i == bad {
				return false
			}
			if bit == 0 {
				data64 = value
			} else if seen |= bit; !validAttribute(value) || !setAttribute(u, bit, value, &envelopeTime) {
				return false
			}
		case string(name) == "data":
			if i = d.object(text, i, 2, u); i == bad {
				return false
			}
			hasData = true
		case text[i] == '"':
			var value []byte
			if value, i = d.scan.str(text, i+1); i == bad || !validAttribute(value) {
				return false
			}
		default:
			if i = d.scan.skip(text, i, 1); i == bad {
				return false
			}
		}
		if i = skipSpace(text, i); i >= len(text) {
			return false
		}
		if text[i] == '}' {
			break
		}
		if text[i] != ',' {
			return false
		}
	}
	if seen&hasAllAttributes != hasAllAttributes || skipSpace(text, i+1) != len(text) || hasData == (data64 != nil) {
		return false
	}
	if data64 != nil {
		var err error
		if d.base64, err = base64.StdEncoding.AppendDecode(d.base64[:0], data64); err != nil || !d.whole(d.base64, u) {
			return false
		}
	}
	d.defaults(u, envelopeTime)
	return true
}

// attributeBit gives the bit of an attribute that a header or member may name but once: a required one has the bit
// above, any other known one a bit behind those. It is 0 for all other names.
func attributeBit[T string | []byte](name T) int {
	switch string(name) {
	case "specversion":
		return hasSpecVersion
	case "id":
		return hasID
	case "source":
		return hasSource
	case "type":
		return hasType
	case "time":
		return hasTime
	case "subject":
		return (hasAllAttributes + 1) << 0
	case "datacontenttype":
		return (hasAllAttributes + 1) << 1
	case "dataschema":
		return (hasAllAttributes + 1) << 2
	case "partitionkey":
		return (hasAllAttributes + 1) << 3
	case "traceparent":
		return (hasAllAttributes + 1) << 4
	case "tracestate":
		return (hasAllAttributes + 1) << 5
	case "causationid":
		return (hasAllAttributes + 1) << 6
	case "causationsource":
		return (hasAllAttributes + 1) << 7
	}
	return 0
}

// setAttribute takes over the attributes a usage event needs. It is false when one of them is not as it has to be.
func setAttribute(u *Usage, bit int, value []byte, envelopeTime *int64) bool {
	switch bit {
	case hasSpecVersion:
		return string(value) == "1.0"
	case hasType:
		return string(value) == TypeUsageRecorded
	case hasID:
		u.ID = value
		return len(value) > 0
	case hasSource:
		u.Source = value
		return len(value) > 0
	case hasTime:
		sec, nsec, ok := parseRFC3339(value)
		ok = ok && sec >= firstSecond && sec < endSecond
		*envelopeTime = sec*1000 + int64(nsec/1_000_000)
		return ok
	}
	return true
}
