package consumers_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/model"
)

// ages are what the metric says of the partitions, by number.
func ages(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "tenantflow_partition_lag_seconds" {
			continue
		}
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "partition" {
					all[l.GetValue()] = m.GetGauge().GetValue()
				}
			}
		}
	}
	return all
}

// The store stands still, its connections open. The session of a partition fails meanwhile, when the outcome of its insert is not
// known, and begins again.
func TestLagSeconds_GrowsWhileClickHouseIsFrozen(t *testing.T) {
	t.Parallel()
	ch := enginetest.ClickHouse(t)
	f := newFixture(t, fixtureOptions{dsn: ch.DSN()})
	messages, want := traffic(t, model.Config{Seed: 41, Count: 400})
	registry := prometheus.NewRegistry()
	stop := f.start(t, consumer{metrics: kafka.NewMetrics(registry, "usage"), insertTimeout: 2 * time.Second})
	f.publish(t, messages[:200])
	f.AwaitConsumed(t)
	caughtUp := func() bool {
		all := ages(t, registry)
		for _, age := range all {
			if age != 0 {
				return false
			}
		}
		return len(all) == f.Partitions
	}
	enginetest.Await(t, "both partitions are caught up", caughtUp)
	if err := ch.Freeze(); err != nil {
		t.Fatal(err)
	}
	from := time.Now()
	f.publish(t, messages[200:])
	to := time.Now()
	enginetest.Await(t, "the events age", func() bool { return len(ages(t, registry)) == f.Partitions && !caughtUp() })
	wrong := 0
	enginetest.Await(t, "the events are 10 seconds old", func() bool {
		least := time.Since(to).Seconds() - 1
		got := ages(t, registry)
		most := time.Since(from).Seconds() + 1
		for id, age := range got {
			if age >= least && age <= most {
				continue
			}
			// A reader that a busy machine does not let go on gets as long as the broker takes for twenty requests.
			if f.Positions(t); wrong < 20 {
				wrong++
				return false
			}
			t.Errorf("partition %s has an age of %.3f s, want %.3f to %.3f", id, age, least, most)
		}
		wrong = 0
		return least > 9 || t.Failed()
	})
	if err := ch.Thaw(); err != nil {
		t.Fatal(err)
	}
	f.AwaitConsumed(t)
	enginetest.Await(t, "both partitions are caught up again", caughtUp)
	f.finish(t, stop)
	f.verify(t, want)
}
