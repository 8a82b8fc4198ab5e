package events

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// personal are texts of which a rejection must not have the middle.
var personal = []string{"ann.smith@@acme.example", "ann.smith@acme.example", "ann.smith\u0000@acme.example", "ann.smith\x7f", "\u0001ann.smith", "ann.smith" + strings.Repeat("x", 2000)} //nolint:gochecknoglobals // a constant table

// withText gives copies of a JSON value, each with one value or the name of one member replaced.
func withText(value any, text string) []any {
	all := []any{text, map[string]any{text: 1}, []any{text}}
	switch v := value.(type) {
	case map[string]any:
		for name := range v {
			for _, other := range withText(v[name], text) {
				all = append(all, withMember(v, name, other))
			}
			all = append(all, withMember(v, text, "x"), withMember(v, name, map[string]any{text: map[string]any{"x": "\u0000"}}))
		}
	case []any:
		for i := range v {
			for _, other := range withText(v[i], text) {
				all = append(all, append(append([]any{}, v[:i]...), other))
			}
		}
	}
	return all
}

func withMember(object map[string]any, name string, value any) map[string]any {
	copied := map[string]any{name: value}
	for other, v := range object {
		if other != name {
			copied[other] = v
		}
	}
	return copied
}

func TestRejections_NoTextOfTheDataIsInTheWords(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, "")
	refused := 0
	check := func(err error, what string) {
		t.Helper()
		if err == nil {
			return
		}
		refused++
		if strings.Contains(err.Error(), "ann.smith") {
			t.Errorf("%.300s: %v", what, err)
		}
	}
	for _, topic := range Topics() {
		for _, eventType := range topic.Types {
			fixture, err := os.ReadFile(filepath.Join("..", "schemas", "fixtures", eventType, "valid", "all-fields.json"))
			if err != nil {
				t.Fatal(err)
			}
			var valid any
			if err := json.Unmarshal(fixture, &valid); err != nil {
				t.Fatal(err)
			}
			for _, text := range personal {
				for _, data := range withText(valid, text) {
					value, err := json.Marshal(data)
					if err != nil {
						t.Fatal(err)
					}
					r := recordOf(topic.Name, eventType, string(value))
					if object, ok := data.(map[string]any); ok {
						if company, ok := object["company_id"].(string); ok {
							r.Key = []byte(company)
						}
					}
					_, err = d.Decode(r)
					check(err, string(value))
					if eventType == TypeUsageRecorded {
						check(NewUsageDecoder(UsageLimits{}).Decode(r, r.Time, new(Usage)), string(value))
					}
					r.Key = []byte("ann.smith")
					_, err = d.Decode(r)
					check(err, string(value))
				}
			}
			_, err = d.Decode(recordOf(topic.Name, eventType, string(fixture)+"ann.smith"))
			check(err, "something behind the data")
			_, err = d.Decode(recordOf(topic.Name, eventType, `{"company_id":"c", ann.smith@acme.example`))
			check(err, "no JSON")
		}
	}
	if refused < 1000 {
		t.Errorf("only %d events were refused", refused)
	}
}

func TestRejections_NoTextOfTheEnvelopeIsInTheWords(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, "")
	for _, text := range personal {
		for _, header := range []string{"ce_id", "ce_source", "ce_type", "ce_time", "ce_specversion", "ce_subject", "ce_dataschema", "ce_ann.smith", "content-type"} {
			r := recordOf(TopicCompany, TypeUserRemoved, `{"company_id":"acme","user_id":"u"}`)
			r.Headers = append(r.Headers[:len(r.Headers):len(r.Headers)], Header{header, []byte(text)})
			for i, h := range r.Headers[:len(r.Headers)-1] {
				if h.Key == header {
					r.Headers = append(r.Headers[:i:i], r.Headers[i+1:]...)
					break
				}
			}
			if _, err := d.Decode(r); err != nil && strings.Contains(err.Error(), "ann.smith") {
				t.Errorf("header %s: %v", header, err)
			}
		}
		for _, event := range []string{`{"specversion":"1.0","id":"1","source":"/s","type":"x","time":%q}`, `{"specversion":%q}`, `{"id":%q}`, `{%q:["x"]}`, `{%q:"\u0000"}`, `[%q]`, `%q`, `{"data_base64":%q}`} {
			r := &Record{Topic: TopicCompany, Key: []byte("acme"), Value: fmt.Appendf(nil, event, text), Headers: []Header{{"content-type", []byte("application/cloudevents+json")}}}
			if _, err := d.Decode(r); err == nil || strings.Contains(err.Error(), "ann.smith") {
				t.Errorf("%.200s: %v", r.Value, err)
			}
		}
	}
}

// What is left says enough to find the fault, and the sender of a file is shown the values.
func TestRejections_SayWhereAndWhat(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, "")
	for _, c := range []struct{ topic, eventType, data, want, withValues string }{
		{TopicCompany, TypeUserAdded, `{"company_id":"acme","user_id":"u","email":"ann@@x"}`, `at "/email": the text of 6 characters does not match pattern '^[^@`, `'ann@@x' does not match pattern`},
		{TopicCompany, TypeUserAdded, `{"company_id":"ann@x","user_id":"u","email":"a@x"}`, "the key (4 bytes) is not the data's company_id (5 bytes)", `the key is "acme", but company_id is "ann@x"`},
		{TopicCompany, TypeConfigUpdated, `{"company_id":"acme","config":{"ann@x":["a","\u0000"]}}`, `at "/config/*/1": the text of 1 characters`, `at "/config/ann@x/1": `},
		{TopicCompany, TypeConfigUpdated, `{"company_id":"acme","config":{"ann\u0000@x":1}}`, `at "/config": a member has an invalid name, of 6 characters`, `invalid propertyName`},
		{TopicCompany, TypeUserAdded, `{"company_id":"acme","user_id":4711,"email":"a@x"}`, `at "/user_id": got number, want string`, ""},
		{TopicCompany, TypeUserAdded, `{"company_id":"acme","user_id":"u"}`, `at "/": missing property 'email'`, ""},
		{TopicSubscription, TypeCancelRequested, `{"company_id":"acme","effective":"ann@x"}`, `at "/effective": value must be one of 'period_end', 'immediate'`, ""},
		{TopicSubscription, TypeExpired, `{"company_id":"acme","expired_at":"2026-02-30T00:00:00Z"}`, `'2026-02-30T00:00:00Z' is not valid date-time`, ""},
		{TopicSubscription, TypeExpired, `{"company_id":"acme","expired_at":"ann@x"}`, `at "/expired_at": the text of 5 characters is not valid date-time: no RFC 3339 timestamp`, `'ann@x' is not valid date-time`},
	} {
		_, err := d.Decode(recordOf(c.topic, c.eventType, c.data))
		rejection, ok := err.(*Rejection) //nolint:errorlint // Decode's own
		if !ok || !strings.Contains(rejection.Detail, c.want) || !strings.Contains(rejection.WithValues(), c.withValues) {
			t.Errorf("%s: %v, want %s", c.data, err, c.want)
		} else if c.withValues == "" && rejection.WithValues() != rejection.Detail {
			t.Errorf("%s: with values %q", c.data, rejection.WithValues())
		}
	}
}
