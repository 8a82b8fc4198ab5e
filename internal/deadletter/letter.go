package deadletter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tenantflow/events"
	"tenantflow/sinks/postgres"
)

// A Letter is a dead letter, with its place in the dead letter topic and what can be read of its event.
type Letter struct {
	events.DeadLetter

	Place   Place
	Written time.Time // when the record was appended to the dead letter topic

	// Bytes is the length of the value, also where a page has left the value out.
	Bytes int

	// What can be read of the event, as far as it can be read; empty otherwise.
	Source, ID, Type string
	Company, User    string

	// Of a letter that a redrive led to: its task, and the letter that was redriven. Empty otherwise.
	ReplayID, ReplayOf string
}

// A Place is where a record stands in the log.
type Place struct {
	Topic     string `json:"topic"`
	Partition int    `json:"partition"`
	Offset    int64  `json:"offset"`
}

func (p Place) String() string { return fmt.Sprintf("%s/%d/%d", p.Topic, p.Partition, p.Offset) }

// FormatOrigin writes an origin as GROUP/TOPIC/PARTITION/OFFSET.
func FormatOrigin(o events.Origin) string {
	return fmt.Sprintf("%s/%s/%d/%d", o.Group, o.Topic, o.Partition, o.Offset)
}

// ParseOrigin reads what FormatOrigin wrote. A group's name may hold slashes; the name of a topic can't.
func ParseOrigin(text string) (events.Origin, error) {
	fail := func() (events.Origin, error) {
		return events.Origin{}, fmt.Errorf("%q is no origin of a dead letter: it has the form GROUP/TOPIC/PARTITION/OFFSET", text)
	}
	parts := strings.Split(text, "/")
	if len(parts) < 4 {
		return fail()
	}
	n := len(parts)
	partition, err := strconv.ParseInt(parts[n-2], 10, 32)
	if err != nil || partition < 0 {
		return fail()
	}
	offset, err := strconv.ParseInt(parts[n-1], 10, 64)
	if err != nil || offset < 0 {
		return fail()
	}
	o := events.Origin{Group: strings.Join(parts[:n-3], "/"), Topic: parts[n-3], Partition: int(partition), Offset: offset}
	if o.Group == "" || o.Topic == "" {
		return fail()
	}
	return o, nil
}

// parse makes a letter of a record of a dead letter topic. It shares the record's bytes.
func parse(r *events.Record) (*Letter, error) {
	d, err := events.ParseDeadLetter(r)
	if err != nil {
		return nil, err
	}
	return &Letter{DeadLetter: *d, Place: Place{r.Topic, r.Partition, r.Offset}, Written: r.Time.UTC(), Bytes: len(d.Value)}, nil
}

// Ref names the letter for the books.
func (l *Letter) Ref() postgres.LetterRef {
	return postgres.LetterRef{Origin: l.Origin, Reason: l.Reason, Company: l.Company, Source: l.Source, ID: l.ID}
}

// Original is the record that the letter preserves, at its origin. It shares the letter's bytes. Large is set for one whose bytes are
// not there.
func (l *Letter) Original() *events.Record {
	return &events.Record{Topic: l.Topic, Partition: l.Partition, Offset: l.Offset, Time: l.Written,
		Key: l.Key, Value: l.Value, Headers: l.Headers, Large: l.Large}
}

// read fills in what can be read of the event.
func (l *Letter) read() {
	data := l.Value
	if e, err := events.ParseEnvelope(l.Original()); err == nil {
		l.Source, l.ID, l.Type, data = e.Source, e.ID, e.Type, e.Data
	} else {
		l.Source, l.ID, l.Type = l.header("ce_source"), l.header("ce_id"), l.header("ce_type")
		if l.ID == "" {
			data = l.structured()
		}
	}
	l.ReplayID, l.ReplayOf = l.header(events.HeaderReplayID), l.header(events.HeaderReplayOf)
	var who struct {
		Company json.RawMessage `json:"company_id"`
		User    json.RawMessage `json:"user_id"`
	}
	if json.Unmarshal(data, &who) == nil {
		l.Company, l.User = text(who.Company), text(who.User)
	}
	if l.Company == "" && !strings.HasSuffix(l.Topic, events.TopicUsage) && events.ValidID(string(l.Key)) {
		l.Company = string(l.Key) // the rule of the other topics
	}
}

// structured reads what it can of an event in structured mode that breaks a rule, and returns its data.
func (l *Letter) structured() []byte {
	var e struct {
		Source json.RawMessage `json:"source"`
		ID     json.RawMessage `json:"id"`
		Type   json.RawMessage `json:"type"`
		Data   json.RawMessage `json:"data"`
	}
	if json.Unmarshal(l.Value, &e) != nil || e.Data == nil {
		return l.Value
	}
	l.Source, l.ID, l.Type = text(e.Source), text(e.ID), text(e.Type)
	return e.Data
}

// Clone copies the letter with bytes of its own.
func (l *Letter) Clone() *Letter {
	c := *l
	c.Key, c.Value = bytes.Clone(l.Key), bytes.Clone(l.Value)
	c.Headers = make([]events.Header, len(l.Headers))
	for i, h := range l.Headers {
		c.Headers[i] = events.Header{Key: h.Key, Value: bytes.Clone(h.Value)}
	}
	return &c
}

// strip lets go of the bytes: a page may hold thousands of letters, of a mebibyte each.
func (l *Letter) strip() {
	const most = 200 // bytes of a key that are shown
	l.Key = bytes.Clone(l.Key[:min(len(l.Key), most)])
	l.Value, l.Headers = nil, nil
}

// header is the last header of a name, as text; empty if there is none or it is not printable.
func (l *Letter) header(name string) string {
	return strings.ToValidUTF8(string(events.LastHeader(l.Headers, name)), "\ufffd")
}

// text is a JSON string; empty for anything else.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// contains reports whether the letter's bytes hold a text, in its value, key or headers: a quick look before the event is read.
func (l *Letter) contains(text string) bool {
	if bytes.Contains(l.Value, []byte(text)) || bytes.Contains(l.Key, []byte(text)) {
		return true
	}
	for _, h := range l.Headers {
		if bytes.Contains(h.Value, []byte(text)) {
			return true
		}
	}
	return false
}
