package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/events"
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

// publish makes the events of what is due, and takes it off the list. Whoever dies in between leaves it on the list, and
// the range is counted again by who comes next.
func (p *quotaPartition) publish(ctx context.Context, due []dragonfly.Due) error {
	if len(due) == 0 {
		return nil
	}
	// Each call for a user and day answers all that is due for them, and a batch may have many.
	seen := make(map[dragonfly.Due]bool, len(due))
	due = slices.DeleteFunc(due, func(d dragonfly.Due) bool {
		again := seen[d]
		seen[d] = true
		return again
	})
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
	results := make([]Result, 0, len(due))
	for _, d := range due {
		result, err := thresholdEvent(p.quota.cfg.Topic, d, company[d.User], causes[d.Partition][d.Offset])
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

// causes reads the events that have reached thresholds, by partition and offset, as far as they are in the log.
func (p *quotaPartition) causes(ctx context.Context, due []dragonfly.Due) (map[int]map[int64]cause, error) {
	offsets := map[int][]int64{}
	for _, d := range due {
		offsets[d.Partition] = append(offsets[d.Partition], d.Offset)
	}
	causes := make(map[int]map[int64]cause, len(offsets))
	for partition, wanted := range offsets {
		found := make(map[int64]cause, len(wanted))
		err := readOffsets(ctx, p.group.client, p.Topic(), partition, wanted, func(r *events.Record) error {
			record := CopyRecord(r)
			c := cause{company: string(record.Key)}
			// It was understood when it was counted; if it is not any more, the log is another one.
			if envelope, err := events.ParseEnvelope(&record); err == nil {
				var data struct {
					CompanyID string `json:"company_id"`
				}
				if json.Unmarshal(envelope.Data, &data) == nil && data.CompanyID != "" {
					c.company = data.CompanyID
				}
				c.event, envelope.Data = envelope, nil // there may be thousands, and each may be large
			}
			found[r.Offset] = c
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read the events that reached thresholds in %s/%d: %w", p.Topic(), partition, err)
		}
		causes[partition] = found
	}
	return causes, nil
}

// thresholdEvent makes the event of one threshold.
func thresholdEvent(topic string, d dragonfly.Due, company string, cause cause) (Result, error) {
	date := d.Day.Format(time.DateOnly)
	event := &events.Envelope{
		ID:              events.QuotaEventID(d.User, date, d.Percent, d.Limit),
		Source:          events.SourceOf("quota"),
		Type:            events.TypeQuotaThresholdReached,
		Time:            time.Now().UTC(),
		DataContentType: "application/json",
	}
	if d.Percent >= 100 {
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
		return Result{}, errors.Join(errors.New("write a threshold event"), err)
	}
	event.Data = data
	return Result{Topic: topic, Key: company, Event: event}, nil
}

type quotaMetrics struct {
	events     *prometheus.CounterVec
	thresholds *prometheus.CounterVec
	rewinds    *prometheus.CounterVec
	rebuilds   *prometheus.CounterVec
	moved      prometheus.Counter
	skips      prometheus.Counter
	gone       prometheus.Counter
}

func newQuotaMetrics(reg prometheus.Registerer) *quotaMetrics {
	m := &quotaMetrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_quota_events_total",
			Help: "Usage events by what counting made of them: counted, duplicate, tenant_mismatch, late (its day's counter is gone), before_rebuild (of a day whose counters were lost), undecodable (left to the usage consumer)."}, []string{"outcome"}),
		thresholds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_quota_threshold_events_total",
			Help: "Threshold events published, repetitions included."}, []string{"type"}),
		rewinds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_quota_rewinds_total",
			Help: "Times a partition went back to count again what the counters no longer hold."}, []string{"reason"}),
		rebuilds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_quota_rebuilds_total",
			Help: "Times the counters of the day were given up, to be counted anew from the log."}, []string{"reason"}),
		moved: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_quota_store_changed_total",
			Help: "Times the counter store was not in the state it was left in."}),
		skips: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_quota_skips_total",
			Help: "Times a partition skipped what was counted already."}),
		gone: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_quota_events_gone_total",
			Help: "Offsets to be counted again that are no longer in the log."}),
	}
	if reg != nil {
		reg.MustRegister(m.events, m.thresholds, m.rewinds, m.rebuilds, m.moved, m.skips, m.gone)
	}
	return m
}

// count notes what became of a batch.
func (m *quotaMetrics) count(b *quotaBatch, counted []dragonfly.Counted, refused int) {
	newly := 0
	for i := range counted {
		newly += counted[i].New
	}
	for outcome, n := range map[string]int{
		"counted": newly, "duplicate": len(b.entries) - newly - refused, "tenant_mismatch": refused,
		"late": b.late, "before_rebuild": b.before, "undecodable": b.undecodable,
	} {
		m.events.WithLabelValues(outcome).Add(float64(max(0, n)))
	}
}
