package jobs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/sinks/postgres"
)

// Metrics tell what becomes of the jobs. Their label is name, because Prometheus has a label job of its own.
type Metrics struct {
	runs    *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	success *prometheus.GaugeVec
	open    *prometheus.GaugeVec
	missed  *prometheus.CounterVec
	skipped *prometheus.CounterVec
}

// NewMetrics registers the metrics of some jobs, if registry is not nil.
func NewMetrics(registry prometheus.Registerer, jobs ...string) *Metrics {
	label := []string{"name"}
	m := &Metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantflow_job_runs_total", Help: "Attempts of this process at slots of a job, by outcome: done, failed (it is tried again), postponed (its work can't be done yet), stopped (the process ended), lost (another process may have the slot).",
		}, []string{"name", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tenantflow_job_seconds", Help: "How long attempts of this process at slots of a job took.",
			Buckets: []float64{.1, 1, 10, 60, 300, 900, 3600, 4 * 3600, 24 * 3600},
		}, label),
		success: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tenantflow_job_last_success_timestamp_seconds", Help: "When the last slot of a job was done, whichever process did it. Until there is one: when this process started.",
		}, label),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tenantflow_job_open_seconds", Help: "For how long the oldest slot of a job that has not ended could have been done; 0: there is none.",
		}, label),
		missed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantflow_job_slots_missed_total", Help: "Slots of a job that this process found to have come while none planned, and that are not made up for.",
		}, label),
		skipped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantflow_job_slots_skipped_total", Help: "Slots of a job that this process left out because the one before was at work, or had not begun when the next one came.",
		}, label),
	}
	for _, job := range jobs {
		for _, o := range outcomes() {
			m.runs.WithLabelValues(job, string(o))
		}
		m.seconds.WithLabelValues(job)
		m.success.WithLabelValues(job).SetToCurrentTime()
		m.open.WithLabelValues(job)
		m.missed.WithLabelValues(job)
		m.skipped.WithLabelValues(job)
	}
	if registry != nil {
		registry.MustRegister(m.runs, m.seconds, m.success, m.open, m.missed, m.skipped)
	}
	return m
}

func (m *Metrics) planned(job string, missed, skipped int64) {
	m.missed.WithLabelValues(job).Add(float64(missed))
	m.skipped.WithLabelValues(job).Add(float64(skipped))
}

func (m *Metrics) ran(job string, o outcome, took time.Duration) {
	m.runs.WithLabelValues(job, string(o)).Inc()
	m.seconds.WithLabelValues(job).Observe(took.Seconds())
}

// show shows what the table says of a job.
func (m *Metrics) show(j *postgres.JobInfo) {
	if j.DoneAt != nil {
		m.success.WithLabelValues(j.Job).Set(float64(j.DoneAt.UnixMilli()) / 1000)
	}
	late := time.Duration(0)
	if j.OpenSince != nil {
		late = max(0, j.Now.Sub(*j.OpenSince))
	}
	m.open.WithLabelValues(j.Job).Set(late.Seconds())
}
