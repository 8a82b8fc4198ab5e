package consumers_test

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/sinks/postgres"
)

// jobsFixture is an installation with one slot that is due, and its topic of one partition.
func jobsFixture(t *testing.T) (*tenantFixture, *postgres.Store, *events.Decoder, events.Slot) {
	t.Helper()
	broker := enginetest.SharedKafka(t)
	f := newTenantFixture(t, broker, "")
	f.partitions = 1
	enginetest.CreateTopic(t, broker, f.prefix+events.TopicMaintenance, 1)
	enginetest.CreateTopic(t, broker, events.DeadLetterTopic(f.prefix+events.TopicMaintenance), 1)
	store := openTables(t, f.dsn)
	t.Cleanup(store.Close)
	decoder, err := events.NewDecoder(f.prefix)
	if err != nil {
		t.Fatal(err)
	}
	slot := events.Slot{Job: events.JobStorage, At: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)}
	if err := store.RegisterJobs(t.Context(), map[string]string{slot.Job: "hour"}); err != nil {
		t.Fatal(err)
	}
	if asked, err := store.AskForSlot(t.Context(), slot, "a test"); err != nil || !asked {
		t.Fatal(asked, err)
	}
	return f, store, decoder, slot
}

// What is due is queued once, what is not on the schedule changes nothing, what is done is for others, and what can't be understood is a dead letter. None of it
// stops the partition.
func TestJobs_QueueWhatIsDue(t *testing.T) {
	t.Parallel()
	f, store, decoder, slot := jobsFixture(t)
	message := func(key string, at time.Time, change func(*events.Envelope)) tenantMessage {
		t.Helper()
		e, err := events.SlotDue(slot.Job, at)
		if err != nil {
			t.Fatal(err)
		}
		change(e)
		value, head := e.EncodeBinary()
		return tenantMessage{events.TopicMaintenance, key, value, head, 0}
	}
	asItIs := func(*events.Envelope) {}
	done, err := events.SlotDone(slot.Job, slot.At, slot.At, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.send(t,
		message(slot.Job, slot.At, func(e *events.Envelope) { e.Source = "/billing" }),
		message("backup", slot.At, asItIs),
		tenantMessage{events.TopicMaintenance, slot.Job, []byte("{"), nil, 0},
		message(slot.Job, slot.At.Add(-time.Hour), asItIs),                  // not on the schedule
		message(slot.Job, slot.At.Add(30*time.Minute), asItIs),              // no slot of the job
		message(slot.Job, slot.At, func(e *events.Envelope) { *e = *done }), // for others
		message(slot.Job, slot.At, asItIs),
		message(slot.Job, slot.At, asItIs),
	)
	queued := make(chan int, 10)
	at := f.log(events.TopicMaintenance)
	member := at.Join(t, consumers.NewJobs(consumers.JobsConfig{Store: store, Decoder: decoder, Queued: func(n int) { queued <- n }}))
	at.AwaitConsumed(t)
	if n := kafkatest.Await(t, "a slot is queued", queued); n != 1 || len(queued) != 0 {
		t.Errorf("%d slots are queued, and then %d more", n, len(queued))
	}
	if got := f.query(t, "SELECT job, state FROM job_slots"); !slices.Equal(got, []string{"(storage,queued)"}) {
		t.Errorf("slots %q", got)
	}
	if got, want := at.Letters(t), (map[events.Reason]int64{events.MalformedEnvelope: 2, events.KeyMismatch: 1}); !maps.Equal(got, want) {
		t.Errorf("dead letters %v, want %v", got, want)
	}
	if err := member.Stop(); err != nil {
		t.Error(err)
	}
}

// A slot is queued before its offset is committed: a consumer that dies in between has lost nothing.
func TestJobs_StoreAwayKeepsTheEvent(t *testing.T) {
	t.Parallel()
	f, store, decoder, slot := jobsFixture(t)
	e, err := events.SlotDue(slot.Job, slot.At)
	if err != nil {
		t.Fatal(err)
	}
	value, head := e.EncodeBinary()
	f.send(t, tenantMessage{events.TopicMaintenance, slot.Job, value, head, 0})
	at := f.log(events.TopicMaintenance)
	away := &dyingJobStore{asked: make(chan struct{}, 100)}
	first := at.Join(t, consumers.NewJobs(consumers.JobsConfig{Store: away, Decoder: decoder}))
	kafkatest.Await(t, "the store does not answer", away.asked)
	if err := first.Stop(); err != nil {
		t.Error(err)
	}
	if got := f.query(t, "SELECT job, state FROM job_slots"); at.Consumed(t) || !slices.Equal(got, []string{"(storage,due)"}) {
		t.Errorf("while the store is away: slots %q, or the offset is committed", got)
	}
	dies := &dyingJobStore{store: store, asked: make(chan struct{}, 100)}
	member := at.Join(t, consumers.NewJobs(consumers.JobsConfig{Store: dies, Decoder: decoder}))
	kafkatest.Await(t, "the slot is queued without an answer", dies.asked)
	if err := member.Stop(); err != nil {
		t.Error(err)
	}
	if at.Consumed(t) {
		t.Error("the offset is committed, and nothing said that the slot is queued")
	}
	at.Join(t, consumers.NewJobs(consumers.JobsConfig{Store: store, Decoder: decoder}))
	at.AwaitConsumed(t)
	if got := f.query(t, "SELECT job, state FROM job_slots"); !slices.Equal(got, []string{"(storage,queued)"}) {
		t.Errorf("slots %q", got)
	}
}

// A dyingJobStore does what it is asked for, and its answer is lost. Without a store it does nothing.
type dyingJobStore struct {
	store *postgres.Store
	asked chan struct{}
}

func (d *dyingJobStore) QueueSlots(ctx context.Context, all []events.Slot) ([]events.Slot, error) {
	if d.store != nil {
		_, _ = d.store.QueueSlots(ctx, all)
	}
	select {
	case d.asked <- struct{}{}:
	default:
	}
	return nil, context.DeadlineExceeded
}
