package kafka

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the counters of one consumer group. Every name begins with tenantflow_, every time is in seconds.
type Metrics struct {
	rows        *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	delay       *prometheus.HistogramVec
	newest      *prometheus.GaugeVec
	deadLetters *prometheus.CounterVec
	outOfRange  *prometheus.CounterVec
	stopped     *prometheus.GaugeVec
	assigned    prometheus.Gauge
	lag         *prometheus.GaugeVec
	lagSeconds  *lagSeconds
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
		delay: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tenantflow_effect_delay_seconds",
			Help: "Time from when the broker appended the oldest record of a batch until the batch had all its effects.", ConstLabels: consumer,
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 18)}, []string{"topic"}),
		newest: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantflow_newest_effect_timestamp_seconds",
			Help: "When the broker appended the newest record that this process has brought all its effects, as Unix time.", ConstLabels: consumer}, []string{"topic"}),
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
		lagSeconds: newLagSeconds(consumer),
		rebalances: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_rebalances_total",
			Help: "Generations of the group this member has joined.", ConstLabels: consumer}),
	}
	if reg != nil {
		reg.MustRegister(m.rows, m.duration, m.delay, m.newest, m.deadLetters, m.outOfRange, m.stopped, m.assigned, m.lag, m.lagSeconds, m.rebalances)
	}
	return m
}

// batch notes a batch that has had its effects.
func (m *Metrics) batch(topic string, b *formed, took time.Duration) {
	m.rows.WithLabelValues(topic).Add(float64(b.batch.Rows()))
	m.duration.WithLabelValues(topic).Observe(took.Seconds())
	if b.taken {
		m.delay.WithLabelValues(topic).Observe(max(0, time.Since(b.first).Seconds()))
	}
}

// lagSeconds is a metric that is computed when it is asked for, because it grows while nothing happens.
type lagSeconds struct {
	desc *prometheus.Desc
	of   atomic.Pointer[state] // nil: nothing is consumed yet
}

func newLagSeconds(consumer prometheus.Labels) *lagSeconds {
	return &lagSeconds{desc: prometheus.NewDesc("tenantflow_partition_lag_seconds",
		"Age of the oldest record that has not had its effects yet, by the broker's time; 0 if there is none.", []string{"topic", "partition"}, consumer)}
}

// Describe implements prometheus.Collector.
func (l *lagSeconds) Describe(c chan<- *prometheus.Desc) { c <- l.desc }

// Collect implements prometheus.Collector.
func (l *lagSeconds) Collect(c chan<- prometheus.Metric) {
	s := l.of.Load()
	if s == nil {
		return
	}
	for p, age := range s.ages(time.Now()) {
		c <- prometheus.MustNewConstMetric(l.desc, prometheus.GaugeValue, age.Seconds(), p.topic, strconv.Itoa(p.id))
	}
}
