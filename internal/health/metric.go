package health

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Collector gives the parts' states as metrics: tenantflow_part_ready and tenantflow_part_stalled, 0 or 1 by part,
// read at the time of the scrape.
func (t *Tracker) Collector() prometheus.Collector {
	label := []string{"part"}
	return &collector{
		tracker: t,
		ready:   prometheus.NewDesc("tenantflow_part_ready", "1 if the part is ready for work, else 0.", label, nil),
		stalled: prometheus.NewDesc("tenantflow_part_stalled", "1 if the part has work and has done nothing for longer than the stall timeout, else 0.", label, nil),
	}
}

type collector struct {
	tracker        *Tracker
	ready, stalled *prometheus.Desc
}

func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.ready
	out <- c.stalled
}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	t := c.tracker
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for name, p := range t.parts {
		ready := p.state == Ready && t.stopping == ""
		_, stalled := t.stalled(p, now)
		out <- prometheus.MustNewConstMetric(c.ready, prometheus.GaugeValue, number(ready), name)
		out <- prometheus.MustNewConstMetric(c.stalled, prometheus.GaugeValue, number(stalled), name)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
