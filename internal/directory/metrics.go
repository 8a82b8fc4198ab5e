package directory

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Where a look-up was answered.
const (
	byProcess   = "process"
	byDragonfly = "dragonfly"
	byPostgres  = "postgres"
	byNone      = "none" // the look-up ended with an error
)

// What else may fail.
const (
	byFeed = "feed"
)

// metrics are the directory's counters. Every name begins with tenantflow_directory_.
type metrics struct {
	process     prometheus.Counter // of lookups; looked up once, as it is the hot one
	lookups     *prometheus.CounterVec
	loads       *prometheus.CounterVec
	loadSeconds *prometheus.HistogramVec
	errors      *prometheus.CounterVec
	reloads     prometheus.Counter
	changes     prometheus.Counter

	registerer prometheus.Registerer // nil: not registered
	all        []prometheus.Collector
	once       sync.Once // Unregister goes by name: a second time it would hit another directory's
}

func newMetrics(reg prometheus.Registerer, d *Directory) *metrics {
	m := &metrics{
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_directory_lookups_total",
			Help: "Users and companies asked for, by where the answer came from."}, []string{"answered"}),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_directory_loads_total",
			Help: "Requests to a store, each for one or many users or for a company."}, []string{"store"}),
		loadSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tenantflow_directory_load_seconds",
			Help:    "Time of one request to a store, failed ones included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)}, []string{"store"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_directory_errors_total",
			Help: "Requests that failed. Those to Dragonfly cost a query of Postgres, nothing else."}, []string{"source"}),
		reloads: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_directory_reloads_total",
			Help: "Users and companies loaded again because they changed while they were loaded."}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantflow_directory_changes_total",
			Help: "Users and companies that the change feed has told to have changed."}),
	}
	m.process = m.lookups.WithLabelValues(byProcess)
	for _, answered := range []string{byDragonfly, byPostgres, byNone} {
		m.lookups.WithLabelValues(answered)
	}
	for _, store := range []string{byDragonfly, byPostgres} {
		m.loads.WithLabelValues(store)
	}
	for _, source := range []string{byDragonfly, byPostgres, byFeed} {
		m.errors.WithLabelValues(source)
	}
	m.all = []prometheus.Collector{m.lookups, m.loads, m.loadSeconds, m.errors, m.reloads, m.changes,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tenantflow_directory_entries",
			Help: "Users held in the process' own memory."}, func() float64 { return float64(d.users.len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tenantflow_directory_feed_age_seconds",
			Help: "Time since the change feed was last read. Above a few seconds: changes are not seen."},
			func() float64 { return d.FeedAge().Seconds() })}
	if reg != nil {
		m.registerer = reg
		reg.MustRegister(m.all...)
	}
	return m
}

// unregister makes room for another directory's. It may be called more than once.
func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	m.once.Do(func() {
		for _, c := range m.all {
			m.registerer.Unregister(c)
		}
	})
}
