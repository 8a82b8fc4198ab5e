package certs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Collector gives the metrics of the certificates of several uses. A scrape reads the files, so that a broken one shows also
// where nothing connects.
type Collector struct {
	sources []*Source
	expires *prometheus.Desc
	broken  *prometheus.Desc
}

// NewCollector makes a Collector.
func NewCollector(sources []*Source) *Collector {
	return &Collector{
		sources: sources,
		expires: prometheus.NewDesc("tenantflow_certificate_expires_timestamp_seconds", "When the certificate in force expires, and the last one of the trusted authorities.", []string{"of", "file"}, nil),
		broken:  prometheus.NewDesc("tenantflow_certificate_files_broken", "1 while the files of certificates can't be used, so that the former ones stay in force.", []string{"of"}, nil),
	}
}

// Describe sends the descriptions of both metrics.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	to <- c.expires
	to <- c.broken
}

// Collect reads the files and sends the metrics.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	for _, s := range c.sources {
		now, _ := s.current() // an error is in broken
		s.mu.Lock()
		broken := 0.0
		if s.broken != nil {
			broken = 1
		}
		s.mu.Unlock()
		to <- prometheus.MustNewConstMetric(c.broken, prometheus.GaugeValue, broken, s.peer.Name)
		if now == nil {
			continue
		}
		for file, end := range map[string]time.Time{"ca": now.rootsEnd, "certificate": now.pairEnd} {
			if !end.IsZero() {
				to <- prometheus.MustNewConstMetric(c.expires, prometheus.GaugeValue, float64(end.Unix()), s.peer.Name, file)
			}
		}
	}
}
