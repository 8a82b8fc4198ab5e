package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/tier"
	"tenantflow/internal/trace"
	"tenantflow/sinks/dragonfly"
)

// quotaEvent is the data of quota.threshold_reached.v1 and quota.exceeded.v1.
type quotaEvent struct {
	CompanyID    string `json:"company_id"`
	UserID       string `json:"user_id"`
	Date         string `json:"date"`
	Percentage   int    `json:"threshold_percentage"`
	CurrentUsage int64  `json:"current_usage"`
	DailyLimit   int64  `json:"daily_limit"`
	ResetTime    string `json:"reset_time"`
}

// publish makes the events of what is due, and marks it as published. A process that dies in between leaves it due, and the next
// owner, who reads the range again because the progress does not cover it, receives it with the answer of its call.
func (p *quotaPartition) publish(ctx context.Context, due []dragonfly.Due) error {
	if len(due) == 0 {
		return nil
	}
	company := map[string]string{}
	for i := range p.users {
		if known := p.known[i]; known != nil {
			company[p.users[i]] = known.CompanyID
		}
	}
	causes, err := p.causes(ctx, due)
	if err != nil {
		return err
	}
	results := make([]kafka.Result, 0, len(due))
	for _, d := range due {
		result, err := thresholdEvent(p.quota.cfg.Topic, d, company[d.User], causes[d.Offset])
		if err != nil {
			return err
		}
		results = append(results, result)
	}
	if err := p.Publish(ctx, results); err != nil {
		return err
	}
	p.step(QuotaPublished)
	if err := p.session.Clear(ctx, due); err != nil {
		return err
	}
	p.step(QuotaCleared)
	for _, r := range results {
		p.quota.metrics.thresholds.WithLabelValues(r.Event.Type).Inc()
	}
	return nil
}

// A cause is the usage event that has reached a threshold.
type cause struct {
	company string           // as it says, or its key, which is the usual one
	event   *events.Envelope // without its data; nil: it can't be read
}

// causes reads the events that have reached thresholds, by offset, as far as they are in the log.
func (p *quotaPartition) causes(ctx context.Context, due []dragonfly.Due) (map[int64]cause, error) {
	offsets := make([]int64, 0, len(due))
	for _, d := range due {
		offsets = append(offsets, d.Offset)
	}
	slices.Sort(offsets)
	causes := make(map[int64]cause, len(due))
	err := p.ReadOffsets(ctx, slices.Compact(offsets), func(r *events.Record) error {
		record := kafka.CopyRecord(r)
		c := cause{company: string(record.Key)}
		// It was understood when it was counted; if it is not any more, the log is another one.
		if envelope, err := events.ParseEnvelope(&record); err == nil {
			var data struct {
				CompanyID string `json:"company_id"`
			}
			if json.Unmarshal(envelope.Data, &data) == nil && data.CompanyID != "" {
				c.company = data.CompanyID
			}
			trace.Complete(envelope, &record)
			c.event, envelope.Data = envelope, nil // there may be thousands, and each may be large
		}
		causes[r.Offset] = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the events that reached thresholds in %s/%d: %w", p.Topic(), p.ID(), err)
	}
	return causes, nil
}

// thresholdEvent makes the event of one threshold.
func thresholdEvent(topic string, d dragonfly.Due, company string, cause cause) (kafka.Result, error) {
	date := d.Day.Format(time.DateOnly)
	event := &events.Envelope{
		ID:              events.QuotaEventID(d.User, date, d.Percent, d.Limit),
		Source:          events.SourceOf("quota"),
		Type:            events.TypeQuotaThresholdReached,
		Time:            time.Now().UTC(),
		DataContentType: "application/json",
	}
	if d.Percent == tier.Exceeded { // any other threshold, also one above, is a threshold that was reached
		event.Type = events.TypeQuotaExceeded
	}
	if e := cause.event; e != nil {
		event.Time = e.Time.UTC()
		event.CausationID, event.CausationSource = e.ID, e.Source
		event.TraceParent, event.TraceState = e.TraceParent, e.TraceState
	}
	if company == "" {
		company = cause.company
	}
	data, err := json.Marshal(quotaEvent{
		CompanyID: company, UserID: d.User, Date: date, Percentage: d.Percent, CurrentUsage: d.Calls, DailyLimit: d.Limit,
		ResetTime: d.Day.AddDate(0, 0, 1).Format(time.RFC3339),
	})
	if err != nil {
		return kafka.Result{}, errors.Join(errors.New("write a threshold event"), err)
	}
	event.Data = data
	return kafka.Result{Topic: topic, Key: company, Event: event}, nil
}
