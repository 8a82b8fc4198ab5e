package events

import (
	"bytes"
	"encoding/json"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// reference decodes with nothing this package has for it but the envelope and the schema: encoding/json, time.Parse and
// big.Rat. The reason is that of the general way.
func reference(t *testing.T, d *UsageDecoder, r *Record) (Usage, Reason) {
	t.Helper()
	var u Usage
	if err := d.general(r, &u); err != nil {
		if reasonOf(err) == "" {
			t.Fatalf("the error is no Rejection: %v", err)
		}
		return Usage{}, reasonOf(err)
	}
	envelope, err := ParseEnvelope(r)
	if err != nil {
		t.Fatal(err)
	}
	var data map[string]any
	decoder := json.NewDecoder(bytes.NewReader(envelope.Data))
	decoder.UseNumber()
	if err := decoder.Decode(&data); err != nil {
		t.Fatalf("accepted, but encoding/json says: %v", err)
	}
	rat := func(name string) *big.Rat {
		var text string
		switch v := data[name].(type) {
		case nil:
			return new(big.Rat)
		case json.Number:
			text = tamed(string(v))
		case string:
			text = v
		}
		n, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("accepted, but %s is no number: %q", name, text)
		}
		return n
	}
	exactly := func(name string, unit int64) int64 {
		n := rat(name)
		n.Mul(n, big.NewRat(unit, 1))
		if !n.IsInt() || !n.Num().IsInt64() {
			t.Fatalf("accepted, but %s is not exact", name)
		}
		return n.Num().Int64()
	}
	text := func(name string) []byte { s, _ := data[name].(string); return []byte(s) }

	want := Usage{
		ID: []byte(envelope.ID), Source: []byte(envelope.Source), CompanyID: text("company_id"), UserID: text("user_id"),
		Tier: text("subscription_tier"), Service: text("service_name"), Endpoint: text("api_endpoint"),
		BillingPeriod: text("billing_period"), DataPoints: uint32(exactly("data_points_consumed", 1)),
		Revenue: exactly("revenue_attributed", 1_000_000),
	}
	halfUp := rat("processing_time_ms")
	halfUp.Add(halfUp.Mul(halfUp, big.NewRat(1000, 1)), big.NewRat(1, 2))
	want.ProcessingTime = new(big.Int).Div(halfUp.Num(), halfUp.Denom()).Int64()

	at := envelope.Time
	if s, ok := data["timestamp"].(string); ok {
		// time.Parse knows no lower case.
		if at, err = time.Parse(time.RFC3339Nano, strings.ToUpper(s)); err != nil {
			t.Fatalf("accepted, but time.Parse says: %v", err)
		}
	}
	want.Timestamp = at.UnixMilli()
	if id, ok := data["reservation_id"].(string); ok && regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`).MatchString(id) && !strings.HasSuffix(id, "\n") {
		want.ReservationID = []byte(id)
	}
	if _, ok := data["billing_period"]; !ok {
		want.BillingPeriod = at.UTC().AppendFormat(nil, "2006-01")
		if y := at.UTC().Year(); y < 0 || y > 9999 {
			want.BillingPeriod = u.BillingPeriod // beyond every limit, and no YYYY-MM
		}
	}
	sameUsage(t, "general way", &u, &want)
	return want, ""
}

func sameUsage(t *testing.T, what string, got, want *Usage) {
	t.Helper()
	for _, f := range []struct {
		name      string
		got, want []byte
	}{
		{"ID", got.ID, want.ID}, {"Source", got.Source, want.Source}, {"CompanyID", got.CompanyID, want.CompanyID},
		{"UserID", got.UserID, want.UserID}, {"Tier", got.Tier, want.Tier}, {"Service", got.Service, want.Service},
		{"Endpoint", got.Endpoint, want.Endpoint}, {"BillingPeriod", got.BillingPeriod, want.BillingPeriod},
		{"ReservationID", got.ReservationID, want.ReservationID},
	} {
		if !bytes.Equal(f.got, f.want) {
			t.Errorf("%s: %s is %q, want %q", what, f.name, f.got, f.want)
		}
	}
	if got.Voids != nil || want.Voids != nil {
		t.Errorf("%s: usage takes something back: %v, want %v", what, got.Voids, want.Voids)
	}
	if got.Timestamp != want.Timestamp || got.DataPoints != want.DataPoints ||
		got.ProcessingTime != want.ProcessingTime || got.Revenue != want.Revenue {
		t.Errorf("%s: timestamp, points, time, revenue are %d %d %d %d, want %d %d %d %d", what,
			got.Timestamp, got.DataPoints, got.ProcessingTime, got.Revenue,
			want.Timestamp, want.DataPoints, want.ProcessingTime, want.Revenue)
	}
}

// checkBothWays holds the decoder against the reference for one record.
func checkBothWays(t *testing.T, d *UsageDecoder, r *Record) {
	t.Helper()
	want, reason := reference(t, d, r)
	got := staleUsage() // nothing of an event before may show
	if d.fast(r, &got) {
		if reason != "" {
			t.Fatalf("the fast way accepts what is %s", reason)
		}
		sameUsage(t, "fast way", &got, &want)
	} else if reason == "" && !isEventFormat(headerValue(r, "content-type")) && !repeatsName(r.Value) {
		t.Fatal("the fast way gives up on an ordinary event")
	}

	u := staleUsage()
	now := time.UnixMilli(want.Timestamp)
	if err := d.Decode(r, now, &u); reasonOf(err) != reason {
		t.Fatalf("Decode: %v, want reason %q", err, reason)
	} else if err == nil {
		sameUsage(t, "Decode", &u, &want)
	}
}

func staleUsage() Usage {
	x := []byte("stale")
	return Usage{x, x, x, x, x, x, x, 1, 2, 3, x, 4, x, &Voids{}}
}

func headerValue(r *Record, key string) []byte {
	for _, h := range r.Headers {
		if h.Key == key {
			return h.Value
		}
	}
	return nil
}

// repeatsName reports whether a JSON object has two members of one name at its top.
func repeatsName(text []byte) bool {
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		return false
	}
	seen := map[string]bool{}
	for d.More() {
		name, err := d.Token()
		s, ok := name.(string)
		if err != nil || !ok || seen[s] {
			return true
		}
		seen[s] = true
		var skipped json.RawMessage
		if d.Decode(&skipped) != nil {
			return false
		}
	}
	return false
}

// oddValues are texts of JSON values that decoders tend to disagree about.
func oddValues() []string {
	return []string{
		`null`, `true`, `""`, `"a"`, `{}`, `[]`, `0`, `-0`, `-0.0`, `00`, `01`, `+1`, `.5`, `5.`, `1e`, `1e+`, `5.0`, `1e2`, `1E+2`, `100e-2`,
		`0.5`, `1e-400`, `1e400`, `0e999999999999999999999`, `1e999999999999999999999`, `1e-99999999999999999999`,
		`4294967295`, `4294967296`, `4294967295.0000`, `42949672950e-1`, `42949672.95e2`, `0.0005`, `0.00049999`, `12.3445`, `12.3455`,
		`999999999999999.999`, `999999999999999.9994`, `999999999999999.9985`, `1000000000000000`, `999999999999.999999`,
		`999999999999.9999990`, `999999999999.9999991`, `1000000000000`, `0.000001`, `0.0000001`, `0.0000010`, `1e-6`, `1e-7`, `9223372036854775808`,
		`18446744073709551616`, `123456789012345678901234567890`, `"0"`, `"0.000001"`, `"0.0000001"`, `"1."`, `".1"`, `"-1"`, `"1e2"`,
		`"999999999999.999999"`, `"1000000000000"`, `"007.50"`, `" 1"`, `"1\u0030"`, `"\u0031"`, `"NaN"`, `NaN`, `Infinity`, `"١"`,
		`"2026-07"`, `"2026-00"`, `"2026-13"`, `"2026-7"`, `"2026-07\n"`, `"0000-01"`, `"9999-12"`, `"2026\u002d07"`,
		`"2026-07-31T12:00:00Z"`, `"2026-07-31t12:00:00z"`, `"2026-07-31 12:00:00Z"`, `"2026-07-31T12:00:00"`, `"2026-07-31T12:00:60Z"`,
		`"2026-06-30T23:59:60Z"`, `"2026-07-31T24:00:00Z"`, `"2026-02-29T00:00:00Z"`, `"2024-02-29T00:00:00Z"`, `"2026-07-31T12:00:00.Z"`,
		`"2026-07-31T12:00:00.1234567890123Z"`, `"2026-07-31T12:00:00,5Z"`, `"2026-07-31T12:00:00.9999999999Z"`, `"2026-07-31T23:59:59-23:59"`,
		`"2026-07-31T12:00:00+24:00"`, `"2026-07-31T12:00:00+0200"`, `"2026-07-31T12:00:00+02"`, `"2026-07-31T+1:00:00Z"`, `"2026-07-31T1:00:00Z"`,
		`"0000-01-01T00:00:00Z"`, `"0000-01-01T00:00:00+23:59"`, `"9999-12-31T23:59:59-23:59"`, `"1969-12-31T23:59:59.9999Z"`, `"2026-07-31T12:00:00-00:00"`,
		`"a\u0000b"`, "\"a\x00b\"", "\"a\nb\"", `"\ud83d\ude00"`, `"\ud83d"`, `"\ude00\ud83d"`, `"\ud83d\u0041"`, `"\uD83D\uDE00x"`, `"\ud83dx"`, `"\u12"`, `"\x"`,
		`"ü"`, `"😀"`, "\"\xff\"", "\"\xc3\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\ufeff\"", "\"\u2028\"", `"\/\b\f\n\r\t\"\\"`, `"`, `"\`, `"\"`,
		`"` + strings.Repeat("a", 50) + `"`, `"` + strings.Repeat("a", 51) + `"`, `"` + strings.Repeat("a", 64) + `"`, `"` + strings.Repeat("a", 65) + `"`, `"ABC_xyz-09"`, `"a b"`, `"a\u0062"`, `"é"`, `"PRO"`, `"` + strings.Repeat("t", 20) + `"`,
		`"` + strings.Repeat("t", 21) + `"`, `{"a":{"b":[1,{"c":null}]}}`, `{"a":1,}`, `[1,]`, `[1 2]`, `[1}`, `{"a":1]`, `[{"a":[1}]`, `[[1],{"a":{}}]`, `{"a" 1}`, `{a:1}`, `{"a":1`, `[[[[`, `tru`, `nulll`, `truefalse`,
		`'a'`, `/**/1`, "1\u00a0", `{"a":1,"a":2}`,
	}
}

// oddRecords puts every odd value at every place of an event, in both content modes.
func oddRecords() []*Record {
	members := []string{"company_id", "user_id", "subscription_tier", "service_name", "api_endpoint", "data_points_consumed",
		"processing_time_ms", "timestamp", "billing_period", "revenue_attributed", "reservation_id", "unknown", "Company_id", `company\u005fid`, ""}
	attributes := []string{"specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema", "data", "data_base64",
		"traceparent", "partitionkey", "other"}
	var records []*Record
	for _, odd := range oddValues() {
		for _, name := range members {
			// Once in place of the ordinary member, once before it, once behind it.
			data := `{` + usageJSON[1:len(usageJSON)-1] + `,"` + name + `":` + odd + `}`
			records = append(records, binaryRecord(data), structuredRecord(data))
			records = append(records, binaryRecord(`{"`+name+`":`+odd+`,`+usageJSON[1:]))
			records = append(records, binaryRecord(replaceMember(usageJSON, name, odd)))
		}
		for _, name := range attributes {
			r := structuredRecord(usageJSON)
			r.Value = []byte(`{` + string(r.Value[1:len(r.Value)-1]) + `,"` + name + `":` + odd + `}`)
			records = append(records, r)
			r = structuredRecord(usageJSON)
			r.Value = []byte(replaceMember(string(r.Value), name, odd))
			records = append(records, r)
			r = binaryRecord(usageJSON)
			text := []byte(strings.Trim(odd, `"`))
			r.Headers = append(r.Headers, Header{"ce_" + name, text})
			records = append(records, r)
			r = binaryRecord(usageJSON)
			for i := range r.Headers {
				if r.Headers[i].Key == "ce_"+name {
					r.Headers[i].Value = text
				}
			}
			records = append(records, r)
		}
		records = append(records, binaryRecord(odd), structuredRecord(odd), binaryRecord(usageJSON+odd), binaryRecord(odd+usageJSON))
		r := binaryRecord(usageJSON)
		r.Key = []byte(strings.Trim(odd, `"`))
		records = append(records, r)
		r = binaryRecord(usageJSON)
		r.Headers[len(r.Headers)-1].Value = []byte(odd)
		records = append(records, r)
	}
	return records
}

// replaceMember gives a one-line object with another value for a member whose value has no comma in it.
func replaceMember(object, name, value string) string {
	start := strings.Index(object, `"`+name+`":`)
	if start < 0 || strings.HasPrefix(name, "data") && name != "data_points_consumed" && name != "datacontenttype" {
		return object
	}
	start += len(name) + 3
	end := start + strings.IndexAny(object[start:], ",}")
	return object[:start] + value + object[end:]
}

func TestUsageDecoderAgreesWithSchemaAndEncodingJSON(t *testing.T) {
	t.Parallel()
	d := NewUsageDecoder(UsageLimits{})
	for i, r := range oddRecords() {
		checkBothWays(t, d, r)
		if t.Failed() {
			t.Fatalf("record %d: key %q, headers %q, value %q", i, r.Key, r.Headers, r.Value)
		}
	}
}

func TestNestingIsAcceptedAsDeepAsEncodingJSONDoes(t *testing.T) {
	t.Parallel()
	for _, depth := range []int{1, 63, 64, 65, 9_999, 10_000, 10_001, 100_000} {
		for _, pair := range []string{"[]", `{"a":1}`} {
			opening, closing := pair[:1], pair[len(pair)-1:]
			if opening == "{" {
				opening = `{"a":`
			}
			text := []byte(strings.Repeat(opening, depth) + "1" + strings.Repeat(closing, depth))
			var s scanner
			if got := s.skip(text, 0, 0) == len(text); got != json.Valid(text) || got != (depth <= 10_000) {
				t.Errorf("%d levels of %s: %v", depth, pair, got)
			}
		}
	}
	d := NewUsageDecoder(UsageLimits{})
	for _, depth := range []int{9_998, 9_999, 10_000, 10_001} {
		deep := `,"deep":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + `}`
		for _, r := range []*Record{binaryRecord(usageJSON[:len(usageJSON)-1] + deep), structuredRecord(usageJSON[:len(usageJSON)-1] + deep)} {
			checkBothWays(t, d, r)
		}
	}
}

func FuzzUsageDecode(f *testing.F) {
	for i, r := range oddRecords() {
		if i%41 == 0 {
			f.Add(string(headerValue(r, "content-type")), string(r.Key), string(headerValue(r, "ce_id")), string(headerValue(r, "ce_time")), r.Value)
		}
	}
	d := NewUsageDecoder(UsageLimits{})
	f.Fuzz(func(t *testing.T, contentType, key, id, at string, value []byte) {
		r := binaryRecord("")
		r.Key, r.Value = []byte(key), value
		for i := range r.Headers {
			switch r.Headers[i].Key {
			case "content-type":
				r.Headers[i].Value = []byte(contentType)
			case "ce_id":
				r.Headers[i].Value = []byte(id)
			case "ce_time":
				r.Headers[i].Value = []byte(at)
			}
		}
		checkBothWays(t, d, r)
	})
}

func FuzzScannerSkip(f *testing.F) {
	for _, odd := range oddValues() {
		f.Add([]byte(odd))
		f.Add([]byte(` { "a" : [ ` + odd + ` , {} ] } `))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s scanner
		end := s.skip(text, 0, 0)
		valid := end != bad && skipSpace(text, end) == len(text)
		if want := json.Valid(text) && utf8.Valid(text); valid != want {
			t.Errorf("%q: valid %v, want %v", text, valid, want)
		}
	})
}
