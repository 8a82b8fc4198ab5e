package events

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// recorded reads the messages of one SDK; the scripts that recorded them are beside them.
func recorded(t *testing.T, file string) map[string]*Record {
	t.Helper()
	text, err := os.ReadFile("testdata/sdk/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var messages []struct {
		Name       string
		Key, Value []byte // base64, null for null
		Headers    []struct {
			Key   string
			Value []byte
		}
	}
	if err := json.Unmarshal(text, &messages); err != nil {
		t.Fatal(err)
	}
	records := map[string]*Record{}
	for _, m := range messages {
		r := &Record{Topic: TopicUsage, Key: m.Key, Value: m.Value}
		for _, h := range m.Headers {
			r.Headers = append(r.Headers, Header{h.Key, h.Value})
		}
		records[m.Name] = r
	}
	return records
}

// oldPythonStructured is the one recorded message that is not as the Kafka binding wants it: version 1 of the Python SDK
// labels a structured event with the content type of its data.
const oldPythonStructured = "structured, version 1 of the SDK"

func TestMessagesOfOfficialSDKsAreAccepted(t *testing.T) {
	t.Parallel()
	general, err := NewDecoder("")
	if err != nil {
		t.Fatal(err)
	}
	usage := NewUsageDecoder(UsageLimits{})
	want := &Usage{
		ID: []byte("0190a5c1-7c7e-7cc3-9fd1-1a2b3c4d5e6f"), Source: []byte("/data-bridge/eu-1"),
		CompanyID: []byte("acme"), UserID: []byte("user-7"), Tier: []byte("pro"), Service: []byte("Kursdaten-Dienst für 東京 😀"),
		Endpoint: []byte(`/v1/quotes?symbol=EUR"USD`), Timestamp: time.Date(2026, 7, 31, 11, 29, 58, 123e6, time.UTC).UnixMilli(),
		DataPoints: 120, ProcessingTime: 12346, BillingPeriod: []byte("2026-07"), Revenue: 1250,
	}
	for file, count := range map[string]int{"javascript.json": 5, "python.json": 6} {
		records := recorded(t, file)
		if len(records) != count {
			t.Errorf("%s has %d messages, want %d", file, len(records), count)
		}
		for name, r := range records {
			if name == oldPythonStructured {
				r.Headers = []Header{{"content-type", []byte("application/cloudevents+json")}}
			}
			var u Usage
			if !usage.fast(r, &u) {
				t.Errorf("%s: %s: the fast way does not take it", file, name)
			}
			if err := usage.Decode(r, testNow, &u); err != nil {
				t.Errorf("%s: %s: %v", file, name, err)
				continue
			}
			sameUsage(t, file+": "+name, &u, want)

			event, err := general.Decode(r)
			if err != nil {
				t.Errorf("%s: %s: %v", file, name, err)
				continue
			}
			if at := time.Date(2026, 7, 31, 11, 30, 0, 0, time.UTC); !event.Time.Equal(at) || event.Key != "acme" {
				t.Errorf("%s: %s: time %v, key %q", file, name, event.Time, event.Key)
			}
			if strings.Contains(name, "extensions") && (event.CausationID != "cause-1" || event.CausationSource != "/cause" ||
				event.TraceState != "vendor=1" || event.TraceParent != "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01") {
				t.Errorf("%s: %s: extensions are lost: %+v", file, name, event.Envelope)
			}
		}
	}
}

func TestAStructuredEventWithTheContentTypeOfItsDataIsRefusedWithAHint(t *testing.T) {
	t.Parallel()
	r := recorded(t, "python.json")[oldPythonStructured]
	err := NewUsageDecoder(UsageLimits{}).Decode(r, testNow, new(Usage))
	if reasonOf(err) != MalformedEnvelope || !strings.Contains(err.Error(), contentTypeStructured) {
		t.Errorf("got %v", err)
	}
}
