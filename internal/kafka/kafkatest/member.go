package kafkatest

import (
	"context"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/health"
	"tenantflow/internal/kafka"
)

// A Member is one member of the group, with the ways in which an operator sees how it is.
type Member struct {
	Cancel   context.CancelFunc // asks it to stop
	Ended    chan struct{}      // closed when Run has returned
	Result   error              // what it returned
	health   *health.Tracker
	registry *prometheus.Registry
}

// Join runs a member of the group until the test ends or Stop is called.
func (f *Log) Join(t testing.TB, handler kafka.BatchHandler, change ...func(*kafka.Config)) *Member {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	m := &Member{Ended: make(chan struct{}), health: health.New(time.Minute, log, "events"), registry: prometheus.NewRegistry()}
	transport := &kafkago.Transport{}
	cfg := kafka.Config{
		Name: "events", Brokers: []string{f.Brokers}, Transport: transport, Group: f.Group, Topics: []string{f.Topic},
		// A member that stands still for a while on a busy machine keeps its partitions: what it has handled does not come again.
		SessionTimeout: 45 * time.Second, RebalanceTimeout: 90 * time.Second, Drain: 4 * time.Second,
		BatchRows: 500, BatchInterval: 50 * time.Millisecond, CommitIdle: 50 * time.Millisecond,
		Metrics: kafka.NewMetrics(m.registry, "events"), Health: m.health, Logger: log,
	}
	for _, c := range change {
		c(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.Cancel = cancel
	go func() {
		defer close(m.Ended)
		defer transport.CloseIdleConnections()
		m.Result = kafka.NewGroup(cfg, handler).Run(ctx)
	}()
	t.Cleanup(func() { _ = m.Stop() })
	return m
}

// Stop ends the member as a signal would, and returns what Run returned.
func (m *Member) Stop() error {
	m.Cancel()
	<-m.Ended
	return m.Result
}

// Report is what readiness says about the consumer.
func (m *Member) Report() health.PartReport { return m.health.Readiness().Parts[0] }

// Partitions is how many the member owns.
func (m *Member) Partitions() int { return m.Report().Partitions }

// Metric is the value of a counter or gauge with these labels, 0 when it is not there.
func (m *Member) Metric(t testing.TB, name string, labels map[string]string) float64 {
	t.Helper()
	value, _ := m.Sample(t, name, labels)
	return value
}

// Sample is the value of a counter or gauge with these labels, if it is there.
func (m *Member) Sample(t testing.TB, name string, labels map[string]string) (value float64, there bool) {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			have := map[string]string{}
			for _, l := range metric.GetLabel() {
				if _, asked := labels[l.GetName()]; asked {
					have[l.GetName()] = l.GetValue()
				}
			}
			if maps.Equal(have, labels) {
				return metric.GetCounter().GetValue() + metric.GetGauge().GetValue(), true
			}
		}
	}
	return 0, false
}

// Brisk makes a member notice rebalances, and the group notice its death, soon.
func Brisk(c *kafka.Config) {
	c.SessionTimeout, c.RebalanceTimeout, c.Drain = 3*time.Second, 6*time.Second, 2*time.Second
	c.BatchRows = 300
}
