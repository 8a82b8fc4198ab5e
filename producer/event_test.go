package producer

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/events"
	"tenantflow/internal/fetch"
)

func valid() Event {
	return Event{ID: "1", Time: time.Now(), CompanyID: "acme", UserID: "u-1", Tier: "pro", Service: "market-data", Endpoint: "/v1/ticks"}
}

func TestEvent_EveryFieldIsNamed(t *testing.T) {
	t.Parallel()
	far := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	for field, spoil := range map[string]func(*Event){
		"id":                 func(e *Event) { e.ID = "a\nb" },
		"traceparent":        func(e *Event) { e.TraceParent = "\xff" },
		"tracestate":         func(e *Event) { e.TraceState = "\u0085" },
		"time":               func(e *Event) { e.Time = far },
		"company_id":         func(e *Event) { e.CompanyID = "" },
		"user_id":            func(e *Event) { e.UserID = strings.Repeat("u", 51) },
		"subscription_tier":  func(e *Event) { e.Tier = "Pro" },
		"service_name":       func(e *Event) { e.Service = "a\xffb" },
		"api_endpoint":       func(e *Event) { e.Endpoint = "" },
		"processing_time_ms": func(e *Event) { e.ProcessingTime = -1 },
		"timestamp":          func(e *Event) { e.Timestamp = far },
		"billing_period":     func(e *Event) { e.BillingPeriod = "2026-13" },
		"revenue_attributed": func(e *Event) { e.Revenue = "-1" },
		"reservation_id":     func(e *Event) { e.ReservationID = "a b" },
	} {
		e := valid()
		spoil(&e)
		var wrong *FieldError
		if err := e.check(); !errors.As(err, &wrong) || wrong.Field != field || wrong.Want == "" {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if e := valid(); e.check() != nil {
		t.Error(e.check())
	}
}

// The checks of fields and the service's decoder agree on every event, but for the two things in which check says that it is stricter.
func TestEvent_ChecksAgreeWithTheService(t *testing.T) {
	t.Parallel()
	judge := events.NewUsageDecoder(events.UsageLimits{FutureTolerance: 1 << 62, MaxAge: 1 << 62})
	id := rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9_-]{1,51}`), rapid.String())
	text := rapid.OneOf(rapid.StringN(1, 20, -1), rapid.StringMatching(`[ -~]{1,9}`))
	rapid.Check(t, func(t *rapid.T) {
		e := Event{
			ID: rapid.OneOf(rapid.StringMatching(`[!-~]{1,9}`), text).Draw(t, "id"), Time: time.Now(),
			CompanyID: id.Draw(t, "company"), UserID: id.Draw(t, "user"), Tier: rapid.OneOf(rapid.StringMatching(`[a-zA-Z0-9_-]{0,21}`), rapid.Just("pro")).Draw(t, "tier"),
			Service: text.Draw(t, "service"), Endpoint: text.Draw(t, "endpoint"),
			DataPoints: rapid.Uint32().Draw(t, "points"), ProcessingTime: time.Duration(rapid.Int64Min(0).Draw(t, "took")),
			BillingPeriod: rapid.StringMatching(`|[0-9]{4}-[0-9]{2}|.{7}`).Draw(t, "period"),
			Revenue:       rapid.StringMatching(`|[0-9]{0,13}(\.[0-9]{0,7}0{0,3})?|-1|1e3|\+1`).Draw(t, "revenue"),
		}
		value, headers, err := e.encode("/test")
		if err != nil {
			t.Fatal(err)
		}
		var u events.Usage
		judged := judge.Decode(&events.Record{Key: []byte("k"), Value: value, Headers: headers, Time: time.Now()}, time.Now(), &u)
		if checked := e.check(); (checked == nil) != (judged == nil) {
			t.Fatalf("the check says %v, the service %v, of %s", checked, judged, value)
		}
		if judged == nil {
			micros := int64(e.ProcessingTime / time.Microsecond)
			if e.ProcessingTime%time.Microsecond >= 500 {
				micros++
			}
			if u.ProcessingTime != micros || string(u.Service) != e.Service || string(u.Endpoint) != e.Endpoint {
				t.Fatalf("got %+v of %+v", u, e)
			}
		}
	})
}

func TestEvent_SizeIsWhatTheServiceKeeps(t *testing.T) {
	t.Parallel()
	if maxEventBytes != fetch.LargestRecord {
		t.Errorf("the largest event has %d bytes, the service keeps %d", maxEventBytes, fetch.LargestRecord)
	}
	p, err := New(Config{Brokers: []string{"127.0.0.1:1"}, Source: "/test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close(t.Context()) }()
	e := valid()
	e.Service = strings.Repeat("x", maxEventBytes)
	if _, err := p.Enqueue(t.Context(), e); err == nil || !strings.Contains(err.Error(), "8388608") {
		t.Errorf("got %v, want an error that names the limit", err)
	}
	e = valid()
	e.Time = time.Now().Add(2 * time.Hour)
	var refusal *events.Rejection
	if _, err := p.Enqueue(t.Context(), e); !errors.As(err, &refusal) || refusal.Reason != events.TimestampInFuture {
		t.Errorf("got %v, want timestamp_in_future", err)
	}
	if s := p.Stats(); s.Refused != 2 || s.Enqueued != 0 {
		t.Errorf("stats %+v, want 2 refused", s)
	}
}
