package events

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Jobs of the schedule. Each has two types on maintenance.events: maintenance.<job>_due.v1 and maintenance.<job>_done.v1.
const (
	JobRetention       = "retention"
	JobStorage         = "storage"
	JobBackup          = "backup"
	JobDrift           = "drift"
	JobBillingExport   = "billing_export"
	JobRecommendations = "recommendations"
	JobBusinessMetrics = "business_metrics"
)

// Jobs lists the jobs that have types.
func Jobs() []string {
	return []string{JobRetention, JobStorage, JobBackup, JobDrift, JobBillingExport, JobRecommendations, JobBusinessMetrics}
}

// The types of the schedule's events, but for the job's name between them.
const (
	slotPrefix = "maintenance."
	slotDue    = "_due.v1"
	slotDone   = "_done.v1"
)

// ScheduleSource is the source of events of what is due by the clock. No other source may say so.
func ScheduleSource() string { return SourceOf("schedule") }

// JobConsumer is the name of what does the work of jobs, in the source of what it publishes.
const JobConsumer = "jobs"

// JobSource is the source of events that say what a job has done.
func JobSource() string { return SourceOf(JobConsumer) }

// SlotID is the id of the event that a slot of a job is due: slot:<job>:<the slot's time, RFC 3339 in UTC>. So publishing it twice is
// publishing one event twice.
func SlotID(job string, slot time.Time) string {
	return "slot:" + job + ":" + slot.UTC().Format(time.RFC3339)
}

// SlotDue makes the event that a slot of a job is due. Its time is the slot's. The key of its record is the job.
func SlotDue(job string, slot time.Time) (*Envelope, error) {
	data, err := json.Marshal(map[string]any{"slot": slot.UTC().Format(time.RFC3339)})
	if err != nil {
		return nil, fmt.Errorf("write the event of a slot: %w", err)
	}
	return &Envelope{ID: SlotID(job, slot), Source: ScheduleSource(), Type: slotPrefix + job + slotDue, Time: slot.UTC(),
		DataContentType: "application/json", Data: data}, nil
}

// SlotDone makes the event that the work of a slot is done, with what came of it: a JSON object. It is caused by the slot's due event and dated
// to the slot; finished is when the work ended.
func SlotDone(job string, slot, finished time.Time, result json.RawMessage) (*Envelope, error) {
	members := map[string]any{"slot": slot.UTC().Format(time.RFC3339), "finished_at": finished.UTC().Format(timeLayout)}
	if len(result) > 0 {
		members["result"] = result
	}
	data, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("write what came of slot %s of job %s: %w", slot.UTC().Format(time.RFC3339), job, err)
	}
	cause := &Envelope{ID: SlotID(job, slot), Source: ScheduleSource()}
	return NewResult(JobConsumer, cause, slotPrefix+job+slotDone, 0, slot, data), nil
}

// JobOf takes the job out of a type of maintenance.events. due: the type says that a slot is due; otherwise it is done. ok is false for
// every other type.
func JobOf(eventType string) (job string, due, ok bool) {
	rest, found := strings.CutPrefix(eventType, slotPrefix)
	if !found {
		return "", false, false
	}
	if job, due = strings.CutSuffix(rest, slotDue); !due {
		if job, found = strings.CutSuffix(rest, slotDone); !found {
			return "", false, false
		}
	}
	return job, due, slices.Contains(Jobs(), job)
}

// A Slot is one time at which a job is due.
type Slot struct {
	Job string
	At  time.Time // UTC
}

// Slot is the slot that a due or done event is about. The data follow their schema.
func (e *Event) Slot() (Slot, error) {
	job, _, ok := JobOf(e.Type)
	data, rejection := parseData(e.Data)
	if !ok || rejection != nil {
		return Slot{}, fmt.Errorf("take the slot out of event %s: it is none of the schedule", quoted(e.ID))
	}
	m, _ := data.(map[string]any)
	return Slot{job, object(m).time("slot", e.Time).UTC()}, nil
}

// checkSlotSource refuses events of the schedule that are not this service's own.
func checkSlotSource(e *Envelope) *Rejection {
	_, due, ok := JobOf(e.Type)
	source := JobSource()
	if due {
		source = ScheduleSource()
	}
	if ok && e.Source != source {
		return Reject(MalformedEnvelope, "%s is this service's own event, of the source %s", e.Type, source)
	}
	return nil
}

// checkSlot refuses events of the schedule whose key is not the job, or whose id is not that of their slot. The data follow their schema.
func checkSlot(e *Envelope, key string, data any) *Rejection {
	job, due, ok := JobOf(e.Type)
	if !ok {
		return nil
	}
	if key != job {
		return rejectValue(KeyMismatch, fmt.Sprintf("the key (%d bytes) is not the job's name, %s", len(key), job),
			fmt.Sprintf("the key is %s, and the job is %s", quoted(key), job))
	}
	m, _ := data.(map[string]any)
	slot := object(m).time("slot", e.Time).UTC()
	want := SlotID(job, slot)
	if !due {
		want = ResultID(ScheduleSource(), want, e.Type, 0)
	}
	if e.ID != want {
		return Reject(MalformedEnvelope, "the id of a %s follows from its slot, and should be %s", e.Type, want)
	}
	return nil
}
