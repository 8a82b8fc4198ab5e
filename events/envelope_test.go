package events

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

func withHeaders(r *Record, change func([]Header) []Header) *Record {
	r.Headers = change(r.Headers)
	return r
}

func replaceHeader(key, value string) func([]Header) []Header {
	return func(headers []Header) []Header {
		for i := range headers {
			if headers[i].Key == key {
				headers[i].Value = []byte(value)
			}
		}
		return headers
	}
}

func dropHeader(key string) func([]Header) []Header {
	return func(headers []Header) []Header {
		var kept []Header
		for _, h := range headers {
			if h.Key != key {
				kept = append(kept, h)
			}
		}
		return kept
	}
}

func addHeader(key, value string) func([]Header) []Header {
	return func(headers []Header) []Header { return append(headers, Header{key, []byte(value)}) }
}

func structuredText(text string) *Record {
	r := structuredRecord("")
	r.Value = []byte(text)
	return r
}

func TestEnvelopesAreUnderstoodOrRefusedForTheirReason(t *testing.T) {
	t.Parallel()
	const attributes = `"specversion":"1.0","id":"i","source":"/s","type":"usage.recorded.v1","time":"2026-07-31T11:30:00Z"`
	tombstone := binaryRecord("")
	tombstone.Value = nil
	structuredTombstone := structuredRecord("")
	structuredTombstone.Value = nil
	plain := &Record{Key: []byte("k"), Value: []byte(usageJSON), Headers: []Header{{"content-type", []byte("application/json")}}}
	brokenKey := binaryRecord(usageJSON)
	brokenKey.Key = []byte("a\xc3")

	cases := map[string]struct {
		record *Record
		want   Reason
	}{
		"binary":                                  {binaryRecord(usageJSON), ""},
		"binary without a content type":           {withHeaders(binaryRecord(usageJSON), dropHeader("content-type")), ""},
		"binary with a JSON suffix":               {withHeaders(binaryRecord(usageJSON), replaceHeader("content-type", "application/vnd.x+json")), ""},
		"binary that only looks like an event":    {withHeaders(binaryRecord(usageJSON), replaceHeader("content-type", "application/cloudevent")), ""},
		"binary with headers of others":           {withHeaders(binaryRecord(usageJSON), addHeader("trace", "\xff\x00")), ""},
		"binary with the header of another twice": {withHeaders(withHeaders(binaryRecord(usageJSON), addHeader("x", "1")), addHeader("x", "1")), ""},
		"structured":                              {structuredRecord(usageJSON), ""},
		"structured in upper case":                {withHeaders(structuredRecord(usageJSON), replaceHeader("content-type", "APPLICATION/CloudEvents+JSON ; Charset=utf-8")), ""},
		"structured with white space":             {structuredText(" {\n" + strings.ReplaceAll(attributes, ",", " ,\t") + " , \"data\" : " + usageJSON + " }\r\n"), ""},
		"structured with headers as well":         {withHeaders(structuredRecord(usageJSON), addHeader("ce_id", "")), ""},
		"structured with odd extensions":          {structuredText(`{` + attributes + `,"sampled":true,"rate":1.5,"nothing":null,"odd":{"a":[]},"data":` + usageJSON + `}`), ""},
		"structured with a numeric partitionkey":  {structuredText(`{` + attributes + `,"partitionkey":5,"data":` + usageJSON + `}`), ""},
		"structured with null optional attribute": {structuredText(`{` + attributes + `,"subject":null,"data_base64":null,"data":` + usageJSON + `}`), ""},
		"structured in base64":                    {structuredText(`{` + attributes + `,"data_base64":"` + base64.StdEncoding.EncodeToString([]byte(usageJSON)) + `"}`), ""},
		"a name with an escape":                   {structuredText(`{` + strings.Replace(attributes, `"id"`, `"\u0069d"`, 1) + `,"data":` + usageJSON + `}`), ""},
		"an attribute beyond ASCII":               {withHeaders(binaryRecord(usageJSON), replaceHeader("ce_id", "zürich-😀")), ""},
		"an id of a megabyte":                     {withHeaders(binaryRecord(usageJSON), replaceHeader("ce_id", strings.Repeat("x", 1<<20))), ""},

		"tombstone":                         {tombstone, MalformedEnvelope},
		"structured tombstone":              {structuredTombstone, MalformedEnvelope},
		"no CloudEvent":                     {plain, MalformedEnvelope},
		"no headers":                        {&Record{Key: []byte("k"), Value: []byte("hello")}, MalformedEnvelope},
		"batch":                             {withHeaders(structuredText("["+`{`+attributes+`}]`), replaceHeader("content-type", "application/cloudevents-batch+json")), MalformedEnvelope},
		"Avro":                              {withHeaders(binaryRecord(usageJSON), replaceHeader("content-type", "application/cloudevents+avro")), MalformedEnvelope},
		"no format":                         {withHeaders(binaryRecord(usageJSON), replaceHeader("content-type", "application/cloudevents")), MalformedEnvelope},
		"key not UTF-8":                     {brokenKey, MalformedEnvelope},
		"attribute not UTF-8":               {withHeaders(binaryRecord(usageJSON), replaceHeader("ce_source", "\xed\xa0\x80")), MalformedEnvelope},
		"unknown attribute not UTF-8":       {withHeaders(binaryRecord(usageJSON), addHeader("ce_other", "\xff")), MalformedEnvelope},
		"attribute with NUL":                {withHeaders(binaryRecord(usageJSON), replaceHeader("ce_id", "a\x00b")), MalformedEnvelope},
		"attribute with DEL":                {withHeaders(binaryRecord(usageJSON), replaceHeader("ce_id", "a\x7f")), MalformedEnvelope},
		"attribute with a line feed":        {withHeaders(binaryRecord(usageJSON), replaceHeader("ce_source", "/s\nid")), MalformedEnvelope},
		"attribute with a C1 control":       {withHeaders(binaryRecord(usageJSON), replaceHeader("ce_id", "a\u0085")), MalformedEnvelope},
		"attribute with a noncharacter":     {withHeaders(binaryRecord(usageJSON), replaceHeader("ce_id", "a\ufffe")), MalformedEnvelope},
		"structured attribute with NUL":     {structuredText(`{` + strings.Replace(attributes, `"i"`, `"a\u0000"`, 1) + `,"data":` + usageJSON + `}`), MalformedEnvelope},
		"content type with a control":       {withHeaders(binaryRecord(usageJSON), replaceHeader("content-type", "application/json\n")), MalformedEnvelope},
		"data not UTF-8":                    {binaryRecord(strings.Replace(usageJSON, "market", "m\xff", 1)), MalformedEnvelope},
		"data not UTF-8 and not JSON":       {binaryRecord("{\xff"), MalformedEnvelope},
		"structured data not UTF-8":         {structuredRecord(strings.Replace(usageJSON, "market", "m\xff", 1)), MalformedEnvelope},
		"base64 data not UTF-8":             {structuredText(`{` + attributes + `,"data_base64":"/w=="}`), MalformedEnvelope},
		"not base64":                        {structuredText(`{` + attributes + `,"data_base64":"%%"}`), MalformedEnvelope},
		"base64 that is no string":          {structuredText(`{` + attributes + `,"data_base64":5}`), MalformedEnvelope},
		"data twice":                        {structuredText(`{` + attributes + `,"data_base64":"e30=","data":` + usageJSON + `}`), MalformedEnvelope},
		"data twice, both right":            {structuredText(`{` + attributes + `,"data_base64":"` + base64.StdEncoding.EncodeToString([]byte(usageJSON)) + `","data":` + usageJSON + `}`), MalformedEnvelope},
		"structured with something behind":  {structuredText(string(structuredRecord(usageJSON).Value) + "x"), MalformedEnvelope},
		"another specversion":               {withHeaders(binaryRecord(usageJSON), replaceHeader("ce_specversion", "0.3")), MalformedEnvelope},
		"time without a zone":               {withHeaders(binaryRecord(usageJSON), replaceHeader("ce_time", "2026-07-31T11:30:00")), MalformedEnvelope},
		"id twice":                          {withHeaders(binaryRecord(usageJSON), addHeader("ce_id", "other")), MalformedEnvelope},
		"content type twice":                {withHeaders(binaryRecord(usageJSON), addHeader("content-type", "application/json")), MalformedEnvelope},
		"id that is a number":               {structuredText(`{` + attributes + `,"id":5,"data":` + usageJSON + `}`), MalformedEnvelope},
		"traceparent that is an object":     {structuredText(`{` + attributes + `,"traceparent":{},"data":` + usageJSON + `}`), MalformedEnvelope},
		"structured, not JSON":              {structuredText("hello"), MalformedEnvelope},
		"structured, empty":                 {structuredText(""), MalformedEnvelope},
		"structured, null":                  {structuredText("null"), MalformedEnvelope},
		"structured, array":                 {structuredText(`[{` + attributes + `}]`), MalformedEnvelope},
		"structured, cut off":               {structuredText(`{` + attributes), MalformedEnvelope},
		"structured, two events":            {structuredText(`{` + attributes + `}{` + attributes + `}`), MalformedEnvelope},
		"malformed before missing":          {withHeaders(withHeaders(binaryRecord(usageJSON), dropHeader("ce_id")), replaceHeader("ce_time", "x")), MalformedEnvelope},
		"structured, nested beyond reading": {structuredText(`{` + attributes + `,"data":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`), MalformedEnvelope},

		"structured, empty object":   {structuredText(`{}`), MissingAttribute},
		"structured, null attribute": {structuredText(`{` + attributes + `,"id":null,"data":` + usageJSON + `}`), MissingAttribute},
		"header with null":           {withHeaders(withHeaders(binaryRecord(usageJSON), dropHeader("ce_id")), func(h []Header) []Header { return append(h, Header{Key: "ce_id"}) }), MissingAttribute},
		"header in upper case":       {withHeaders(withHeaders(binaryRecord(usageJSON), dropHeader("ce_id")), addHeader("CE_ID", "x")), MissingAttribute},

		"structured without data": {structuredText(`{` + attributes + `}`), MalformedData},
		"empty value":             {binaryRecord(""), MalformedData},
		"blank value":             {binaryRecord(" \n"), MalformedData},
		"empty base64":            {structuredText(`{` + attributes + `,"data_base64":""}`), MalformedData},
		"structured null data":    {structuredText(`{` + attributes + `,"data":null}`), InvalidData},
		"JSON text as data":       {structuredText(`{` + attributes + `,"data":"{}"}`), InvalidData},
	}
	for _, name := range []string{"specversion", "id", "source", "type", "time"} {
		cases["without "+name] = struct {
			record *Record
			want   Reason
		}{withHeaders(binaryRecord(usageJSON), dropHeader("ce_"+name)), MissingAttribute}
		cases["with empty "+name] = struct {
			record *Record
			want   Reason
		}{withHeaders(binaryRecord(usageJSON), replaceHeader("ce_"+name, "")), MissingAttribute}
		cases["structured without "+name] = struct {
			record *Record
			want   Reason
		}{structuredText(`{` + strings.Replace(attributes, `"`+name+`"`, `"x"`, 1) + `,"data":` + usageJSON + `}`), MissingAttribute}
	}

	d, general := NewUsageDecoder(UsageLimits{}), newTestDecoder(t, "")
	for name, c := range cases {
		c.record.Topic = TopicUsage
		if err := d.Decode(c.record, testNow, new(Usage)); reasonOf(err) != c.want {
			t.Errorf("%s: %.300v, want %q", name, err, c.want)
		}
		if _, err := general.Decode(c.record); reasonOf(err) != c.want {
			t.Errorf("%s, general decoder: %.300v, want %q", name, err, c.want)
		}
		checkBothWays(t, d, c.record)
	}
}

func TestAllAttributesAreKeptInBothModes(t *testing.T) {
	t.Parallel()
	want := fullEnvelope()
	want.PartitionKey = "pk"
	binary := &Record{Value: want.Data, Headers: []Header{
		{"ce_id", []byte(want.ID)}, {"ce_specversion", []byte("1.0")}, {"ce_source", []byte(want.Source)}, {"ce_type", []byte(want.Type)},
		{"ce_time", []byte("2026-07-31T13:30:00.12+02:00")}, {"ce_subject", []byte(want.Subject)}, {"ce_dataschema", []byte(want.DataSchema)},
		{"ce_traceparent", []byte(want.TraceParent)}, {"ce_tracestate", []byte(want.TraceState)}, {"ce_causationid", []byte(want.CausationID)},
		{"ce_causationsource", []byte(want.CausationSource)}, {"ce_partitionkey", []byte("pk")}, {"content-type", []byte("application/json")},
	}}
	got, err := ParseEnvelope(binary)
	if err != nil {
		t.Fatal(err)
	}
	sameEnvelope(t, got, want)
	if got.Time.Location() != time.UTC {
		t.Errorf("time zone %v", got.Time.Location())
	}

	line, err := want.ToStructured([]byte("pk"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err = ParseEnvelope(structuredText(string(line))); err != nil {
		t.Fatal(err)
	}
	sameEnvelope(t, got, want)
}

func TestTheDetailOfARejectionIsShortAndPrintable(t *testing.T) {
	t.Parallel()
	d := NewUsageDecoder(UsageLimits{})
	long := strings.Repeat("\x01\u202e\xff", 100_000)
	for _, r := range []*Record{
		withHeaders(binaryRecord(usageJSON), replaceHeader("ce_id", long)),
		withHeaders(binaryRecord(usageJSON), replaceHeader("ce_type", strings.Repeat("x", 1<<20))),
		withHeaders(binaryRecord(usageJSON), replaceHeader("content-type", "application/cloudevents"+long)),
		binaryRecord(strings.Replace(usageJSON, `"acme"`, `"`+strings.Repeat(`\u202e`, 100_000)+`"`, 1)),
		binaryRecord(strings.Repeat(" ", 1000) + `{"` + strings.Repeat("x", 1<<20) + `":`),
	} {
		err := d.Decode(r, testNow, new(Usage))
		if err == nil || len(err.Error()) > 2000 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == '\u202e' || r == '\ufffd' }) {
			t.Errorf("%.300q", err)
		}
	}
}
