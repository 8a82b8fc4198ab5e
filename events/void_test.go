package events

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// voided is a void as this service publishes it.
func voided() *UsageVoided {
	return &UsageVoided{
		CompanyID: "acme", UserID: "u-1", Tier: "pro", Service: "market-data", Endpoint: "/v1/quotes",
		Timestamp: time.Date(2026, 7, 31, 11, 30, 0, 123e6, time.UTC), DataPoints: 120, ProcessingTime: 12346, BillingPeriod: "2026-07", Revenue: 125,
		VoidsSource: "/data-bridge/eu-1", VoidsID: "0190a5c1-7c7e-7cc3-9fd1-1a2b3c4d5e6f",
		VoidsRecordedAt: time.Date(2026, 7, 31, 11, 30, 1, 0, time.UTC), Reason: "counted twice",
	}
}

func voidRecord(t *testing.T, v *UsageVoided, change func(*Envelope)) *Record {
	t.Helper()
	e, err := v.Event(&Envelope{ID: "request", Source: "/console", TraceParent: "00-1-2-01"}, time.Date(2026, 8, 2, 9, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(e)
	}
	value, headers := e.EncodeBinary()
	return &Record{Topic: TopicUsage, Key: []byte("acme"), Value: value, Headers: headers}
}

// The expected id was computed with Python's uuid.uuid5.
func TestVoidID_IsTheOneTheContractDefines(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 7, 31, 13, 30, 0, 123_456_789, time.FixedZone("", 2*3600))
	if got, want := VoidID("/data-bridge/eu-1", "evt-1", at), "378255ef-0a43-5662-908d-b8d6308e7a39"; got != want {
		t.Errorf("id %s, want %s", got, want)
	}
}

func TestVoid_RepeatsTheDataOfItsUsage(t *testing.T) {
	t.Parallel()
	d := NewUsageDecoder(UsageLimits{})
	var usage, void Usage
	if err := d.Decode(binaryRecord(usageJSON), testNow, &usage); err != nil {
		t.Fatal(err)
	}
	kept := usage // of a record that stays
	r := voidRecord(t, voided(), nil)
	// A void is judged by the record of its usage: its own may be as late as it likes.
	if err := d.Decode(r, testNow.AddDate(5, 0, 0), &void); err != nil {
		t.Fatal(err)
	}
	v := void.Voids
	if v == nil || void.Sign() != -1 || string(v.Source) != "/data-bridge/eu-1" || string(v.ID) != "0190a5c1-7c7e-7cc3-9fd1-1a2b3c4d5e6f" ||
		v.RecordedAt != time.Date(2026, 7, 31, 11, 30, 1, 0, time.UTC).UnixMilli() {
		t.Fatalf("takes back %+v, sign %d", v, void.Sign())
	}
	if string(void.Source) != VoidSource() || string(void.ID) != VoidID(string(v.Source), string(v.ID), time.UnixMilli(void.Timestamp)) {
		t.Errorf("identity %s %s", void.Source, void.ID)
	}
	void.Source, void.ID, void.Voids, void.Endpoint = kept.Source, kept.ID, nil, kept.Endpoint
	sameUsage(t, "void", &void, &kept)

	// What was a void before is usage again.
	void.Voids = v
	if err := d.Decode(binaryRecord(usageJSON), testNow, &void); err != nil || void.Voids != nil || void.Sign() != 1 {
		t.Errorf("usage behind a void: %v, takes back %v", err, void.Voids)
	}
}

func TestVoid_IsRefusedUnlessThisServiceMadeIt(t *testing.T) {
	t.Parallel()
	general, err := NewDecoder("")
	if err != nil {
		t.Fatal(err)
	}
	data := func(e *Envelope, name string, value any) {
		var all map[string]any
		if err := json.Unmarshal(e.Data, &all); err != nil {
			t.Fatal(err)
		}
		if all[name] = value; value == nil {
			delete(all, name)
		}
		if e.Data, err = json.Marshal(all); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		change func(*Envelope)
		want   Reason
	}{
		"as published":       {nil, ""},
		"of another source":  {func(e *Envelope) { e.Source = "/data-bridge/eu-1" }, MalformedEnvelope},
		"without data":       {func(e *Envelope) { e.Source, e.Data = "/x", []byte("{}") }, MalformedEnvelope},
		"another id":         {func(e *Envelope) { e.ID = "x" }, MalformedEnvelope},
		"another usage's id": {func(e *Envelope) { data(e, "voids_id", "other") }, MalformedEnvelope},
		"another timestamp":  {func(e *Envelope) { data(e, "timestamp", "2026-07-31T11:30:00.124Z") }, MalformedEnvelope},
		"a finer timestamp":  {func(e *Envelope) { data(e, "timestamp", "2026-07-31T13:30:00.1239+02:00") }, ""},
		"no usage":           {func(e *Envelope) { data(e, "voids_source", nil) }, InvalidData},
		"no reason":          {func(e *Envelope) { data(e, "reason", nil) }, InvalidData},
		"judged too late":    {func(e *Envelope) { data(e, "voids_recorded_at", "2028-08-31T00:00:00Z") }, TimestampTooOld},
		"judged too early":   {func(e *Envelope) { data(e, "voids_recorded_at", "2026-07-31T10:29:59Z") }, TimestampInFuture},
	} {
		r := voidRecord(t, voided(), c.change)
		var u Usage
		if err := NewUsageDecoder(UsageLimits{}).Decode(r, testNow, &u); reasonOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		want := c.want
		if strings.HasPrefix(name, "judged") {
			want = "" // the general decoder has no limits of usage
		}
		if _, err := general.Decode(r); reasonOf(err) != want {
			t.Errorf("%s: the general decoder says %v, want %q", name, err, want)
		}
	}
}

// Usage that is stored may have had other limits than there are today.
func TestVoid_OfStoredUsageHasNoLimits(t *testing.T) {
	t.Parallel()
	for _, late := range []time.Duration{-24 * time.Hour, 3 * 365 * 24 * time.Hour} {
		v := voided()
		v.VoidsRecordedAt = v.Timestamp.Add(late)
		var u Usage
		if err := NewUsageDecoder(UsageLimits{}).VoidsOfStored().Decode(voidRecord(t, v, nil), testNow, &u); err != nil || u.Voids == nil {
			t.Errorf("recorded %s after its timestamp: %v", late, err)
		}
	}
	var u Usage
	if err := NewUsageDecoder(UsageLimits{}).VoidsOfStored().Decode(binaryRecord(usageJSON), testNow.AddDate(3, 0, 0), &u); reasonOf(err) != TimestampTooOld {
		t.Errorf("usage itself: %v", err)
	}
}

func TestVoid_SaysWhetherItsUsageWasCounted(t *testing.T) {
	t.Parallel()
	for _, uncounted := range []bool{false, true} {
		v := voided()
		v.Uncounted = uncounted
		var u Usage
		if err := NewUsageDecoder(UsageLimits{}).Decode(voidRecord(t, v, nil), testNow, &u); err != nil || u.TakesNothingOff() != uncounted {
			t.Errorf("uncounted %t: reads as %t, %v", uncounted, u.TakesNothingOff(), err)
		}
	}
}

func TestVoid_WritesAmountsExactly(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 1, 999, 1000, 1_000_001, maxFixed} {
		v := voided()
		v.ProcessingTime, v.Revenue = n, n
		var u Usage
		if err := NewUsageDecoder(UsageLimits{}).Decode(voidRecord(t, v, nil), testNow, &u); err != nil || u.ProcessingTime != n || u.Revenue != n {
			t.Errorf("%d: %v, read back as %d and %d", n, err, u.ProcessingTime, u.Revenue)
		}
	}
}
