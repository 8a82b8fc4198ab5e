package business

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/sinks/postgres"
)

// Service is what reports are said to be of.
const Service = "database-service"

// A Reporter makes the report that is due, once for each slot.
type Reporter struct {
	Meter *Meter
	Store *postgres.Store

	// Publish returns when the brokers have an event of the topic business.metrics.
	Publish func(ctx context.Context, key string, event *events.Envelope) error

	Now func() time.Time // nil: the clock of Postgres
}

// A Summary is what is kept of a run.
type Summary struct {
	ReportedAt time.Time       `json:"reported_at"`
	EventID    string          `json:"event_id"`
	Health     json.RawMessage `json:"health_score"`
}

// ReportMetrics is the job: it computes the metrics, stores them for the slot, publishes them and notes that. A slot that has a report already
// is published as it is stored, under the same id; so after a kill at any line a reader sees one report.
func (r *Reporter) ReportMetrics(ctx context.Context, slot time.Time) (any, error) {
	stored, err := r.Store.BusinessReport(ctx, slot)
	if err != nil {
		return nil, err
	}
	if stored == nil {
		if stored, err = r.make(ctx, slot); err != nil {
			return nil, err
		}
	}
	// Also those of earlier slots that were stored and not published. The own one may be older than what is looked for, where a person asked for it.
	waiting, err := r.Store.UnpublishedBusinessReports(ctx)
	if err != nil {
		return nil, err
	}
	if stored.PublishedAt == nil && !slices.ContainsFunc(waiting, func(w postgres.BusinessReport) bool { return w.Slot.Equal(stored.Slot) }) {
		waiting = append(waiting, *stored)
	}
	for i := range waiting {
		if err := r.publish(ctx, &waiting[i]); err != nil {
			return nil, err
		}
	}
	event, err := eventOf(stored)
	if err != nil {
		return nil, err
	}
	var score struct {
		Health struct {
			Score json.RawMessage `json:"score"`
		} `json:"health"`
	}
	if err := json.Unmarshal(stored.Report, &score); err != nil {
		return nil, fmt.Errorf("read the report of business metrics of %s: %w", slot.UTC().Format(time.RFC3339), err)
	}
	return Summary{ReportedAt: stored.ReportedAt.UTC(), EventID: event.ID, Health: score.Health.Score}, nil
}

// publish publishes a stored report, and notes that.
func (r *Reporter) publish(ctx context.Context, stored *postgres.BusinessReport) error {
	event, err := eventOf(stored)
	if err != nil {
		return err
	}
	if err := r.Publish(ctx, events.JobBusinessMetrics, event); err != nil {
		return fmt.Errorf("publish the business metrics of %s: %w", stored.Slot.UTC().Format(time.RFC3339), err)
	}
	return r.Store.MarkBusinessReport(ctx, stored.Slot)
}

// make computes and stores the report of a slot. Another process may be faster: then its report counts.
func (r *Reporter) make(ctx context.Context, slot time.Time) (*postgres.BusinessReport, error) {
	now, err := r.Store.Now(ctx) // the clock that slots are planned by
	if r.Now != nil {
		now = r.Now()
	}
	if err != nil {
		return nil, err
	}
	report, err := r.Meter.Report(ctx, now)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(report)
	if err != nil {
		return nil, fmt.Errorf("write the report of business metrics: %w", err)
	}
	stored, err := r.Store.PutBusinessReport(ctx, slot, report.ReportedAt, text)
	if err == nil && stored == nil {
		err = fmt.Errorf("the report of business metrics of %s was removed as it was stored", slot.UTC().Format(time.RFC3339))
	}
	return stored, err
}

// eventOf makes the event of a stored report. All of it follows from what is stored.
func eventOf(stored *postgres.BusinessReport) (*events.Envelope, error) {
	data, err := json.Marshal(struct {
		Service    string          `json:"service"`
		Metrics    json.RawMessage `json:"metrics"`
		ReportedAt time.Time       `json:"reported_at"`
	}{Service, stored.Report, stored.ReportedAt.UTC()})
	if err != nil {
		return nil, fmt.Errorf("write the event of the business metrics: %w", err)
	}
	cause := &events.Envelope{Source: events.ScheduleSource(), ID: events.SlotID(events.JobBusinessMetrics, stored.Slot)}
	return events.NewResult(events.JobConsumer, cause, events.TypeBusinessMetricsReported, 0, stored.ReportedAt, data), nil
}

// Last returns the newest report, whichever process made it; nil: there is none.
func Last(ctx context.Context, store *postgres.Store) (*Report, error) {
	stored, err := store.LastBusinessReport(ctx)
	if err != nil || stored == nil {
		return nil, err
	}
	report := &Report{}
	if err := json.Unmarshal(stored.Report, report); err != nil {
		return nil, fmt.Errorf("read the report of business metrics of %s: %w", stored.Slot.UTC().Format(time.RFC3339), err)
	}
	return report, nil
}
