package consumers

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/postgres"
)

// A JobStore keeps the schedule: *postgres.Store.
type JobStore interface {
	QueueSlots(ctx context.Context, all []events.Slot) ([]events.Slot, error)
}

// JobsConfig is what the consumer of the schedule's events needs.
type JobsConfig struct {
	Store   JobStore
	Decoder *events.Decoder
	// Queued receives how many slots are to be done now. Default: nothing does.
	Queued func(slots int)
	// Registry takes the metrics; nil: nowhere.
	Registry prometheus.Registerer
}

// Jobs consumes the events of the schedule. A slot that is due is noted as read, in the table that the work is taken from (internal/jobs): the loop of
// a partition does no work of a job, because that may take hours, and a partition must be given up within seconds. Events of what is done
// already, or was never planned, change nothing; those of what is done are for others.
type Jobs struct {
	config JobsConfig
	read   *prometheus.CounterVec
}

// NewJobs returns the handler of the schedule's events.
func NewJobs(config JobsConfig) *Jobs {
	if config.Queued == nil {
		config.Queued = func(int) {}
	}
	j := &Jobs{config: config, read: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tenantflow_job_events_total",
		Help: "Events of the schedule that were read, by effect: queued (a slot is to be done), repeated (it was done, is under way or too late), passed (of what is done; for others).",
	}, []string{"effect"})}
	for _, effect := range []string{"queued", "repeated", "passed"} {
		j.read.WithLabelValues(effect)
	}
	if config.Registry != nil {
		config.Registry.MustRegister(j.read)
	}
	return j
}

// Open begins a partition.
func (j *Jobs) Open(_ context.Context, p *kafka.Partition) (kafka.BatchPartition, error) {
	return &jobPartition{Partition: p, jobs: j}, nil
}

type jobPartition struct {
	*kafka.Partition
	jobs *Jobs
}

func (p *jobPartition) Begin() kafka.Batch { return &jobBatch{partition: p} }

type jobBatch struct {
	kafka.Records
	partition *jobPartition
}

// Write notes what is due, and publishes dead letters of what can't be understood.
func (b *jobBatch) Write(ctx context.Context, _ kafka.Range) error {
	p := b.partition
	var due []events.Slot
	var letters []kafka.DeadLetter
	passed := 0
	for i := range b.All {
		slot, isDue, err := p.jobs.slot(&b.All[i])
		var rejection *events.Rejection
		switch {
		case errors.As(err, &rejection):
			letters = append(letters, kafka.DeadLetter{Record: b.All[i], Rejection: rejection, Attempts: 1})
		case err != nil:
			return err
		case isDue:
			due = append(due, slot)
		default:
			passed++
		}
	}
	var queued []events.Slot
	if len(due) > 0 {
		err := p.KeepTrying(ctx, func(err error) bool { return postgres.Classify(err) == postgres.Fatal }, func() (err error) {
			queued, err = p.jobs.config.Store.QueueSlots(ctx, due)
			return err
		})
		if err != nil {
			return err
		}
		p.Waiting(nil)
	}
	p.jobs.read.WithLabelValues("queued").Add(float64(len(queued)))
	p.jobs.read.WithLabelValues("repeated").Add(float64(len(due) - len(queued)))
	p.jobs.read.WithLabelValues("passed").Add(float64(passed))
	if len(queued) > 0 {
		p.jobs.config.Queued(len(queued))
	}
	if len(letters) == 0 {
		return nil
	}
	return p.DeadLetter(ctx, letters)
}

// slot decodes a record. due: it says that the slot is due; otherwise, that it is done.
func (j *Jobs) slot(r *events.Record) (slot events.Slot, due bool, err error) {
	e, err := j.config.Decoder.Decode(r)
	if err != nil {
		return events.Slot{}, false, err
	}
	_, due, _ = events.JobOf(e.Type)
	slot, err = e.Slot()
	return slot, due, err
}
