package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/health"
	"tenantflow/internal/task"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/postgres"
)

// runJobs works on the tasks that no living process works on, until ctx ends.
func runJobs(ctx context.Context, s *service, metrics prometheus.Registerer) error {
	const name = "jobs"
	fatal := func(err error) bool {
		return postgres.Classify(err) == postgres.Fatal || clickhouse.Classify(err) == clickhouse.Fatal
	}
	world, err := await(ctx, s, name, "a store", fatal, func() (*taskWorld, error) { return openTaskWorld(ctx, s.cfg, s.log) })
	if err != nil || world == nil {
		return err
	}
	defer func() {
		if err := world.close(); err != nil {
			s.log.Warn("closing the stores of the tasks", "error", err)
		}
	}()
	s.health.Set(name, health.Ready, "")
	task.NewRunner(world.store, task.RunnerConfig{Kinds: world.kinds(), Logger: s.log, Progress: taskMetrics(metrics)}).Serve(ctx)
	return nil
}

// taskMetrics registers the metrics of tasks, and returns the function that keeps them.
func taskMetrics(registry prometheus.Registerer) func(task.Progress) {
	labels := []string{"kind", "topic"}
	events := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "tenantflow_task_records", Help: "Records of the task on a topic that this process worked on last, by outcome.",
	}, append(labels, "outcome"))
	waiting := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "tenantflow_task_waiting", Help: "1 while the task on a topic waits for something: a store, or a consumer group that is behind.",
	}, labels)
	active := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "tenantflow_task_active", Help: "1 while this process works on a task on a topic.",
	}, labels)
	registry.MustRegister(events, waiting, active)
	last := ""
	return func(p task.Progress) {
		t := &p.Task
		if t.ID != last {
			events.DeletePartialMatch(prometheus.Labels{"kind": t.Kind, "topic": t.Topic})
			last = t.ID
		}
		for outcome, n := range t.Counts {
			events.WithLabelValues(t.Kind, t.Topic, outcome).Set(float64(n))
		}
		waiting.WithLabelValues(t.Kind, t.Topic).Set(oneIf(p.Waiting != "" && t.State.Active()))
		active.WithLabelValues(t.Kind, t.Topic).Set(oneIf(t.State.Active()))
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
