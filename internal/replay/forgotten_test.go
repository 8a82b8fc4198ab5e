package replay_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/internal/replay"
	"tenantflow/internal/task"
)

// unstored publishes events that the consumer takes and the table never gets.
func (w *world) unstored(t testing.TB, c model.Config) *model.Generator {
	t.Helper()
	g := generator(t, c)
	w.publish(t, g, 0)
	stop := w.consume(t, func(uint64) bool { return true })
	w.awaitConsumed(t)
	stop()
	return g
}

// ends checks how many records the topic's only partition has ever had.
func (w *world) ends(t testing.TB, want int64) {
	t.Helper()
	ends, err := kafka.Ends(t.Context(), w.client, w.topic())
	if err != nil {
		t.Fatal(err)
	}
	if ends[0].To != want {
		t.Errorf("the topic has %d records, want %d", ends[0].To, want)
	}
}

// What was decided before a company was purged is not done after it, by any process.
func TestReplay_LeavesOutWhoIsForgottenBeforeADecisionIsCarriedOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.unstored(t, model.Config{Seed: 31, Count: 100, Companies: 1, UsersPerCompany: 3})
	s := w.station(t, small)
	report, _ := s.dry(t, everything())
	company := report.Missing[0].Company
	made := s.create(t, everything())
	if !w.crashAt(t, made.ID, task.StepProposed, 3) {
		t.Fatal("the child never proposed")
	}
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email, status) VALUES ($1, '', '', 'purged')", company)
	// Two chunks of ten were published before.
	if got, want := s.run(t, made.ID).Counts, (task.Counts{"published": 20, "purged": 80}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	w.ends(t, 120)
}

// A topic that was created again has other records at the places that older dead letters name.
func TestReplay_ALetterOfOtherBytesSettlesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.unstored(t, model.Config{Seed: 32, Count: 4, Companies: 1, UsersPerCompany: 3})
	var log []events.Record
	if err := kafka.ReadLog(t.Context(), w.client, w.topic(), 0, kafka.Range{From: 0, To: 4}, func(r *events.Record) error {
		log = append(log, kafka.CopyRecord(r))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	writer := enginetest.Writer(w.client)
	writer.Topic = events.DeadLetterTopic(w.topic())
	defer func() { _ = writer.Close() }()
	letter := func(bytes events.Record, at int64, reason events.Reason) {
		bytes.Offset = at
		if err := writer.WriteMessages(t.Context(), kafkatest.Letter(&bytes, w.group(), events.Reject(reason, "by hand"), time.Now())); err != nil {
			t.Fatal(err)
		}
	}
	letter(log[3], 0, events.RejectedByStore) // another log's
	letter(log[1], 1, events.RejectedByStore)
	other := log[2]
	other.Value = append([]byte(" "), other.Value...)
	letter(other, 2, events.TooLarge) // of another size
	letter(log[3], 3, events.TooLarge)
	letter(log[0], 3, events.Conflict) // another log's, beside it
	report, _ := w.station(t).dry(t, everything())
	if want := (task.Counts{"published": 2, "settled": 2}); !maps.Equal(report.Counts, want) {
		t.Errorf("%v, want %v", report.Counts, want)
	}
}

func TestReplay_CountsWhatRetentionTookMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.unstored(t, model.Config{Seed: 33, Count: 500, Companies: 3, UsersPerCompany: 3})
	s := w.station(t, small)
	plan := s.plan(t, everything())
	made := s.create(t, everything())
	if err := enginetest.SharedKafka(t).DeleteRecords(t.Context(), w.topic(), 0, 120); err != nil {
		t.Fatal(err)
	}
	want := task.Counts{"published": 380, "failed": 120}
	report, err := s.kind.Dry(t.Context(), plan, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(report.Counts, want) {
		t.Errorf("the dry run counts %v, want %v", report.Counts, want)
	}
	if done := s.run(t, made.ID); done.State != task.Done || !maps.Equal(done.Counts, want) {
		t.Errorf("%s: %v, want %v", done.State, done.Counts, want)
	}
}

func TestReplay_OfALogThatWasCreatedAgainFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.unstored(t, model.Config{Seed: 34, Count: 50, Companies: 1, UsersPerCompany: 3})
	s := w.station(t)
	made := s.create(t, everything())
	w.recreate(t, 1)
	if done := s.run(t, made.ID); done.State != task.Failed || !strings.Contains(done.Message, "created again") {
		t.Errorf("%s: %q, %v", done.State, done.Message, done.Counts)
	}
}

// What was decided about a log is not done to another one that is as long by then, whether it holds other events or what is no event.
func TestReplay_APlaceThatHoldsSomethingElseIsNotPublished(t *testing.T) {
	t.Parallel()
	for name, fill := range map[string]func(testing.TB, *world){
		"another event": func(t testing.TB, w *world) {
			w.publish(t, generator(t, model.Config{Seed: 39, Count: 150, Companies: 1, UsersPerCompany: 3}), 0)
		},
		"no event": func(t testing.TB, w *world) {
			writer := enginetest.Writer(w.client)
			writer.Topic = w.topic()
			defer func() { _ = writer.Close() }()
			if err := writer.WriteMessages(t.Context(), slices.Repeat([]kafkago.Message{{Value: []byte("none")}}, 150)...); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			w.unstored(t, model.Config{Seed: 38, Count: 100, Companies: 1, UsersPerCompany: 3})
			s := w.station(t, small)
			made := s.create(t, everything())
			if !w.crashAt(t, made.ID, task.StepProposed, 1) {
				t.Fatal("the child never proposed")
			}
			w.recreate(t, 1)
			fill(t, w)
			if done := s.run(t, made.ID); done.State != task.Failed || !strings.Contains(done.Message, "created again") {
				t.Errorf("%s: %q, %v", done.State, done.Message, done.Counts)
			}
			w.ends(t, 150)
		})
	}
}

func TestReplay_OfAnotherArchiveThanThePlannedOneFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.unstored(t, model.Config{Seed: 35, Count: 50, Companies: 1, UsersPerCompany: 3})
	early := w.archived(t)
	w.unstored(t, model.Config{Seed: 36, Count: 50, Companies: 1, UsersPerCompany: 3})
	root := w.archived(t)
	s := w.station(t, archives)
	made := s.create(t, fromArchive(root))
	dir := filepath.Join(root, w.topic())
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(early, w.topic()))); err != nil {
		t.Fatal(err)
	}
	if done := s.run(t, made.ID); done.State != task.Failed || !strings.Contains(done.Message, "not the archive that was planned with") || replay.Read(done.Counts) != 0 {
		t.Errorf("%s: %q, %v", done.State, done.Message, done.Counts)
	}
}

// A process with another tolerance may not take for an event what the one before it has decided to publish.
func TestReplay_WhatThisProcessDoesNotTakeForAnEventFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.unstored(t, model.Config{Seed: 37, Count: 50, Companies: 1, UsersPerCompany: 3, Start: time.Now().Add(20 * time.Minute), Step: time.Millisecond})
	made := w.station(t, small).create(t, everything())
	if !w.crashAt(t, made.ID, task.StepProposed, 1) {
		t.Fatal("the child never proposed")
	}
	strict := w.station(t, func(c *replay.Config) { c.FutureTolerance = time.Minute })
	if done := strict.run(t, made.ID); done.State != task.Done || done.Counts["failed"] != 10 || done.Counts["settled"] != 40 || replay.Read(done.Counts) != 50 {
		t.Errorf("%s: %q, %v", done.State, done.Message, done.Counts)
	}
}
