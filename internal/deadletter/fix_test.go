package deadletter_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"tenantflow/events"
	"tenantflow/internal/deadletter"
	"tenantflow/schemas"
)

// letterOf is a letter as it comes from the topic.
func letterOf(r events.Record) *deadletter.Letter {
	l := &deadletter.Letter{DeadLetter: events.DeadLetter{Key: r.Key, Value: r.Value, Headers: r.Headers}}
	l.Topic, l.Source, l.ID = "usage.events", "/app", "e-1"
	return l
}

func binaryLetter(value string) *deadletter.Letter {
	return letterOf(events.Record{Key: []byte("acme"), Value: []byte(value), Headers: []events.Header{
		{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_id", Value: []byte("e-1")}, {Key: "ce_source", Value: []byte("/app")},
		{Key: "ce_type", Value: []byte("usage.recorded.v1")}, {Key: "ce_time", Value: []byte("2026-11-28T10:00:00Z")},
		{Key: "x-own", Value: []byte{0xff}}, {Key: "content-type", Value: []byte("application/json")},
	}})
}

func structuredLetter(value string) *deadletter.Letter {
	return letterOf(events.Record{Key: []byte("acme"), Value: []byte(value), Headers: []events.Header{
		{Key: "content-type", Value: []byte("application/cloudevents+json; charset=utf-8")}}})
}

func TestFix_Apply(t *testing.T) {
	t.Parallel()
	const structured = `{"specversion":"1.0","id":"e-1","source":"/app","type":"usage.recorded.v1","time":"2026-11-28T10:00:00Z","data":{"user_id":7,"a":"<b>"}}`
	for _, c := range []struct {
		name, patch string
		letter      *deadletter.Letter
		value       string
		key         string
		header      string // name=value that the fixed record must have; empty: the headers are untouched
	}{
		{"data of a binary event", `[{"op":"replace","path":"/user_id","value":"u-7"}]`, binaryLetter(`{"user_id":7,"n":1.50,"a":"<b>"}`),
			`{"user_id":"u-7","n":1.50,"a":"<b>"}`, "acme", ""},
		{"data named with /data", `[{"op":"replace","path":"/data/user_id","value":"u-7"}]`, binaryLetter(`{"user_id":7}`), `{"user_id":"u-7"}`, "acme", ""},
		{"data that is not JSON", `[{"op":"replace","path":"","value":{"user_id":"u-7"}}]`, binaryLetter(`{"user_id":`), `{"user_id":"u-7"}`, "acme", ""},
		{"an attribute leaves the data as it is", `[{"op":"replace","path":"/type","value":"usage.recorded.v2"}]`, binaryLetter("{ \"a\" : \"<b>\"\n}"),
			"{ \"a\" : \"<b>\"\n}", "acme", "ce_type=usage.recorded.v2"},
		{"an attribute that was missing", `[{"op":"add","path":"/subject","value":"s"}]`, binaryLetter(`not JSON`), `not JSON`, "acme", "ce_subject=s"},
		{"the key", `[{"op":"replace","path":"/partitionkey","value":"beta"}]`, binaryLetter(`{}`), `{}`, "beta", ""},
		{"a test and a move", `[{"op":"test","path":"/id","value":"e-1"},{"op":"move","from":"/user","path":"/user_id"}]`, binaryLetter(`{"user":"u"}`),
			`{"user_id":"u"}`, "acme", ""},
		{"data of a structured event", `[{"op":"replace","path":"/user_id","value":"u-7"}]`, structuredLetter(structured),
			`{"data":{"user_id":"u-7","a":"<b>"},"id":"e-1","source":"/app","specversion":"1.0","time":"2026-11-28T10:00:00Z","type":"usage.recorded.v1"}`, "acme", ""},
		{"the key of a structured event", `[{"op":"replace","path":"/partitionkey","value":"beta"}]`, structuredLetter(structured), structured, "beta", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fix, err := deadletter.ParseFix([]byte(c.patch))
			if err != nil {
				t.Fatal(err)
			}
			r, err := fix.Apply(c.letter)
			if err != nil {
				t.Fatal(err)
			}
			if string(r.Value) != c.value || string(r.Key) != c.key {
				t.Errorf("got key %q and value\n%s\nwant %q and\n%s", r.Key, r.Value, c.key, c.value)
			}
			name, value, changed := strings.Cut(c.header, "=")
			kept := 0
			for _, h := range r.Headers {
				if changed && h.Key == name {
					changed = string(h.Value) != value
					continue
				}
				for _, o := range c.letter.Headers {
					if o.Key == h.Key && string(o.Value) == string(h.Value) {
						kept++
					}
				}
			}
			want := len(c.letter.Headers)
			for _, o := range c.letter.Headers {
				if o.Key == name {
					want--
				}
			}
			if changed || kept != want {
				t.Errorf("headers %q, want those of the letter with %q", r.Headers, c.header)
			}
		})
	}
}

func TestFix_RefusesAnotherIdentity(t *testing.T) {
	t.Parallel()
	for _, patch := range []string{
		`[{"op":"replace","path":"/id","value":"e-2"}]`,
		`[{"op":"remove","path":"/source"}]`,
		`[{"op":"copy","from":"/type","path":"/id"}]`,
		`[{"op":"move","from":"/id","path":"/x"}]`,
		`[{"op":"test","path":"/a","value":1},{"op":"add","path":"/source/x","value":"e-2"}]`,
	} {
		if _, err := deadletter.ParseFix([]byte(patch)); !errors.Is(err, deadletter.ErrIdentity) {
			t.Errorf("%s: %v, want ErrIdentity", patch, err)
		}
	}
	for _, patch := range []string{`{}`, `[]`, `[{"op":"twist","path":"/a"}]`, `[{"op":"replace","path":"a","value":1}]`, `[{"op":"add","path":"/a"}]`, `[{"op":"move","path":"/a"}]`, `no`} {
		if _, err := deadletter.ParseFix([]byte(patch)); err == nil || errors.Is(err, deadletter.ErrIdentity) {
			t.Errorf("%s: %v, want an error about the patch", patch, err)
		}
	}
}

func TestFix_SaysWhyItDoesNotApply(t *testing.T) {
	t.Parallel()
	fix, err := deadletter.ParseFix([]byte(`[{"op":"replace","path":"/user_id","value":"u-7"}]`))
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*deadletter.Letter{
		"no such member": binaryLetter(`{}`), "not JSON": binaryLetter(`{`), "no JSON object": structuredLetter(`[]`),
	} {
		if r, err := fix.Apply(l); err == nil {
			t.Errorf("%s: it made %q", name, r.Value)
		}
	}
}

// A member of an event's data that is named like an attribute would be out of reach of a path without /data.
func TestFix_NoDataIsNamedLikeAnAttribute(t *testing.T) {
	t.Parallel()
	for _, topic := range events.Topics() {
		for _, eventType := range topic.Types {
			text, err := schemas.ByType(eventType)
			if err != nil || !topic.Input {
				continue
			}
			var schema struct {
				Properties map[string]json.RawMessage `json:"properties"`
			}
			if err := json.Unmarshal(text, &schema); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"data", "specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema", "partitionkey", "traceparent", "tracestate"} {
				if _, ok := schema.Properties[name]; ok {
					t.Errorf("%s has data with a member %s", eventType, name)
				}
			}
		}
	}
}
