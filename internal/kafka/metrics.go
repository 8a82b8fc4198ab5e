package kafka

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the counters of one consumer group. Every name begins with tenantflow_, every time is in seconds.
type Metrics struct {
	rows        *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	deadLetters *prometheus.CounterVec
	outOfRange  *prometheus.CounterVec
	stopped     *prometheus.GaugeVec
	assigned    prometheus.Gauge
	lag         *prometheus.GaugeVec
	rebalances  prometheus.Counter
}

// NewMetrics registers the counters of the consumer name (usage, quota, ...).
func NewMetrics(reg prometheus.Registerer, name string) *Metrics {
	consumer := prometheus.Labels{"consumer": name}
	m := &Metrics{
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_batch_rows_total",
			Help: "Rows in written batches, before duplicates are taken out.", ConstLabels: consumer}, []string{"topic"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tenantflow_batch_write_seconds",
			Help: "Time to bring all effects of a batch into the stores.", ConstLabels: consumer,
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 16)}, []string{"topic"}),
		deadLetters: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_dead_letters_total",
			Help: "Records that went to the dead letters.", ConstLabels: consumer}, []string{"topic", "reason"}),
		outOfRange: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_offset_out_of_range_total",
			Help: "Times the log did not hold the offset to read next.", ConstLabels: consumer}, []string{"topic"}),
		stopped: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantflow_partition_stopped",
			Help: "1 for a partition that is stopped until an operator acts.", ConstLabels: consumer}, []string{"topic", "partition", "kind"}),
		assigned: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tenantflow_partitions_assigned",
			Help: "Partitions this member owns.", ConstLabels: consumer}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantflow_partition_lag",
			Help: "Records of the log that have not had their effects yet.", ConstLabels: consumer}, []string{"topic", "partition"}),
		rebalances: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_rebalances_total",
			Help: "Generations of the group this member has joined.", ConstLabels: consumer}),
	}
	if reg != nil {
		reg.MustRegister(m.rows, m.duration, m.deadLetters, m.outOfRange, m.stopped, m.assigned, m.lag, m.rebalances)
	}
	return m
}

func (m *Metrics) batch(topic string, rows int, took time.Duration) {
	m.rows.WithLabelValues(topic).Add(float64(rows))
	m.duration.WithLabelValues(topic).Observe(took.Seconds())
}
