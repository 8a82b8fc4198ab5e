package events

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func newTestDecoder(t *testing.T, prefix string) *Decoder {
	t.Helper()
	d, err := NewDecoder(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// recordOf makes a record of any type with the key acme.
func recordOf(topic, eventType, data string) *Record {
	r := binaryRecord(data)
	r.Topic = topic
	for i := range r.Headers {
		if r.Headers[i].Key == "ce_type" {
			r.Headers[i].Value = []byte(eventType)
		}
	}
	return r
}

func TestDecoderGivesReasonsInOrder(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, "eu.")
	good := `{"company_id":"acme","new_tier":"pro"}`
	record := func(change func(r *Record)) *Record {
		r := recordOf("eu."+TopicSubscription, TypeUpgradeRequested, good)
		change(r)
		return r
	}
	// Every case has all the faults of those below it as well.
	for _, c := range []struct {
		want   Reason
		record *Record
	}{
		{MalformedEnvelope, record(func(r *Record) { r.Headers, r.Key, r.Value = r.Headers[1:], nil, []byte("{\xff") })},
		{MalformedEnvelope, record(func(r *Record) { r.Headers, r.Key = r.Headers[1:], []byte("\xff") })},
		{MissingAttribute, record(func(r *Record) {
			r.Headers, r.Topic, r.Key, r.Value = r.Headers[1:], "eu."+TopicCompany, nil, []byte("{")
		})},
		{UnknownType, record(func(r *Record) { r.Topic, r.Key, r.Value = "eu."+TopicCompany, nil, []byte("{") })},
		{UnknownType, record(func(r *Record) { r.Topic = TopicSubscription })},
		{UnknownType, record(func(r *Record) { r.Topic = "eu.subscription.events.dlq" })},
		{MissingKey, record(func(r *Record) { r.Key, r.Value = nil, []byte("{") })},
		{MissingKey, record(func(r *Record) { r.Key = []byte{} })},
		{MalformedData, record(func(r *Record) { r.Key, r.Value = []byte("other"), []byte("{") })},
		{MalformedData, record(func(r *Record) { r.Value = []byte{} })},
		{MalformedData, record(func(r *Record) { r.Value = []byte(good + "x") })},
		{KeyMismatch, record(func(r *Record) { r.Key, r.Value = []byte("other"), []byte(`{"company_id":"acme"}`) })},
		{KeyMismatch, record(func(r *Record) { r.Value = []byte(`{"company_id":"acme","company_id":"other","new_tier":"pro"}`) })},
		{InvalidData, record(func(r *Record) { r.Value = []byte(`{"company_id":"acme"}`) })},
		{InvalidData, record(func(r *Record) { r.Value = []byte(`{"company_id":7,"new_tier":"pro"}`) })},
		{"", record(func(*Record) {})},
	} {
		if _, err := d.Decode(c.record); reasonOf(err) != c.want {
			t.Errorf("key %q, value %q: %v, want %q", c.record.Key, c.record.Value, err, c.want)
		}
	}
}

func TestADecodedEventOutlivesItsRecord(t *testing.T) {
	t.Parallel()
	r := recordOf(TopicCompany, TypeUserRemoved, `{"company_id":"acme","user_id":"u"}`)
	event, err := newTestDecoder(t, "").Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	clear(r.Value)
	clear(r.Key)
	for _, h := range r.Headers {
		clear(h.Value)
	}
	payload, err := event.Payload()
	if err != nil {
		t.Fatal(err)
	}
	if want := (&UserRemoved{"acme", "u"}); !reflect.DeepEqual(payload, want) || event.Key != "acme" || event.Type != TypeUserRemoved {
		t.Errorf("key %q, type %q, payload %+v", event.Key, event.Type, payload)
	}
	if source, id := event.Identity(); source != "/data-bridge/eu-1" || id != "0190a5c1-7c7e-7cc3-9fd1-1a2b3c4d5e6f" {
		t.Errorf("identity %q %q", source, id)
	}
}

func TestPayloadsAreExactAndHaveDefaults(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, "")
	eventTime := time.Date(2026, 7, 31, 11, 30, 0, 0, time.UTC)
	at := func(day int) time.Time { return time.Date(2026, 8, day, 0, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		eventType, data string
		want            any
	}{
		{TypeUpgradeRequested, `{"company_id":"acme","new_tier":"pro","payment":{"payment_id":"p","fee":1.10},"expected_tier":"free"}`,
			&UpgradeRequested{"acme", "pro", &Payment{"p", "", []byte(`{"fee":1.10,"payment_id":"p"}`)}, "free"}},
		{TypeUpgradeRequested, `{"company_id":"acme","new_tier":"pro","COMPANY_ID":"evil","New_Tier":"enterprise"}`,
			&UpgradeRequested{"acme", "pro", nil, ""}},
		{TypeDowngradeRequested, `{"company_id":"acme","new_tier":"free"}`, &DowngradeRequested{"acme", "free", EffectivePeriodEnd}},
		{TypeDowngradeRequested, `{"company_id":"acme","new_tier":"free","effective":"immediate"}`, &DowngradeRequested{"acme", "free", EffectiveImmediate}},
		{TypeCancelRequested, `{"company_id":"acme"}`, &CancelRequested{"acme", EffectivePeriodEnd}},
		{TypeRenewed, `{"company_id":"acme","period_start":"2026-08-01T02:00:00+02:00","period_end":"2026-08-31T00:00:00Z"}`,
			&Renewed{"acme", at(1), at(31), nil}},
		{TypeExpired, `{"company_id":"acme"}`, &Expired{"acme", eventTime}},
		{TypeExpired, `{"company_id":"acme","expired_at":"2026-08-01T00:00:00z"}`, &Expired{"acme", at(1)}},
		{TypePaymentReceived, `{"company_id":"acme","payment_id":"p","amount_minor":49e2,"currency":"EUR","paid_at":"2026-08-02T00:00:00Z","method":"card","billing_period":"2026-07"}`,
			&PaymentReceived{"acme", "p", 4900, "EUR", at(2), "card", "2026-07"}},
		{TypePaymentReceived, `{"company_id":"acme","payment_id":"p","amount_minor":-9007199254740991,"currency":"EUR","paid_at":"2026-08-02T00:00:00Z"}`,
			&PaymentReceived{"acme", "p", -9007199254740991, "EUR", at(2), "", ""}},
		{TypePaymentFailed, `{"company_id":"acme","payment_id":"p","reason":"declined"}`, &PaymentFailed{"acme", "p", "declined"}},
		{TypeChangeWithdrawn, `{"company_id":"acme"}`, &ChangeWithdrawn{"acme"}},
		{TypeSubscriptionDue, `{"company_id":"acme","kind":"renewal","due_at":"2026-08-01T02:00:00+02:00"}`, &SubscriptionDue{"acme", "renewal", at(1)}},
		{TypeCompanyRegistered, `{"company_id":"acme","name":"Acme","billing_email":"b@a.example","initial_user":{"user_id":"u","email":"u@a.example","USER_ID":"evil"}}`,
			&CompanyRegistered{"acme", "Acme", "b@a.example", "USD", InitialUser{"u", "u@a.example"}, nil}},
		{TypeConfigUpdated, `{"company_id":"acme","config":{"a":null,"n":12345678901234567890.10}}`,
			&ConfigUpdated{"acme", []byte(`{"a":null,"n":12345678901234567890.10}`)}},
		{TypeUserAdded, `{"company_id":"acme","user_id":"u","email":"u@a.example"}`, &UserAdded{"acme", "u", "u@a.example"}},
		{TypeUserRemoved, `{"company_id":"acme","user_id":"u"}`, &UserRemoved{"acme", "u"}},
		{TypeUserErasureRequested, `{"company_id":"acme","user_id":"u"}`, &UserErasureRequested{"acme", "u"}},
		{TypeSchemaUpgradeRequested, `{"company_id":"acme"}`, &SchemaUpgradeRequested{"acme", 0}},
		{TypeSchemaUpgradeRequested, `{"company_id":"acme","target_version":3.0}`, &SchemaUpgradeRequested{"acme", 3}},
		{TypeLimitsOverridden, `{"company_id":"acme","limits":{"storage_mb":"unlimited","max_users":null,"daily_api_calls":25e1,"gold":1},"reason":"r","expires_at":"2026-08-01T02:00:00+02:00"}`,
			&LimitsOverridden{"acme", []NewLimit{{Name: "daily_api_calls", Value: 250}, {Name: "max_users", Reset: true}, {Name: "storage_mb", Unlimited: true}}, "r", new(at(1))}},
		{TypeLimitsOverridden, `{"company_id":"acme","limits":{"retention_days":999999999999999999},"reason":"r"}`,
			&LimitsOverridden{"acme", []NewLimit{{Name: "retention_days", Value: 999_999_999_999_999_999}}, "r", nil}},
		{TypeCompanyDue, `{"company_id":"acme","kind":"override","name":"max_users","due_at":"2026-08-01T02:00:00+02:00"}`, &CompanyDue{"acme", "override", "max_users", at(1)}},
		{TypeUsageVoidRequested, `{"company_id":"acme","user_id":"u","usage_source":"/s","usage_id":"e","timestamp":"2026-08-01T02:00:00.0009+02:00","reason":"r"}`,
			&UsageVoidRequested{"acme", "u", "/s", "e", at(1), "r"}},
		{TypeCompanyClosed, `{"company_id":"acme"}`, &CompanyClosed{"acme", false, ""}},
		{TypeCompanyClosed, `{"company_id":"acme","purge":true,"reason":"r"}`, &CompanyClosed{"acme", true, "r"}},
	} {
		topic, _ := TopicOf(c.eventType)
		event, err := d.Decode(recordOf(topic, c.eventType, c.data))
		if err != nil {
			t.Errorf("%s: %v", c.eventType, err)
			continue
		}
		if got, err := event.Payload(); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %s:\ngot  %+v\nwant %+v (%v)", c.eventType, c.data, got, c.want, err)
		}
	}
}

func TestEveryInputTypeHasAPayload(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, "")
	for _, topic := range Topics() {
		for _, eventType := range topic.Types {
			if eventType == TypeUsageVoided || topic.Name == TopicMaintenance {
				continue // its identity follows from its data; and usage and slots have no payloads
			}
			data, err := os.ReadFile(filepath.Join("..", "schemas", "fixtures", eventType, "valid", "all-fields.json"))
			if err != nil {
				t.Fatal(err)
			}
			event, err := d.Decode(recordOf(topic.Name, eventType, string(data)))
			if err != nil {
				t.Errorf("%s: %v", eventType, err)
				continue
			}
			payload, err := event.Payload()
			first, _ := TopicOf(eventType) // a result may have the type of its request
			if (err == nil) != (topic.KeyRule == KeyCompany || first != topic.Name) {
				t.Errorf("%s: payload %v, error %v", eventType, payload, err)
			}
		}
	}
}

func TestNumbersOfAnySizeAreJudgedAndNotComputed(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, "")
	// To compute with some of these would take longer than the test run may.
	for number, want := range map[string]Reason{
		"1e999999999": InvalidData, "-1e999999999": InvalidData, "1e-999999999": InvalidData, "0e999999999": "",
		strings.Repeat("9", 1<<20): InvalidData, "1." + strings.Repeat("0", 1<<20): "", "1" + strings.Repeat("0", 1<<20) + "e-1048576": "",
		"0." + strings.Repeat("0", 1<<20) + "1": InvalidData, "9007199254740991": "", "9007199254740992": InvalidData,
	} {
		data := `{"company_id":"acme","payment_id":"p","currency":"EUR","paid_at":"2026-08-02T00:00:00Z","amount_minor":` + number + `}`
		if err := d.CheckData(TypePaymentReceived, []byte(data)); reasonOf(err) != want {
			t.Errorf("%.40s: %.200v, want %q", number, err, want)
		}
	}
}

func TestDataNestedTooDeepIsRefusedBeforeItCostsAnything(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, "")
	for levels, want := range map[int]Reason{1: "", 98: "", 99: InvalidData, 9_990: InvalidData, 20_000: MalformedData} {
		// The data and config are two levels more.
		for _, innermost := range []string{"", `"\u0000"`} {
			data := `{"company_id":"acme","config":{"a":` + strings.Repeat("[", levels) + innermost + strings.Repeat("]", levels) + `}}`
			expected := want
			if innermost != "" && want == "" {
				expected = InvalidData
			}
			if err := d.CheckData(TypeConfigUpdated, []byte(data)); reasonOf(err) != expected {
				t.Errorf("%d levels: %.200v, want %q", levels, err, expected)
			}
		}
	}
	// Usage has nothing that is kept whole: both decoders skip what is deep.
	deep := usageJSON[:len(usageJSON)-1] + `,"deep":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}`
	if err := d.CheckData(TypeUsageRecorded, []byte(deep)); err != nil {
		t.Errorf("usage: %.200v", err)
	}
}

func TestManyFaultsAreCountedAndNotListed(t *testing.T) {
	t.Parallel()
	err := newTestDecoder(t, "").CheckData(TypeConfigUpdated,
		[]byte(`{"company_id":"acme","config":{"a":["`+strings.Repeat(`\u0000","`, 9_999)+`\u0000"]}}`))
	if reasonOf(err) != InvalidData || !strings.HasSuffix(err.Error(), "and 9997 more") || len(err.Error()) > 500 {
		t.Errorf("%.600v", err)
	}
}

// The fast way is worth nothing if ordinary events miss it.
func TestTheFastWayTakesEveryValidFixtureAndNoInvalidOne(t *testing.T) {
	t.Parallel()
	d := NewUsageDecoder(UsageLimits{})
	for _, kind := range []string{"valid", "invalid"} {
		files, err := filepath.Glob(filepath.Join("..", "schemas", "fixtures", TypeUsageRecorded, kind, "*.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%d fixtures, %v", len(files), err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range []*Record{binaryRecord(string(data)), structuredRecord(string(data))} {
				if d.fast(r, new(Usage)) != (kind == "valid") {
					t.Errorf("%s: the fast way is wrong", file)
				}
				checkBothWays(t, d, r)
			}
		}
	}
}

// These words are all that the sender gets for correcting an event.
func TestARefusalSaysWhatIsWrongWithAValue(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, "")
	for member, want := range map[string]string{
		`"revenue_attributed":"1e2"`:                `at "/revenue_attributed": '1e2' does not match pattern`,
		`"revenue_attributed":-1`:                   `at "/revenue_attributed": minimum: got -1, want 0`,
		`"revenue_attributed":null`:                 `at "/revenue_attributed": got null, want string, or got null, want number`,
		`"revenue_attributed":0.0000001`:            `at "/revenue_attributed": multipleOf: `,
		`"processing_time_ms":1000000000000000`:     `at "/processing_time_ms": maximum: got 1000000000000000, want 999999999999999.999`,
		`"processing_time_ms":1e300`:                `at "/processing_time_ms": maximum: got 1e+300, want 999999999999999.999`,
		`"data_points_consumed":4294967296`:         `at "/data_points_consumed": maximum: got 4294967296, want 4294967295`,
		`"data_points_consumed":-0.5`:               `at "/data_points_consumed": got number, want integer`,
		`"processing_time_ms":-1e-999999999`:        `at "/processing_time_ms": minimum: got -`,
		`"revenue_attributed":"9999999999999.1"`:    `does not match pattern`,
		`"revenue_attributed":1000000000000.000001`: `at "/revenue_attributed": maximum: got 1000000000000.000001, want 999999999999.999999`,
	} {
		err := d.CheckData(TypeUsageRecorded, []byte(`{"company_id":"c","user_id":"u","subscription_tier":"pro","service_name":"s","api_endpoint":"/",`+
			`"data_points_consumed":1,"processing_time_ms":1,`+member+`}`))
		if reasonOf(err) != InvalidData || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", member, err, want)
		}
	}
}
