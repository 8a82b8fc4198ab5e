package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/analytics"
	"tenantflow/internal/config"
	"tenantflow/internal/jobs"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/postgres"
)

// How the events of the schedule are read: there are a few in an hour.
const (
	scheduleBatchRows     = 200
	scheduleBatchInterval = 5 * time.Millisecond
	scheduleMemory        = config.Bytes(4 << 20)
)

// Schedule lists the jobs of the schedule, which do their work with what an installation has. Where only their names and rules are asked for,
// on may be nil. docs/jobs.md has the same list.
func Schedule(on *JobStores) []jobs.Job {
	return []jobs.Job{
		{Name: events.JobBillingExport, Every: jobs.Month, Catchup: jobs.Each(lookBack, monthsBack), Run: on.exportBilling},
		{Name: events.JobBusinessMetrics, Every: jobs.Hour, Catchup: jobs.OnTime(reportLate), Run: on.reportMetrics},
		{Name: events.JobRecommendations, Every: jobs.Month, Catchup: jobs.Each(lookBack, monthsBack), Run: on.recommend},
	}
}

const (
	// lookBack is how long ago a month may have ended that is made up for after an outage, and monthsBack how many of them are.
	lookBack   = 400 * 24 * time.Hour
	monthsBack = 14
	// reportLate is how late the hourly report may begin: the next one is not far.
	reportLate = 15 * time.Minute
)

// JobStores is what the jobs of the schedule work with.
type JobStores struct {
	Config  *config.Config
	Log     *slog.Logger
	Publish func(context.Context, []kafka.Result) error // returns when the events are durable
}

func (on *JobStores) exportBilling(ctx context.Context, slot time.Time) (any, error) {
	return ExportBilling(ctx, on.Config, on.Log, slot)
}

func (on *JobStores) recommend(ctx context.Context, slot time.Time) (any, error) {
	done, err := Recommend(ctx, on.Config, on.Log, on.Publish, slot)
	var notYet *analytics.NotYetError
	if errors.As(err, &notYet) {
		err = &jobs.NotYetError{Until: notYet.Until, Why: notYet.Error()}
	}
	return done, err
}

func (on *JobStores) reportMetrics(ctx context.Context, slot time.Time) (any, error) {
	return ReportMetrics(ctx, on.Config, on.Log, on.Publish, slot)
}

// runSchedule plans the slots of the jobs, publishes their events, reads them and does the work, until ctx ends.
func runSchedule(ctx context.Context, r *Running) error {
	cfg := r.Config
	store, err := OpenPostgres(ctx, cfg, 0, r.Log)
	if err != nil {
		return err
	}
	defer store.Close()
	decoder, err := events.NewDecoder(cfg.TopicPrefix)
	if err != nil {
		return err
	}
	client, disconnect, err := cfg.KafkaClient()
	if err != nil {
		return err
	}
	defer disconnect()
	results := kafka.NewResults(client).Traced(r.service.tracer)
	defer func() {
		if err := results.Close(); err != nil {
			r.Log.Warn("closing the publisher of the schedule", slog.Any("error", err))
		}
	}()
	publish := func(ctx context.Context, all []kafka.Result) error { return results.Publish(ctx, all, func(error) {}) }
	all := Schedule(&JobStores{Config: cfg, Log: r.Log, Publish: publish})
	if len(all) == 0 {
		<-ctx.Done()
		return nil
	}
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
	}
	schedule, err := jobs.New(jobs.Config{Jobs: all, Store: store, Publish: publish, TopicPrefix: cfg.TopicPrefix, Owner: owner(),
		Metrics: jobs.NewMetrics(r, names...), Logger: r.Log})
	if err != nil {
		return err
	}
	group, working := errgroup.WithContext(ctx)
	group.Go(func() error { return schedule.Run(working) })
	group.Go(func() error {
		return r.Consume(working, events.TopicMaintenance, Batching{scheduleBatchRows, scheduleBatchInterval, scheduleMemory},
			consumers.NewJobs(consumers.JobsConfig{Store: store, Decoder: decoder, Queued: func(int) { schedule.Wake() }, Registry: r}))
	})
	return group.Wait()
}

// owner names this process in a table.
func owner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

// ErrSlotTaken says that a slot is done or under way, so asking for it changes nothing.
var ErrSlotTaken = errors.New("it is done, or under way")

// ErrSlotUnpublished says that a slot is asked for, and its event is not in the log yet: a process with the part jobs publishes it.
var ErrSlotUnpublished = errors.New("its event is not published yet")

// askedWithin is how long a person waits for Kafka.
const askedWithin = 10 * time.Second

// AskForSlot has a slot of a job done because a person asked for it, and publishes its event: a process with the part jobs does the work. The error is
// [ErrSlotTaken] if the slot is done or under way, and wraps [ErrSlotUnpublished] if Kafka does not answer.
func AskForSlot(ctx context.Context, cfg *config.Config, store *postgres.Store, slot events.Slot, by string) error {
	asked, err := store.AskForSlot(ctx, slot, by)
	if err != nil {
		return err
	}
	if !asked {
		return ErrSlotTaken
	}
	event, err := events.SlotDue(slot.Job, slot.At)
	if err != nil {
		return err
	}
	client, disconnect, err := cfg.KafkaClient()
	if err != nil {
		return err
	}
	defer disconnect()
	results := kafka.NewResults(client)
	one := []postgres.JobEvent{{Slot: slot, Event: event}}
	var waits error
	publishing, cancel := context.WithTimeout(ctx, askedWithin)
	defer cancel()
	if err := results.Publish(publishing, jobs.Results(cfg.TopicPrefix, one), func(err error) { waits = err }); err != nil {
		if ctx.Err() == nil && publishing.Err() != nil {
			err = ErrSlotUnpublished
		}
		return errors.Join(err, waits, results.Close())
	}
	return errors.Join(store.MarkJobEvents(ctx, one), results.Close())
}
