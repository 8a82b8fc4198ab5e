package events_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"tenantflow/events"
)

func slotRecord(t *testing.T, e *events.Envelope, key string) *events.Record {
	t.Helper()
	value, headers := e.EncodeBinary()
	return &events.Record{Topic: events.TopicMaintenance, Key: []byte(key), Value: value, Headers: headers}
}

func TestSlot_EventsAreDecodedAsTheyAreMade(t *testing.T) {
	t.Parallel()
	decoder, err := events.NewDecoder("")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	for _, job := range events.Jobs() {
		due, err := events.SlotDue(job, at.In(time.FixedZone("", 3600)))
		if err != nil {
			t.Fatal(err)
		}
		done, err := events.SlotDone(job, at, at.Add(90*time.Minute), []byte(`{"rows":3}`))
		if err != nil {
			t.Fatal(err)
		}
		if due.ID != "slot:"+job+":2026-12-01T00:00:00Z" || due.Source != "/tenantflow/schedule" || !due.Time.Equal(at) {
			t.Errorf("%s: due is %+v", job, due)
		}
		if done.CausationID != due.ID || done.CausationSource != due.Source || done.Source != "/tenantflow/jobs" || done.ID != events.ResultID(due.Source, due.ID, done.Type, 0) {
			t.Errorf("%s: done is %+v", job, done)
		}
		for _, e := range []*events.Envelope{due, done} {
			if topic, _ := events.TopicOf(e.Type); topic != events.TopicMaintenance {
				t.Errorf("%s is on %q", e.Type, topic)
			}
			got, err := decoder.Decode(slotRecord(t, e, job))
			if err != nil {
				t.Errorf("%s: %v", e.Type, err)
				continue
			}
			if slot, err := got.Slot(); err != nil || slot != (events.Slot{Job: job, At: at}) {
				t.Errorf("%s: got %+v, %v", e.Type, slot, err)
			}
		}
	}
}

func TestSlot_OnlyTheServicesOwnEventsAreTaken(t *testing.T) {
	t.Parallel()
	decoder, err := events.NewDecoder("")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		change func(due, done *events.Envelope)
		key    string
		done   bool
		want   events.Reason
	}{
		"due, another source":      {func(due, _ *events.Envelope) { due.Source = "/billing" }, "backup", false, events.MalformedEnvelope},
		"due, the jobs' source":    {func(due, _ *events.Envelope) { due.Source = events.JobSource() }, "backup", false, events.MalformedEnvelope},
		"done, another source":     {func(_, done *events.Envelope) { done.Source = events.ScheduleSource() }, "backup", true, events.MalformedEnvelope},
		"due, another slot's id":   {func(due, _ *events.Envelope) { due.ID = events.SlotID("backup", at.Add(time.Hour)) }, "backup", false, events.MalformedEnvelope},
		"due, another job's id":    {func(due, _ *events.Envelope) { due.ID = events.SlotID("storage", at) }, "backup", false, events.MalformedEnvelope},
		"done, another id":         {func(_, done *events.Envelope) { done.ID = "x" }, "backup", true, events.MalformedEnvelope},
		"due, another key":         {func(*events.Envelope, *events.Envelope) {}, "storage", false, events.KeyMismatch},
		"due, no key":              {func(*events.Envelope, *events.Envelope) {}, "", false, events.MissingKey},
		"due, no slot":             {func(due, _ *events.Envelope) { due.Data = []byte("{}") }, "backup", false, events.InvalidData},
		"due, of an unknown job":   {func(due, _ *events.Envelope) { due.Type = "maintenance.lunch_due.v1" }, "lunch", false, events.UnknownType},
		"done, without its slot":   {func(_, done *events.Envelope) { done.Data = []byte(`{"result":{}}`) }, "backup", true, events.InvalidData},
		"done, a result that is 3": {func(_, done *events.Envelope) { done.Data = []byte(`{"slot":"2026-12-01T00:00:00Z","result":3}`) }, "backup", true, events.InvalidData},
	} {
		due, err := events.SlotDue(events.JobBackup, at)
		if err != nil {
			t.Fatal(err)
		}
		done, err := events.SlotDone(events.JobBackup, at, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.change(due, done)
		e := due
		if c.done {
			e = done
		}
		_, err = decoder.Decode(slotRecord(t, e, c.key))
		var rejection *events.Rejection
		if !errors.As(err, &rejection) || rejection.Reason != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

func TestJobOf_KnowsTheTypesOfItsTopic(t *testing.T) {
	t.Parallel()
	var types []string
	for _, job := range events.Jobs() {
		for _, kind := range []string{"due", "done"} {
			eventType := "maintenance." + job + "_" + kind + ".v1"
			types = append(types, eventType)
			if got, due, ok := events.JobOf(eventType); got != job || due != (kind == "due") || !ok {
				t.Errorf("%s: got %s, %t, %t", eventType, got, due, ok)
			}
		}
	}
	for _, topic := range events.Topics() {
		if topic.Name == events.TopicMaintenance && !slices.Equal(topic.Types, types) {
			t.Errorf("types of the topic %q\nwant %q", topic.Types, types)
		}
	}
	for _, other := range []string{"maintenance.lunch_due.v1", "maintenance.backup_due.v2", "usage.recorded.v1", "backup_due.v1", ""} {
		if job, _, ok := events.JobOf(other); ok {
			t.Errorf("%q is of the job %q", other, job)
		}
	}
}
