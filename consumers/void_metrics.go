package consumers

import (
	"encoding/json"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/events"
	"tenantflow/sinks/postgres"
)

// VoidMetrics tell what becomes of requests to take usage back.
type VoidMetrics struct {
	waiting prometheus.Gauge
	oldest  prometheus.Gauge
	codes   *prometheus.CounterVec
}

// NewVoidMetrics registers the metrics, if registry is not nil.
func NewVoidMetrics(registry prometheus.Registerer) *VoidMetrics {
	m := &VoidMetrics{
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tenantflow_void_requests_waiting", Help: "Requests to take usage back whose usage is not looked up yet.",
		}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tenantflow_void_request_age_seconds", Help: "How long the oldest of them has waited; 0: none waits.",
		}),
		codes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantflow_void_requests_decided_total",
			Help: "Requests to take usage back that this process has looked up and decided, by code: voided, or that of the refusal.",
		}, []string{"code"}),
	}
	if registry != nil {
		registry.MustRegister(m.waiting, m.oldest, m.codes)
	}
	return m
}

func (m *VoidMetrics) backlog(b postgres.VoidBacklog) {
	m.waiting.Set(float64(b.Waiting))
	m.oldest.Set(b.Oldest.Seconds())
}

func (m *VoidMetrics) decided(one *postgres.Applied) {
	code := "voided"
	for _, r := range one.Results {
		if r.Event != nil && r.Event.Type == events.TypeCompanyRejected {
			var said struct {
				Code string `json:"code"`
			}
			if json.Unmarshal(r.Event.Data, &said) == nil {
				code = said.Code
			}
		}
	}
	m.codes.WithLabelValues(code).Inc()
}
