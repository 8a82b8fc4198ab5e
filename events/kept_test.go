package events

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"tenantflow/schemas"
)

func eventOf(eventType, data string) *Event {
	return &Event{Key: "acme", Envelope: Envelope{Type: eventType, Data: []byte(data)}}
}

func TestCanonical_IsOneForAllSpellingsOfAValue(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		eventType string
		same      []string
		other     []string
	}{
		"amounts and times": {TypePaymentReceived, []string{
			`{"company_id":"acme","payment_id":"p","amount_minor":4900,"currency":"USD","paid_at":"2026-01-31T10:00:00Z"}`,
			`{"paid_at":"2026-01-31T10:00:00.000Z","payment_id":"p","company_id":"acme","currency":"USD","amount_minor":4900.0}`,
			`{"company_id":"acme","payment_id":"p","amount_minor":49e2,"currency":"USD","paid_at":"2026-01-31t12:00:00+02:00","note":"x"}`,
			`{"company_id":"acme","payment_id":"p","amount_minor":0.49E+4,"currency":"USD","paid_at":"2026-01-31T10:00:00+00:00"}`,
		}, []string{
			`{"company_id":"acme","payment_id":"p","amount_minor":4901,"currency":"USD","paid_at":"2026-01-31T10:00:00Z"}`,
			`{"company_id":"acme","payment_id":"p","amount_minor":-4900,"currency":"USD","paid_at":"2026-01-31T10:00:00Z"}`,
			`{"company_id":"acme","payment_id":"p","amount_minor":4900,"currency":"USD","paid_at":"2026-01-31T10:00:00.001Z"}`,
			`{"company_id":"acme","payment_id":"p","amount_minor":4900,"currency":"USD","paid_at":"2026-01-31T10:00:00Z","method":"card"}`,
		}},
		"what is kept whole": {TypeUpgradeRequested, []string{
			`{"company_id":"acme","new_tier":"pro","payment":{"payment_id":"p","at":"2026-01-31T10:00:00Z","n":10}}`,
			`{"company_id":"acme","new_tier":"pro","payment":{"payment_id":"p","at":"2026-01-31T10:00:00Z","n":1e1}}`,
		}, []string{
			`{"company_id":"acme","new_tier":"pro","payment":{"payment_id":"p","at":"2026-01-31T10:00:00.0Z","n":10}}`,
			`{"company_id":"acme","new_tier":"pro","payment":{"payment_id":"p","n":10}}`,
		}},
		"what is within a member": {TypeCompanyRegistered, []string{
			`{"company_id":"acme","name":"A","billing_email":"a@x","initial_user":{"user_id":"u","email":"u@x"}}`,
			`{"company_id":"acme","name":"A","billing_email":"a@x","initial_user":{"user_id":"u","email":"u@x","phone":"1"}}`,
		}, []string{
			`{"company_id":"acme","name":"A","billing_email":"a@x","initial_user":{"user_id":"u","email":"v@x"}}`,
		}},
	} {
		first := eventOf(c.eventType, c.same[0]).Canonical()
		for _, text := range c.same[1:] {
			if got := eventOf(c.eventType, text).Canonical(); !bytes.Equal(got, first) {
				t.Errorf("%s: %s is\n%s, want\n%s", name, text, got, first)
			}
		}
		for _, text := range c.other {
			if got := eventOf(c.eventType, text).Canonical(); bytes.Equal(got, first) {
				t.Errorf("%s: %s is the same as %s", name, text, c.same[0])
			}
		}
	}
}

func TestKept_LeavesUnknownMembersOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ eventType, data, want string }{
		{TypeUserErasureRequested, `{"company_id":"acme","user_id":"u","email":"u@x"}`, `{"company_id":"acme","user_id":"u"}`},
		{TypeCompanyRegistered, `{"company_id":"acme","initial_user":{"user_id":"u","phone":"1"},"config":{"any":{"n":1.50}},"x":{"company_id":1}}`,
			`{"company_id":"acme","config":{"any":{"n":1.50}},"initial_user":{"user_id":"u"}}`},
		{TypeUpgradeRequested, `{"payment":{"payment_id":"p","cvc":"1","list":[{"a":1}]},"x":1}`, `{"payment":{"cvc":"1","list":[{"a":1}],"payment_id":"p"}}`},
	} {
		e := eventOf(c.eventType, c.data)
		got, err := e.Kept()
		if err != nil || string(got) != c.want {
			t.Errorf("%s of %s: %s, %v, want %s", c.eventType, c.data, got, err, c.want)
		}
		e.Data = got
		if !bytes.Equal(e.Canonical(), eventOf(c.eventType, c.data).Canonical()) {
			t.Errorf("%s: what is kept is another event", c.eventType)
		}
	}
}

func TestKept_KnowsTheMembersOfEverySchema(t *testing.T) {
	t.Parallel()
	for _, eventType := range schemas.Types() {
		text, err := schemas.ByType(eventType)
		if err != nil {
			t.Fatal(err)
		}
		var schema struct{ Properties map[string]json.RawMessage }
		if err := json.Unmarshal(text, &schema); err != nil {
			t.Fatal(err)
		}
		for name := range schema.Properties {
			if _, ok := shapeOf(eventType).members[name]; !ok {
				t.Errorf("%s: the member %s is not known", eventType, name)
			}
		}
	}
}

func TestDecoder_TakesTimesOfTheYears2000To9998(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, "")
	paid := func(at string) string {
		return `{"company_id":"acme","payment_id":"p","amount_minor":1,"currency":"USD","paid_at":"` + at + `"}`
	}
	at := func(stamp, data string) *Record {
		r := recordOf(TopicSubscription, TypePaymentReceived, data)
		for i := range r.Headers {
			if r.Headers[i].Key == "ce_time" {
				r.Headers[i].Value = []byte(stamp)
			}
		}
		return r
	}
	for _, c := range []struct {
		record *Record
		want   Reason
	}{
		{at("2000-01-01T00:00:00Z", paid("9998-12-31T23:59:59.999999999Z")), ""},
		{at("9998-12-31T23:59:59Z", paid("2000-01-01T00:00:00Z")), ""},
		{at("0000-01-01T00:00:00+01:00", paid("2026-01-01T00:00:00Z")), TimestampTooOld},
		{at("2000-01-01T00:00:00+00:01", paid("2026-01-01T00:00:00Z")), TimestampTooOld},
		{at("9999-01-01T00:00:00Z", paid("2026-01-01T00:00:00Z")), TimestampInFuture},
		{at("2026-01-01T00:00:00Z", paid("9998-12-31T23:59:59-23:59")), InvalidData},
		{at("2026-01-01T00:00:00Z", paid("1999-12-31T23:59:59Z")), InvalidData},
	} {
		if _, err := d.Decode(c.record); reasonOf(err) != c.want {
			t.Errorf("%s: %v, want %q", c.record.Value, err, c.want)
		}
	}
	// What has no reason of its own by its year keeps it: usage is held against its own limits.
	if err := d.CheckData(TypeUsageRecorded, []byte(strings.Replace(goodUsage, "2026", "1026", 1))); err != nil {
		t.Errorf("usage of the year 1026: %v", err)
	}
}

const goodUsage = `{"company_id":"acme","user_id":"u","subscription_tier":"pro","service_name":"s","api_endpoint":"/x","data_points_consumed":1,
	"processing_time_ms":1,"timestamp":"2026-07-31T00:00:00Z"}`

// A threshold event has the time of the usage that reached it.
func TestUsage_TimeOfNoYearIsRefused(t *testing.T) {
	t.Parallel()
	if firstSecond != time.Date(FirstYear, 1, 1, 0, 0, 0, 0, time.UTC).Unix() || endSecond != time.Date(LastYear+1, 1, 1, 0, 0, 0, 0, time.UTC).Unix() {
		t.Error("the bounds are not those of the years")
	}
	d := NewUsageDecoder(UsageLimits{})
	for at, want := range map[string]Reason{
		"0000-01-01T00:00:00+01:00": TimestampTooOld, "1999-12-31T23:59:59Z": TimestampTooOld, "9999-01-01T00:00:00Z": TimestampInFuture,
		"2000-01-01T00:00:00Z": "", "9998-12-31T23:59:59Z": "",
	} {
		r := recordOf(TopicUsage, TypeUsageRecorded, goodUsage)
		for i := range r.Headers {
			if r.Headers[i].Key == "ce_time" {
				r.Headers[i].Value = []byte(at)
			}
		}
		var u Usage
		if err := d.Decode(r, time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC), &u); reasonOf(err) != want {
			t.Errorf("%s: %v, want %q", at, err, want)
		}
		checkBothWays(t, d, r)
	}
}

func TestDecoder_KeepsPaymentsOfUpTo4KiB(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, "")
	for members, fits := range map[string]bool{
		`"x":"` + strings.Repeat("<", 4096-len(`{"payment_id":"p","x":""}`)) + `"`: true,
		`"x":"` + strings.Repeat("<", 4097-len(`{"payment_id":"p","x":""}`)) + `"`: false,
		`"x":1e400`:        true,
		`"x":1e401`:        false,
		`"x":[1e-9999999]`: false,
		`"x":[` + strings.Repeat("1e400,", 11) + `1]`: false, // written out, more than 4 KiB
	} {
		data := `{"company_id":"acme","new_tier":"pro","payment":{"payment_id":"p",` + members + `}}`
		if _, err := d.Decode(recordOf(TopicSubscription, TypeUpgradeRequested, data)); (err == nil) != fits || err != nil && reasonOf(err) != InvalidData {
			t.Errorf("%.40s...: %v, want taken: %v", members, err, fits)
		}
	}
}

func TestUsage_TrailingZerosOfRevenueDontCount(t *testing.T) {
	t.Parallel()
	d := NewUsageDecoder(UsageLimits{})
	for text, want := range map[string]int64{
		`"0.1200000000"`: 120_000, `0.1200000000`: 120_000, `"0.000001000"`: 1, `"1.00000000000000000000"`: 1_000_000, `"7"`: 7_000_000,
		`"0.0000001"`: -1, `"0.00000010"`: -1, `"1."`: -1,
	} {
		r := recordOf(TopicUsage, TypeUsageRecorded, strings.Replace(goodUsage, `"user_id"`, `"revenue_attributed":`+text+`,"user_id"`, 1))
		var u Usage
		err := d.Decode(r, time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC), &u)
		if want < 0 && reasonOf(err) != InvalidData || want >= 0 && (err != nil || u.Revenue != want) {
			t.Errorf("%s: %d, %v, want %d", text, u.Revenue, err, want)
		}
		checkBothWays(t, d, r)
	}
}
