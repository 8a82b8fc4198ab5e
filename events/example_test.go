package events_test

import (
	"errors"
	"fmt"
	"time"

	"tenantflow/events"
)

func ExampleUsageDecoder_Decode() {
	decoder := events.NewUsageDecoder(events.UsageLimits{})
	record := &events.Record{
		Topic: events.TopicUsage, Partition: 0, Offset: 7, Key: []byte("acme"),
		Headers: []events.Header{
			{Key: "content-type", Value: []byte("application/json")},
			{Key: "ce_specversion", Value: []byte("1.0")},
			{Key: "ce_id", Value: []byte("evt-1")},
			{Key: "ce_source", Value: []byte("/data-bridge")},
			{Key: "ce_type", Value: []byte(events.TypeUsageRecorded)},
			{Key: "ce_time", Value: []byte("2026-07-31T11:30:00Z")},
		},
		Value: []byte(`{"company_id": "acme", "user_id": "ada", "subscription_tier": "pro", "service_name": "market-data",
			"api_endpoint": "/v1/quotes", "data_points_consumed": 120, "processing_time_ms": 12.345, "revenue_attributed": "0.00125"}`),
	}
	now := time.Date(2026, 7, 31, 12, 0, 0, 0, time.UTC)

	var usage events.Usage
	if err := decoder.Decode(record, now, &usage); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s used %d points in %s: %d millionths\n", usage.UserID, usage.DataPoints, usage.BillingPeriod, usage.Revenue)

	record.Value = []byte(`{"company_id": "acme"}`)
	var rejection *events.Rejection
	if err := decoder.Decode(record, now, &usage); errors.As(err, &rejection) {
		_, _, headers := events.NewDeadLetter(record, "tenantflow.usage", rejection, 1, now)
		added := headers[len(record.Headers)]
		fmt.Printf("%s: %s to %s\n", added.Key, added.Value, events.DeadLetterTopic(record.Topic))
	}
	// Output:
	// ada used 120 points in 2026-07: 1250 millionths
	// dlq-reason: invalid_data to usage.events.dlq
}
