package consumers

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// TenantMetrics tell what becomes of company and subscription events.
type TenantMetrics struct {
	seconds  *prometheus.HistogramVec
	results  *prometheus.CounterVec
	repeated prometheus.Counter
	inbox    *prometheus.GaugeVec
	oldest   prometheus.Gauge
	blocked  prometheus.Gauge
	since    *prometheus.GaugeVec
	limits   *prometheus.GaugeVec
}

// NewTenantMetrics registers the metrics, if registry is not nil. Several consumers of a process share them.
func NewTenantMetrics(registry prometheus.Registerer) *TenantMetrics {
	m := &TenantMetrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tenantflow_tenant_event_seconds", Help: "Time to apply a company or subscription event in Postgres.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"type"}),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantflow_tenant_results_total", Help: "Results published of company and subscription events.",
		}, []string{"type"}),
		repeated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tenantflow_tenant_events_repeated_total", Help: "Company and subscription events that came again after all was done for them.",
		}),
	}
	m.inbox = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "tenantflow_tenant_inbox", Help: "Events that are not at their end, by what they lack: their company (waiting), the publication of their results (unpublished), or a repair (faulty).",
	}, []string{"state"})
	m.oldest = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tenantflow_tenant_unpublished_age_seconds", Help: "How long ago the oldest event was done whose results are not published.",
	})
	m.blocked = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tenantflow_tenant_blocked_companies", Help: "Companies that can't go on: their events are set aside.",
	})
	m.since = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "tenantflow_tenant_blocked_since_seconds", Help: "Since when a company can't go on, as Unix time, by reason: of each the one that has stood still for longest.",
	}, []string{"reason"})
	m.limits = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "tenantflow_tenant_limit_overrides", Help: "Open companies for which a limit of their own holds in place of their tier's, by limit.",
	}, []string{"limit"})
	if registry != nil {
		registry.MustRegister(m.seconds, m.results, m.repeated, m.inbox, m.oldest, m.blocked, m.since, m.limits)
	}
	return m
}

func (m *TenantMetrics) applied(eventType string, took time.Duration) {
	m.seconds.WithLabelValues(eventType).Observe(took.Seconds())
}

func (m *TenantMetrics) published(done []postgres.Applied) {
	for _, one := range done {
		for _, r := range one.Results {
			if r.Event != nil {
				m.results.WithLabelValues(r.Event.Type).Inc()
			}
		}
	}
}

func (m *TenantMetrics) backlog(b postgres.Backlog, blocked []postgres.Block) {
	m.inbox.WithLabelValues("waiting").Set(float64(b.Waiting))
	m.inbox.WithLabelValues("unpublished").Set(float64(b.Unpublished))
	m.inbox.WithLabelValues("faulty").Set(float64(b.Faulty))
	m.oldest.Set(b.Oldest.Seconds())
	m.blocked.Set(float64(b.Blocked))
	m.since.Reset()
	for reason, at := range longest(blocked) {
		m.since.WithLabelValues(reason).Set(float64(at.Unix()))
	}
}

func (m *TenantMetrics) overridden(all []postgres.OverriddenLimit) {
	for _, name := range tier.LimitNames() {
		m.limits.WithLabelValues(name).Set(0)
	}
	for _, one := range all {
		m.limits.WithLabelValues(one.LimitName).Set(float64(one.Companies))
	}
}

// longest is since when the company has stood still that has done so for longest, by reason.
func longest(blocked []postgres.Block) map[string]time.Time {
	since := map[string]time.Time{}
	for _, one := range blocked {
		if at, seen := since[one.Reason]; !seen || one.Since.Before(at) {
			since[one.Reason] = one.Since
		}
	}
	return since
}
