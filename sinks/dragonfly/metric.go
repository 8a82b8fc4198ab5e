package dragonfly

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collectTimeout bounds what a scrape waits for the server.
const collectTimeout = time.Second

// Collector asks the server about its memory and whether counters are being rebuilt, whenever metrics are gathered. Values
// that it does not answer are left out.
func (s *Store) Collector() prometheus.Collector {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	return &collector{s,
		desc("tenantflow_quota_store_memory_bytes", "Memory the server of the counters uses."),
		desc("tenantflow_quota_store_memory_limit_bytes", "Memory the server of the counters may use; 0: no limit is set."),
		desc("tenantflow_quota_rebuilding", "1 while counters of today may be short, because their events are counted again."),
	}
}

type collector struct {
	store                    *Store
	memory, most, rebuilding *prometheus.Desc
}

func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.memory
	out <- c.most
	out <- c.rebuilding
}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64) { out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	if m, err := c.store.Memory(ctx); err == nil {
		gauge(c.memory, float64(m.Used))
		gauge(c.most, float64(m.Max))
	}
	if busy, err := c.store.Rebuilding(ctx); err == nil {
		v := 0.0
		if busy {
			v = 1
		}
		gauge(c.rebuilding, v)
	}
}
