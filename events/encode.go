package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// timeLayout is how this service writes the attribute time: UTC, as many digits as there are, at most nanoseconds.
const timeLayout = time.RFC3339Nano

// NewResult makes the output event of type eventType that cause has led to. Consumer names its maker: its source is
// /tenantflow/<consumer>. Ordinal counts, from 0, the events of one type with the same cause. At is the business time of
// the effect, and data is its JSON.
//
// The id follows from the cause, so making the result again gives the same event.
func NewResult(consumer string, cause *Envelope, eventType string, ordinal int, at time.Time, data []byte) *Envelope {
	return &Envelope{
		ID:              ResultID(cause.Source, cause.ID, eventType, ordinal),
		Source:          SourceOf(consumer),
		Type:            eventType,
		Time:            at.UTC(),
		DataContentType: "application/json",
		TraceParent:     cause.TraceParent,
		TraceState:      cause.TraceState,
		CausationID:     cause.ID,
		CausationSource: cause.Source,
		Data:            data,
	}
}

// SourceOf is the source of the events a consumer or job of this service publishes.
func SourceOf(consumer string) string { return "/tenantflow/" + consumer }

// attributes lists what an event has, but for specversion, in the order in which it is written.
func (e *Envelope) attributes() []struct{ name, value string } {
	all := []struct{ name, value string }{
		{"id", e.ID}, {"source", e.Source}, {"type", e.Type}, {"time", e.Time.UTC().Format(timeLayout)},
		{"subject", e.Subject}, {"dataschema", e.DataSchema}, {"traceparent", e.TraceParent}, {"tracestate", e.TraceState},
		{"causationid", e.CausationID}, {"causationsource", e.CausationSource},
	}
	kept := all[:0]
	for _, a := range all {
		if a.value != "" {
			kept = append(kept, a)
		}
	}
	return kept
}

// EncodeBinary writes an event in binary content mode: the value is the data, everything else is in headers. The
// partition key is not among them; it is the record's key.
func (e *Envelope) EncodeBinary() (value []byte, headers []Header) {
	headers = append(headers, Header{"ce_specversion", []byte("1.0")})
	for _, a := range e.attributes() {
		headers = append(headers, Header{attributePrefix + a.name, []byte(a.value)})
	}
	contentType := e.DataContentType
	if contentType == "" {
		contentType = "application/json"
	}
	return e.Data, append(headers, Header{headerContentType, []byte(contentType)})
}

// ToStructured writes an event as one line of JSON, without a line feed, in the JSON format of CloudEvents. The key of
// its record travels as the extension partitionkey, absent for an empty key. The error means that the data is not JSON or that
// an attribute is not UTF-8.
func (e *Envelope) ToStructured(key []byte) ([]byte, error) {
	line := bytes.NewBufferString(`{"specversion":"1.0"`)
	write := func(name, value string) error {
		if !validAttribute(value) {
			return fmt.Errorf("write event %s: attribute %s is not UTF-8 or has control characters", quoted(e.ID), name)
		}
		fmt.Fprintf(line, `,"%s":`, name)
		encoder := json.NewEncoder(line)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(value); err != nil {
			return fmt.Errorf("write event %s: attribute %s: %w", quoted(e.ID), name, err)
		}
		line.Truncate(line.Len() - 1) // the line feed Encode adds
		return nil
	}
	for _, a := range e.attributes() {
		if err := write(a.name, a.value); err != nil {
			return nil, err
		}
	}
	if len(key) > 0 {
		if err := write("partitionkey", string(key)); err != nil {
			return nil, err
		}
	}
	if err := write("datacontenttype", "application/json"); err != nil {
		return nil, err
	}
	line.WriteString(`,"data":`)
	if err := json.Compact(line, e.Data); err != nil {
		return nil, fmt.Errorf("write event %s: data: %w", quoted(e.ID), err)
	}
	line.WriteByte('}')
	return line.Bytes(), nil
}

// ParseStructured turns a line ToStructured has written, or any other structured-mode event in JSON, into the key, value
// and headers of its record. The value is the line itself, without white space around it; the key is the extension
// partitionkey, nil when there is none.
//
// It takes no more of the event apart than that, and the error means that the line is no JSON object or has a
// partitionkey that is no string: give the record to a Decoder to have the event checked.
func ParseStructured(line []byte) (key, value []byte, headers []Header, err error) {
	value = bytes.Trim(line, " \t\r\n")
	if key, err = partitionKey(value); err != nil {
		return nil, nil, nil, err
	}
	return key, value, []Header{{headerContentType, []byte(contentTypeStructured)}}, nil
}

func partitionKey(object []byte) (key []byte, err error) {
	var s scanner
	if len(object) == 0 || object[0] != '{' {
		return nil, errNoObject
	}
	i := skipSpace(object, 1)
	if i+1 == len(object) && object[i] == '}' {
		return nil, nil
	}
	for i = 0; ; {
		var name []byte
		if name, i = s.name(object, i+1); i == bad {
			return nil, errNoObject
		}
		start := i
		if i = s.skip(object, i, 1); i == bad {
			return nil, errNoObject
		}
		if string(name) == "partitionkey" {
			switch object[start] {
			case '"':
				value, _ := s.str(object, start+1)
				key = bytes.Clone(value)
			case 'n':
				key = nil
			default:
				return nil, errOddKey
			}
		}
		if i = skipSpace(object, i); i == len(object) {
			return nil, errNoObject
		}
		if object[i] == '}' && i+1 == len(object) {
			return key, nil
		}
		if object[i] != ',' {
			return nil, errNoObject
		}
	}
}

var (
	errNoObject = errors.New("read structured event: it is no JSON object")
	errOddKey   = errors.New("read structured event: partitionkey is no string")
)
