package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"tenantflow/schemas"
)

// An Event is a CloudEvent whose type belongs to its topic, whose key follows the topic's rule and whose data is valid
// against the type's schema.
type Event struct {
	Envelope        // Data is a copy: the event outlives its record
	Key      string // the record's key
}

// Identity is what makes two events the same one.
func (e *Event) Identity() (source, id string) { return e.Source, e.ID }

// CheckTime holds the time of an event against the service's clock: what it does is dated to that time, and nothing that happens
// to its company later is dated before it. The error is a *Rejection, timestamp_in_future.
func (e *Event) CheckTime(now time.Time, tolerance time.Duration) error {
	if e.Time.After(now.Add(tolerance)) {
		return Reject(TimestampInFuture, "time %s is more than %s ahead of %s", showTime(e.Time.UnixMilli()), tolerance, showTime(now.UnixMilli()))
	}
	return nil
}

// A Decoder reads the events of all topics. It is meant for topics with hundreds of events a second; usage events have
// a decoder of their own. A Decoder may be used by several goroutines at once.
type Decoder struct {
	prefix  string
	topics  map[string]TopicInfo // by the name without prefix
	schemas map[string]*jsonschema.Schema
}

// NewDecoder makes a decoder for the topics of an installation with the given topic prefix, "" for none. The error
// means that an embedded schema is broken.
func NewDecoder(topicPrefix string) (*Decoder, error) {
	d := &Decoder{prefix: topicPrefix, topics: map[string]TopicInfo{}, schemas: map[string]*jsonschema.Schema{}}
	for _, topic := range Topics() {
		d.topics[topic.Name] = topic
		for _, eventType := range topic.Types {
			schema, err := compileSchema(eventType)
			if err != nil {
				return nil, err
			}
			d.schemas[eventType] = schema
		}
	}
	return d, nil
}

// Decode reads one record of one of the decoder's topics. The error is a *Rejection, and of several reasons it names
// the first of malformed_envelope, missing_attribute, unknown_type, missing_key, malformed_data, key_mismatch,
// invalid_data and, for a time outside the years 2000 to 9998, timestamp_too_old or timestamp_in_future. (The key is compared with the company_id of the data, so data that is no JSON comes before it.)
func (d *Decoder) Decode(r *Record) (*Event, error) {
	envelope, err := ParseEnvelope(r)
	if err != nil {
		return nil, err
	}
	topic, ok := d.topics[strings.TrimPrefix(r.Topic, d.prefix)]
	if !ok || !strings.HasPrefix(r.Topic, d.prefix) {
		return nil, Reject(UnknownType, "the topic %s has no types", quoted(r.Topic))
	}
	if !topic.carries(envelope.Type) {
		return nil, Reject(UnknownType, "type %s is none of the topic %s", quotedOr(envelope.Type, likeName), topic.Name)
	}
	if rejection := checkVoidSource(envelope); rejection != nil {
		return nil, rejection
	}
	if rejection := checkSlotSource(envelope); rejection != nil {
		return nil, rejection
	}
	if len(r.Key) == 0 {
		return nil, Reject(MissingKey, "the record has no key")
	}
	data, rejection := parseData(envelope.Data)
	if rejection != nil {
		return nil, rejection
	}
	if topic.KeyRule == KeyCompany {
		if object, ok := data.(map[string]any); ok {
			if company, ok := object["company_id"].(string); ok && company != string(r.Key) {
				return nil, rejectValue(KeyMismatch, fmt.Sprintf("the key (%d bytes) is not the data's company_id (%d bytes)", len(r.Key), len(company)),
					fmt.Sprintf("the key is %s, but company_id is %s", quoted(string(r.Key)), quoted(company)))
			}
		}
	}
	if rejection := d.check(envelope.Type, data); rejection != nil {
		return nil, rejection
	}
	if rejection := checkVoidID(envelope, data); rejection != nil {
		return nil, rejection
	}
	if rejection := checkSlot(envelope, string(r.Key), data); rejection != nil {
		return nil, rejection
	}
	event := &Event{Envelope: *envelope, Key: string(r.Key)}
	event.Data = bytes.Clone(envelope.Data)
	if topic.KeyRule == KeyCompany {
		if err := event.CheckYear(); err != nil {
			return nil, err
		}
	}
	return event, nil
}

// CheckYear holds the time of an event against the years that the stores and RFC 3339 can hold. The error is a *Rejection,
// timestamp_too_old or timestamp_in_future.
func (e *Envelope) CheckYear() error {
	reason := TimestampInFuture
	switch {
	case inRange(e.Time):
		return nil
	case e.Time.UTC().Year() < FirstYear:
		reason = TimestampTooOld
	}
	return Reject(reason, "time lies in the year %d; the years %d to %d are taken", e.Time.UTC().Year(), FirstYear, LastYear)
}

// CheckData holds data alone against the schema of a type. The error is a *Rejection: unknown_type, malformed_envelope for
// text that is not UTF-8, malformed_data or invalid_data.
func (d *Decoder) CheckData(eventType string, data []byte) error {
	if d.schemas[eventType] == nil {
		return Reject(UnknownType, "there is no type %s", quotedOr(eventType, likeName))
	}
	if !utf8.Valid(data) {
		return Reject(MalformedEnvelope, "the data is not UTF-8")
	}
	value, rejection := parseData(data)
	if rejection == nil {
		rejection = d.check(eventType, value)
	}
	if rejection != nil {
		return rejection
	}
	return nil
}

func (t *TopicInfo) carries(eventType string) bool {
	return slices.Contains(t.Types, eventType)
}

// parseData reads JSON into maps, slices, strings, booleans and numbers that kept their text.
func parseData(data []byte) (any, *Rejection) {
	if isBlank(data) {
		return nil, Reject(MalformedData, "the event has no data")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return nil, Reject(MalformedData, "the data is not JSON: %s", quoted(err.Error()))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, Reject(MalformedData, "the data has something behind its JSON value")
	}
	return value, nil
}

// maxDataDepth is how deep the data of events other than usage may nest. These keep whole objects (a configuration, a
// payment), and neither validation nor PostgreSQL is at ease with thousands of levels.
const maxDataDepth = 100

func (d *Decoder) check(eventType string, data any) *Rejection {
	// Usage keeps no objects, and its own decoder skips what is nested.
	if eventType != TypeUsageRecorded && deeperThan(data, maxDataDepth) {
		return Reject(InvalidData, "the data is nested deeper than %d levels", maxDataDepth)
	}
	if rejection := checkPayment(data); rejection != nil {
		return rejection
	}
	return checkData(d.schemas[eventType], data)
}

func deeperThan(value any, levels int) bool {
	switch v := value.(type) {
	case map[string]any:
		if levels == 0 {
			return true
		}
		for _, member := range v {
			if deeperThan(member, levels-1) {
				return true
			}
		}
	case []any:
		if levels == 0 {
			return true
		}
		for _, item := range v {
			if deeperThan(item, levels-1) {
				return true
			}
		}
	}
	return false
}

// checkData holds parsed data against a schema.
func checkData(schema *jsonschema.Schema, data any) *Rejection {
	err := schema.Validate(tame(data))
	if err == nil {
		return nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return Reject(InvalidData, "the data can't be held against its schema")
	}
	return invalidData(schema, invalid, data)
}

// tame replaces numbers that validation could not compute with. See tamed.
func tame(value any) any {
	switch v := value.(type) {
	case json.Number:
		return json.Number(tamed(string(v)))
	case map[string]any:
		for name, member := range v {
			v[name] = tame(member)
		}
	case []any:
		for i, item := range v {
			v[i] = tame(item)
		}
	}
	return value
}

// compileSchema makes the validator of a type. Formats are asserted, and date-time is what this package understands
// by it, so that a schema and a decoder never disagree about a timestamp.
func compileSchema(eventType string) (*jsonschema.Schema, error) {
	text, err := schemas.ByType(eventType)
	if err != nil {
		return nil, fmt.Errorf("read schema of %s: %w", eventType, err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read schema of %s: %w", eventType, err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	check := checkDateTime
	if eventType == TypeUsageRecorded || eventType == TypeUsageVoided {
		check = checkAnyDateTime // its limits are narrower, and have reasons of their own
	}
	compiler.RegisterFormat(&jsonschema.Format{Name: "date-time", Validate: check})
	url := schemas.FileName(eventType)
	if err := compiler.AddResource(url, document); err != nil {
		return nil, fmt.Errorf("add schema of %s: %w", eventType, err)
	}
	schema, err := compiler.Compile(url)
	if err != nil {
		return nil, fmt.Errorf("compile schema of %s: %w", eventType, err)
	}
	return schema, nil
}

var (
	errNoTimestamp = errors.New("no RFC 3339 timestamp")
	errFarTime     = fmt.Errorf("not in the years %d to %d", FirstYear, LastYear)
)

func checkDateTime(value any) error {
	if s, ok := value.(string); ok {
		t, ok := parseTime([]byte(s))
		if !ok {
			return errNoTimestamp
		}
		if !inRange(t) {
			return errFarTime
		}
	}
	return nil
}

func checkAnyDateTime(value any) error {
	if s, ok := value.(string); ok {
		if _, ok := parseTime([]byte(s)); !ok {
			return errNoTimestamp
		}
	}
	return nil
}

func quoteASCII(s string) string { return strconv.QuoteToASCII(s) }

// quoteControls keeps a message readable but on one line and printable.
func quoteControls(s string) string {
	const most = 300
	q := strconv.QuoteToGraphic(s)
	q = strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
	if len(q) > most {
		q = strings.ToValidUTF8(q[:most], "") + "..."
	}
	return q
}
