package events

import (
	"errors"
	"testing"
	"time"
)

var testNow = time.Date(2026, 7, 31, 12, 0, 0, 0, time.UTC)

const usageJSON = `{"company_id":"acme","user_id":"u-1","subscription_tier":"pro","service_name":"market-data",` +
	`"api_endpoint":"/v1/quotes","data_points_consumed":120,"processing_time_ms":12.3456,` +
	`"timestamp":"2026-07-31T13:30:00.123456+02:00","billing_period":"2026-07","revenue_attributed":"0.000125"}`

func binaryRecord(data string) *Record {
	return &Record{
		Topic: TopicUsage, Partition: 3, Offset: 42, Key: []byte("acme"), Value: []byte(data),
		Headers: []Header{
			{"ce_specversion", []byte("1.0")},
			{"ce_id", []byte("0190a5c1-7c7e-7cc3-9fd1-1a2b3c4d5e6f")},
			{"ce_source", []byte("/data-bridge/eu-1")},
			{"ce_type", []byte(TypeUsageRecorded)},
			{"ce_time", []byte("2026-07-31T11:30:00Z")},
			{"content-type", []byte("application/json")},
		},
	}
}

func reasonOf(err error) Reason {
	var rejection *Rejection
	if errors.As(err, &rejection) {
		return rejection.Reason
	}
	return ""
}

func TestDecodeTakesAllFieldsExactly(t *testing.T) {
	t.Parallel()
	var u Usage
	if err := NewUsageDecoder(UsageLimits{}).Decode(binaryRecord(usageJSON), testNow, &u); err != nil {
		t.Fatal(err)
	}
	want := "0190a5c1-7c7e-7cc3-9fd1-1a2b3c4d5e6f /data-bridge/eu-1 acme u-1 pro market-data /v1/quotes 2026-07"
	got := string(u.ID) + " " + string(u.Source) + " " + string(u.CompanyID) + " " + string(u.UserID) + " " + string(u.Tier) + " " +
		string(u.Service) + " " + string(u.Endpoint) + " " + string(u.BillingPeriod)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if at := time.Date(2026, 7, 31, 11, 30, 0, 123e6, time.UTC).UnixMilli(); u.Timestamp != at {
		t.Errorf("timestamp %d, want %d", u.Timestamp, at)
	}
	if u.DataPoints != 120 || u.ProcessingTime != 12346 || u.Revenue != 125 {
		t.Errorf("points %d, processing time %d, revenue %d", u.DataPoints, u.ProcessingTime, u.Revenue)
	}
}
