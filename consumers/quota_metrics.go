package consumers

import (
	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/events"
	"tenantflow/sinks/dragonfly"
)

type quotaMetrics struct {
	events     *prometheus.CounterVec
	thresholds *prometheus.CounterVec
	rewinds    *prometheus.CounterVec
	rebuilds   *prometheus.CounterVec
	remembered *prometheus.GaugeVec
	moved      prometheus.Counter
	skips      prometheus.Counter
	gone       prometheus.Counter
	filling    prometheus.Counter
	deferred   *prometheus.GaugeVec
	undecided  prometheus.Counter
	seconds    prometheus.Histogram
}

func newQuotaMetrics(reg prometheus.Registerer) *quotaMetrics {
	m := &quotaMetrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_quota_events_total",
			Help: "Usage events by what counting made of them: counted, duplicate (a producer's resend), known (counted before: a redelivery or a recount), tenant_mismatch, " +
				"late (recorded when its day's counter was gone), replayed (published by a replay or redrive, which never counts), before_rebuild (of a day whose counters were lost), undecodable (left to the usage consumer), voided (it takes counted usage back)."}, []string{"outcome"}),
		thresholds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_quota_threshold_events_total",
			Help: "Threshold events published, repetitions included."}, []string{"type"}),
		rewinds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_quota_rewinds_total",
			Help: "Times a partition went back to count again what the counters no longer hold."}, []string{"reason"}),
		rebuilds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_quota_rebuilds_total",
			Help: "Times the counters of the day were given up, to be counted again from the log."}, []string{"reason"}),
		remembered: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantflow_quota_resend_filter_records",
			Help: "Records that a partition's filter of resends remembers, 24 to 48 bytes each."}, []string{"partition"}),
		moved: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_quota_store_changed_total",
			Help: "Times the counter store was not in the state it was left in."}),
		skips: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_quota_skips_total",
			Help: "Times a partition skipped what was counted already."}),
		gone: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_quota_events_gone_total",
			Help: "Offsets to be counted again that are no longer in the log; where the number can't be known, 1 each time."}),
		filling: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_quota_resend_filter_fill_seconds_total",
			Help: "Time spent reading the identities before the first event to count, when partitions were taken over."}),
		deferred: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantflow_quota_deferred_events",
			Help: "Usage events that wait until it is known whose their user was: company events are not applied up to them yet."}, []string{"partition"}),
		undecided: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_quota_undecided_events_total",
			Help: "Usage events under another company than their user's that were counted because company events were not applied up to them in time."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tenantflow_quota_count_seconds",
			Help: "Time of the calls that count a batch, or a part of one that is judged apart, failed ones included.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16)}),
	}
	// From 0 on: the increase of a series that begins at its first event does not have it.
	for _, eventType := range []string{events.TypeQuotaThresholdReached, events.TypeQuotaExceeded} {
		m.thresholds.WithLabelValues(eventType)
	}
	if reg != nil {
		reg.MustRegister(m.events, m.thresholds, m.rewinds, m.rebuilds, m.remembered, m.moved, m.skips, m.gone, m.filling, m.deferred, m.undecided, m.seconds)
	}
	return m
}

// count notes what became of a batch.
func (m *quotaMetrics) count(b *quotaBatch, calls []dragonfly.Call, counted []dragonfly.Counted, refused int) {
	outcomes, voided := map[dragonfly.Outcome]int{}, 0
	for i := range counted {
		outcomes[counted[i].Outcome] += calls[i].Events
		if counted[i].Outcome == dragonfly.Added {
			voided += len(calls[i].Voids)
		} else {
			outcomes[counted[i].Outcome] += len(calls[i].Voids)
		}
	}
	for outcome, n := range map[string]int{
		"counted": outcomes[dragonfly.Added], "duplicate": b.resends, "known": outcomes[dragonfly.Known], "tenant_mismatch": refused,
		"late": b.late, "replayed": b.replayed, "before_rebuild": outcomes[dragonfly.Left], "undecodable": b.undecodable, "voided": voided,
	} {
		m.events.WithLabelValues(outcome).Add(float64(n))
	}
}
