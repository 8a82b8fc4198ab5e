package consumers

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/sinks/postgres"
)

// TenantMetrics tell what becomes of company and subscription events.
type TenantMetrics struct {
	seconds  *prometheus.HistogramVec
	results  *prometheus.CounterVec
	repeated prometheus.Counter
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
	if registry != nil {
		registry.MustRegister(m.seconds, m.results, m.repeated)
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
