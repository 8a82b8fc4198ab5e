package events

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Headers of the Kafka protocol binding of CloudEvents.
const (
	headerContentType = "content-type"
	attributePrefix   = "ce_"

	// contentTypeStructured is the content type of a record that holds a whole event in the JSON format.
	contentTypeStructured = "application/cloudevents+json"
	// contentTypeFamily starts every content type that is an event format and not the content type of data.
	contentTypeFamily = "application/cloudevents"
)

// An Envelope is a CloudEvent's attributes and its data, still as bytes.
type Envelope struct {
	ID     string
	Source string
	Type   string
	Time   time.Time // UTC

	Subject         string
	DataContentType string // for information: data is judged by its bytes, not by what it is called
	DataSchema      string

	PartitionKey    string // the key a structured event has outside Kafka
	TraceParent     string
	TraceState      string
	CausationID     string // identity of the event that caused this one
	CausationSource string

	Data []byte // JSON, not checked yet; points into the record unless it was base64
}

// attribute gives the field of a known attribute, nil for any other name.
func (e *Envelope) attribute(name string) *string {
	switch name {
	case "id":
		return &e.ID
	case "source":
		return &e.Source
	case "type":
		return &e.Type
	case "subject":
		return &e.Subject
	case "datacontenttype":
		return &e.DataContentType
	case "dataschema":
		return &e.DataSchema
	case "partitionkey":
		return &e.PartitionKey
	case "traceparent":
		return &e.TraceParent
	case "tracestate":
		return &e.TraceState
	case "causationid":
		return &e.CausationID
	case "causationsource":
		return &e.CausationSource
	}
	return nil
}

// ParseEnvelope reads a record as a CloudEvent 1.0 in binary or structured content mode, as the Kafka protocol binding
// 1.0.2 defines them. A record whose content-type begins with application/cloudevents is in structured mode, and JSON is
// the one format understood; every other record is in binary mode.
//
// It is strict where leniency would make identities ambiguous or let broken text into a store:
//   - attributes and key are UTF-8, attributes without control characters and noncharacters (CloudEvents allows none),
//   - the header of a known attribute, or content-type, twice is refused (in JSON the last of two equal names wins, as in
//     encoding/json),
//   - data is UTF-8 whatever its content type says.
//
// The error is a *Rejection: too_large, then malformed_envelope before missing_attribute.
func ParseEnvelope(r *Record) (*Envelope, error) {
	if r.Large != nil {
		return nil, r.Large.Rejection()
	}
	if r.Value == nil {
		return nil, Reject(MalformedEnvelope, "the record is a tombstone (it has no value)")
	}
	if !utf8.Valid(r.Key) {
		return nil, Reject(MalformedEnvelope, "the key is not UTF-8")
	}
	contentType, rejection := contentTypeOf(r.Headers)
	if rejection != nil {
		return nil, rejection
	}
	var attributes rawAttributes
	if isEventFormat([]byte(contentType)) {
		if !isStructured([]byte(contentType)) {
			return nil, Reject(MalformedEnvelope, "content type %s is no event format this service reads", quotedOr(contentType, likeName))
		}
		attributes, rejection = structuredAttributes(r.Value)
	} else {
		attributes, rejection = binaryAttributes(r, contentType)
	}
	if rejection != nil {
		return nil, rejection
	}
	return attributes.check()
}

// rawAttributes are an event's attributes before the rules that both content modes share are applied.
type rawAttributes struct {
	envelope    Envelope
	specVersion string
	time        string
}

func (a *rawAttributes) set(name, value string) *Rejection {
	if !validAttribute(value) {
		return rejectValue(MalformedEnvelope, fmt.Sprintf("%s (%d bytes) is not UTF-8 or has control characters", attributeNamed(name), len(value)),
			fmt.Sprintf("attribute %s is not UTF-8 or has control characters: %s", quoted(name), quoted(value)))
	}
	switch name {
	case "specversion":
		a.specVersion = value
	case "time":
		a.time = value
	default:
		if field := a.envelope.attribute(name); field != nil {
			*field = value
		}
	}
	return nil
}

func (a *rawAttributes) check() (*Envelope, error) {
	e := &a.envelope
	if a.specVersion != "" && a.specVersion != "1.0" {
		return nil, Reject(MalformedEnvelope, "specversion is %s, not 1.0", quotedOr(a.specVersion, likeNumber))
	}
	if a.time != "" {
		t, ok := parseTime([]byte(a.time))
		if !ok {
			return nil, Reject(MalformedEnvelope, "attribute time is no RFC 3339 timestamp: %s", quotedOr(a.time, likeNumber))
		}
		e.Time = t
	}
	for _, required := range []struct{ name, value string }{
		{"specversion", a.specVersion}, {"id", e.ID}, {"source", e.Source}, {"type", e.Type}, {"time", a.time},
	} {
		if required.value == "" {
			return nil, Reject(MissingAttribute, "attribute %s is absent or empty", required.name)
		}
	}
	return e, nil
}

// binaryAttributes collects the attributes of a record whose value is the data.
func binaryAttributes(r *Record, contentType string) (rawAttributes, *Rejection) {
	var a rawAttributes
	seen := make(map[string]bool, len(r.Headers))
	for _, h := range r.Headers {
		name, ok := strings.CutPrefix(h.Key, attributePrefix)
		if !ok {
			continue
		}
		if seen[name] && attributeBit(name) != 0 {
			return a, Reject(MalformedEnvelope, "header %s occurs twice", quoted(h.Key))
		}
		seen[name] = true
		if rejection := a.set(name, string(h.Value)); rejection != nil {
			return a, rejection
		}
	}
	if len(seen) == 0 {
		return a, Reject(MalformedEnvelope, "no CloudEvent: there is no ce_ header, and the content type is %s, not %s",
			quotedOr(contentType, likeName), contentTypeStructured)
	}
	if rejection := a.set("datacontenttype", contentType); rejection != nil {
		return a, rejection
	}
	if !utf8.Valid(r.Value) {
		return a, Reject(MalformedEnvelope, "the data is not UTF-8")
	}
	a.envelope.Data = r.Value
	return a, nil
}

// structuredAttributes collects the attributes of an event in the JSON format.
func structuredAttributes(value []byte) (rawAttributes, *Rejection) {
	var a rawAttributes
	if !utf8.Valid(value) {
		return a, Reject(MalformedEnvelope, "the event is not UTF-8")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(value, &members); err != nil {
		return a, Reject(MalformedEnvelope, "the event is no JSON object: %v", err)
	}
	if members == nil {
		return a, Reject(MalformedEnvelope, "the event is null")
	}
	for name, raw := range members {
		if name == "data" || name == "data_base64" {
			continue
		}
		text, present, ok := attributeText(raw)
		if isCoreAttribute(name) && present && raw[0] != '"' || !ok && attributeBit(name) != 0 {
			return a, Reject(MalformedEnvelope, "%s has a value of a wrong kind", attributeNamed(name))
		}
		if !ok || !present {
			continue
		}
		if rejection := a.set(name, text); rejection != nil {
			return a, rejection
		}
	}

	data, hasData := members["data"]
	if raw, present := members["data_base64"]; present && string(raw) != "null" {
		if hasData {
			return a, Reject(MalformedEnvelope, "the event has data and data_base64")
		}
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return a, Reject(MalformedEnvelope, "data_base64 is no string")
		}
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return a, Reject(MalformedEnvelope, "data_base64 is not base64: %v", err)
		}
		if !utf8.Valid(decoded) {
			return a, Reject(MalformedEnvelope, "the data is not UTF-8")
		}
		data = decoded
	}
	a.envelope.Data = data
	return a, nil
}

// attributeText gives an attribute of the JSON format as text. A null attribute is the same as an absent one; numbers
// and booleans, which extensions may have, keep their JSON text. It is not ok for objects and arrays, which no
// attribute may be.
func attributeText(raw json.RawMessage) (text string, present, ok bool) {
	switch raw[0] {
	case 'n':
		return "", false, true
	case '"':
		err := json.Unmarshal(raw, &text)
		return text, true, err == nil
	case '{', '[':
		return "", true, false
	}
	return string(raw), true, true
}

// isCoreAttribute reports whether CloudEvents itself defines an attribute; those are all strings, unlike extensions.
func isCoreAttribute(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema":
		return true
	}
	return false
}

func contentTypeOf(headers []Header) (string, *Rejection) {
	contentType, seen := "", false
	for _, h := range headers {
		if h.Key != headerContentType {
			continue
		}
		if seen {
			return "", Reject(MalformedEnvelope, "header content-type occurs twice")
		}
		contentType, seen = string(h.Value), true
	}
	return contentType, nil
}

// isEventFormat reports whether the mode is structured, not binary: the binding asks for nothing but the prefix.
func isEventFormat(contentType []byte) bool {
	return len(contentType) >= len(contentTypeFamily) &&
		bytes.EqualFold(contentType[:len(contentTypeFamily)], []byte(contentTypeFamily))
}

// isStructured reports whether an event format is the one this service reads, whatever its parameters are.
func isStructured(contentType []byte) bool {
	name, _, _ := bytes.Cut(contentType, []byte{';'})
	return bytes.EqualFold(bytes.TrimSpace(name), []byte(contentTypeStructured))
}

// ValidAttribute reports whether s may be an attribute of a CloudEvent: UTF-8 without control characters and noncharacters.
func ValidAttribute(s string) bool { return validAttribute(s) }

// validAttribute reports whether a text may be the value of a CloudEvents attribute: UTF-8 without control characters
// (U+0000-001F, U+007F-009F) and without noncharacters.
func validAttribute[T string | []byte](s T) bool {
	i := 0
	for ; i+8 <= len(s) && printable(word(s[i:i+8])); i += 8 {
	}
	for ; i < len(s); i++ {
		if c := s[i]; c >= utf8.RuneSelf {
			return validUnicodeAttribute([]byte(s[i:]))
		} else if c < 0x20 || c == 0x7f {
			return false
		}
	}
	return true
}

// word is eight bytes as one number.
func word[T string | []byte](s T) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// printable reports whether all eight bytes are ASCII and no control characters. See plainEnd.
func printable(x uint64) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	deleted := x ^ 0x7f*ones
	return (((x-0x20*ones)&^x)|((deleted-ones)&^deleted)|x)&highs == 0
}

func validUnicodeAttribute(s []byte) bool {
	if !utf8.Valid(s) {
		return false
	}
	for _, r := range string(s) {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe {
			return false
		}
	}
	return true
}

// attributeNamed names an attribute. The name of an extension is the sender's, and may be anything.
func attributeNamed(name string) string {
	if attributeBit(name) == 0 {
		return "an attribute that is an extension"
	}
	return "attribute " + name
}

// quoted shows a hostile text to a person: on one line, printable, and not too long.
func quoted(s string) string {
	const most = 80
	if len(s) <= most {
		return quoteASCII(s)
	}
	return quoteASCII(s[:most]) + "..."
}

// isBlank reports whether there is nothing but JSON's white space.
func isBlank(data []byte) bool { return len(bytes.TrimLeft(data, " \t\r\n")) == 0 }
