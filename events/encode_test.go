package events

import (
	"strings"
	"testing"
	"time"
)

func fullEnvelope() *Envelope {
	return &Envelope{
		ID: "evt-1", Source: "/billing?<&>", Type: TypeUsageRecorded, Time: time.Date(2026, 7, 31, 11, 30, 0, 120e6, time.UTC),
		Subject: "ü", DataSchema: "urn:x", DataContentType: "application/json", TraceParent: "00-abc-def-01", TraceState: "a=b",
		CausationID: "c\"1", CausationSource: "/cause", Data: []byte(usageJSON),
	}
}

func TestAnEventSurvivesBinaryMode(t *testing.T) {
	t.Parallel()
	want := fullEnvelope()
	value, headers := want.EncodeBinary()
	got, err := ParseEnvelope(&Record{Key: []byte("k"), Value: value, Headers: headers})
	if err != nil {
		t.Fatal(err)
	}
	sameEnvelope(t, got, want)
}

func TestAnEventAndItsKeySurviveAStructuredLine(t *testing.T) {
	t.Parallel()
	want := fullEnvelope()
	want.Data = []byte(strings.ReplaceAll(usageJSON, ",", ",\n\t"))
	line, err := want.ToStructured([]byte("acme"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(string(line), "\n\t") {
		t.Errorf("not on one line: %q", line)
	}
	key, value, headers, err := ParseStructured(append(line, '\n'))
	if err != nil {
		t.Fatal(err)
	}
	if string(key) != "acme" {
		t.Errorf("key %q", key)
	}
	got, err := ParseEnvelope(&Record{Key: key, Value: value, Headers: headers})
	if err != nil {
		t.Fatal(err)
	}
	want.Data, want.PartitionKey = []byte(usageJSON), "acme"
	sameEnvelope(t, got, want)

	line, err = want.ToStructured(nil)
	if err != nil {
		t.Fatal(err)
	}
	if key, _, _, err := ParseStructured(line); key != nil || err != nil {
		t.Errorf("a line without a key has key %q, error %v", key, err)
	}
}

func TestALineThatIsNoEventIsAnError(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"", "x", "[]", `{"partitionkey":5}`, `{} {}`, `{"a":1`, `{"a":1}}`, `{"a":1,}`, "{\"a\":\"\xff\"}"} {
		if _, _, _, err := ParseStructured([]byte(line)); err == nil {
			t.Errorf("no error for %q", line)
		}
	}
	for line, want := range map[string]string{`{}`: "", `{ }`: "", `{"PartitionKey":"x"}`: "", `{"partitionkey":null}`: "",
		`{"data":{"partitionkey":"x"}, "partitionkey" : "a\u0062" }`: "ab", `{"partitionkey":"x","partitionkey":"y"}`: "y"} {
		if key, _, _, err := ParseStructured([]byte(line)); string(key) != want || err != nil {
			t.Errorf("%s has key %q, error %v", line, key, err)
		}
	}
	broken := fullEnvelope()
	broken.Data = []byte("{")
	if _, err := broken.ToStructured(nil); err == nil {
		t.Error("data that is not JSON was written")
	}
	broken = fullEnvelope()
	broken.Subject = "\xff"
	if _, err := broken.ToStructured(nil); err == nil {
		t.Error("an attribute that is not UTF-8 was written")
	}
}

func TestAResultNamesItsCause(t *testing.T) {
	t.Parallel()
	cause := fullEnvelope()
	at := time.Date(2026, 8, 1, 2, 0, 0, 0, time.FixedZone("", 7200))
	got := NewResult("subscription", cause, TypeUpgraded, 1, at, []byte(`{}`))
	sameEnvelope(t, got, &Envelope{
		ID: ResultID(cause.Source, cause.ID, TypeUpgraded, 1), Source: "/tenantflow/subscription", Type: TypeUpgraded,
		Time: at.UTC(), DataContentType: "application/json", TraceParent: cause.TraceParent, TraceState: cause.TraceState,
		CausationID: cause.ID, CausationSource: cause.Source, Data: []byte(`{}`),
	})
}

func sameEnvelope(t *testing.T, got, want *Envelope) {
	t.Helper()
	g, w := *got, *want
	if string(g.Data) != string(w.Data) {
		t.Errorf("data %q, want %q", g.Data, w.Data)
	}
	if !g.Time.Equal(w.Time) {
		t.Errorf("time %v, want %v", g.Time, w.Time)
	}
	g.Data, w.Data, g.Time, w.Time = nil, nil, time.Time{}, time.Time{}
	for _, name := range []string{"id", "source", "type", "subject", "datacontenttype", "dataschema", "partitionkey",
		"traceparent", "tracestate", "causationid", "causationsource"} {
		if *g.attribute(name) != *w.attribute(name) {
			t.Errorf("%s is %q, want %q", name, *g.attribute(name), *w.attribute(name))
		}
	}
}
