package replay

import (
	"bytes"
	"context"
	"errors"
	"time"

	"tenantflow/events"
	"tenantflow/sinks/postgres"
)

// tenantJudge decides about events of companies and subscriptions. Each that was taken in has a row in the inbox.
type tenantJudge struct {
	rules
	decoder *events.Decoder
	future  time.Duration // how far an event's time may lie ahead of its record's

	partition int
	records   []verdict
	events    []*events.Event // by record; nil: it is decided
	bytes     int64
}

func (j *tenantJudge) reset(partition int) {
	j.partition = partition
	j.records, j.events, j.bytes = j.records[:0], j.events[:0], 0
}

func (j *tenantJudge) held() int64 { return j.bytes }

func (j *tenantJudge) add(r *events.Record) {
	v := verdictOn(r, AlreadyThere)
	copied := copyOf(r)
	e, err := j.decoder.Decode(&copied)
	switch {
	case err != nil && !j.filter.all():
		v.outcome, e = Filtered, nil
	case err != nil:
		v.outcome, e = Settled, nil
	case !j.filter.wants(e.Key, e.Type, e.Source, e.ID):
		v.outcome, e = Filtered, nil
	case events.IsDue(e.Type), tooEarly(e, r.Time, j.future):
		// The service publishes a due event again for as long as it is due.
		v.outcome, e = Settled, nil
	}
	if e != nil {
		j.bytes += int64(len(r.Value)) + 500
	}
	j.records, j.events = append(j.records, v), append(j.events, e)
}

// tooEarly reports whether the time of an event lies too far ahead: it went to the dead letters.
func tooEarly(e *events.Event, at time.Time, future time.Duration) bool {
	var rejection *events.Rejection
	return errors.As(e.CheckTime(at, future), &rejection)
}

// copyOf copies a record: a decoded event points into it.
func copyOf(r *events.Record) events.Record {
	c := *r
	c.Key, c.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	c.Headers = make([]events.Header, len(r.Headers))
	for i, h := range r.Headers {
		c.Headers[i] = events.Header{Key: h.Key, Value: bytes.Clone(h.Value)}
	}
	return c
}

func (j *tenantJudge) owner(r *events.Record) (o Owner, forgets bool, err error) {
	copied := copyOf(r)
	e, err := j.decoder.Decode(&copied)
	if err != nil {
		return Owner{}, false, err
	}
	return Owner{e.Key, e.UserID()}, Forgets(e.Type), nil
}

func (j *tenantJudge) mayForget() bool { return true }

func (j *tenantJudge) decide(ctx context.Context) ([]verdict, error) {
	known, err := j.store.KnownEvents(ctx, j.events)
	if err != nil {
		return nil, err
	}
	var candidates []*verdict
	var of []*events.Event
	for i, e := range j.events {
		v := &j.records[i]
		switch {
		case e == nil || known[i] == postgres.KnownSame:
		case known[i] == postgres.KnownElse:
			v.outcome = Conflict
		default:
			v.outcome = Published
			v.event = &Event{Source: e.Source, ID: e.ID, Company: e.Key, User: e.UserID(), Time: e.Time, Partition: j.partition, Offset: v.offset}
			candidates, of = append(candidates, v), append(of, e)
		}
	}
	err = j.leave(ctx, candidates, func(a, b int) bool {
		return of[a].Type == of[b].Type && of[a].Key == of[b].Key && bytes.Equal(of[a].Canonical(), of[b].Canonical())
	})
	return j.records, err
}

func (j *tenantJudge) stillCounted(context.Context, []int) (int64, error) { return 0, nil }
