package service

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tenantflow/events"
	"tenantflow/internal/archive"
	"tenantflow/internal/task"
)

// runJobs works on the tasks that no living process works on, does the jobs of the schedule, verifies at an interval and keeps up the archive, until ctx ends. The archive
// needs none of the stores that the rest needs, and goes on while they are away; what the schedule's consumer meets ends neither tasks nor verification.
func runJobs(ctx context.Context, r *Running) error {
	ctx, stop := context.WithCancel(ctx)
	archived, scheduled := make(chan error, 1), make(chan error, 1)
	go func() { archived <- keepArchive(ctx, r) }()
	go func() { scheduled <- r.service.supervise(ctx, Part{Name: r.part, Run: runSchedule}) }()
	defer func() {
		stop()
		if err := <-scheduled; err != nil {
			r.Log.Error("the schedule is not kept", "error", err)
		}
		if err := <-archived; err != nil {
			r.Log.Error("the archive is not kept up", "error", err)
		}
	}()
	return r.service.supervise(ctx, Part{Name: r.part, Run: runTasks})
}

// keepArchive keeps the archive of usage events up, if there is to be one.
func keepArchive(ctx context.Context, r *Running) error {
	cfg := r.Config
	if cfg.ArchiveDir == "" {
		<-ctx.Done()
		return nil
	}
	client, disconnect, err := cfg.KafkaClient()
	if err != nil {
		return err
	}
	defer disconnect()
	err = archive.Keep(ctx, archive.Keeping{
		Config:   archive.Config{Client: client, Topic: cfg.TopicPrefix + events.TopicUsage, Root: cfg.ArchiveDir, Workers: 1, Logger: r.Log},
		Interval: cfg.ArchiveInterval, Metrics: archive.NewMetrics(r),
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// runTasks works on the tasks that no living process works on, and verifies, until ctx ends.
func runTasks(ctx context.Context, r *Running) error {
	tasks, err := OpenTasks(ctx, r.Config, r.Log)
	if err != nil {
		return err
	}
	defer func() {
		if err := tasks.Close(); err != nil {
			r.Log.Warn("closing the stores of the tasks", "error", err)
		}
	}()
	r.Ready()
	runner := task.NewRunner(tasks.Store, task.RunnerConfig{Kinds: tasks.Kinds(), Logger: r.Log, Progress: TaskMetrics(r)})
	work, working := errgroup.WithContext(ctx)
	work.Go(func() error {
		runner.Serve(working)
		return nil
	})
	work.Go(func() error { return verifyOnSchedule(working, r) })
	work.Go(func() error {
		announceBilling(working, r, tasks.Client, tasks.Tenants)
		return nil
	})
	work.Go(func() error { return showBusiness(working, r) })
	return work.Wait()
}

// TaskMetrics registers the metrics of tasks, and returns the function that keeps them.
func TaskMetrics(registry prometheus.Registerer) func(task.Progress) {
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
