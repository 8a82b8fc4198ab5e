package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
)

var (
	//go:embed queries/inbox_settled.sql
	inboxSettledSQL string
	//go:embed queries/inbox_published.sql
	inboxPublishedSQL string
	//go:embed queries/inbox_unpublished.sql
	inboxUnpublishedSQL string
)

// States of a row of the inbox.
const (
	inboxWaiting  = "waiting"  // for its company to be registered, or to go on
	inboxHeld     = "held"     // for a part of the service that can handle it, or, with a fault, for a person
	inboxDone     = "done"     // its effects are in the tables
	inboxRejected = "rejected" // by a rule
)

// An inboxRow is what the inbox says of an event.
type inboxRow struct {
	State       string `db:"inbox_state"` // empty: nothing
	Fingerprint []byte
	Seq         int64 `db:"inbox_seq"`
	Result      []byte
	Published   bool
}

// An inboxText is one JSON column of a row of the inbox: the event, or the result.
type inboxText struct {
	Source, EventID string
	Text            []byte
}

// An Applied is an event that is done, with what is to be published of it.
type Applied struct {
	Source, ID string
	Company    string
	Results    []Result
}

// A Result is an event to publish.
type Result struct {
	Topic string // without prefix
	Key   string
	// Event is nil for a tombstone: a record without a value.
	Event *events.Envelope
	// Partition is the one that the event is for; nil: that of the key. Everywhere: it is for all.
	Partition  *int
	Everywhere bool
}

// inboxResult is the column result.
type inboxResult struct {
	Company     string         `json:"company_id"`
	Consumer    string         `json:"consumer"`
	At          time.Time      `json:"at"`
	TraceParent string         `json:"traceparent,omitempty"`
	TraceState  string         `json:"tracestate,omitempty"`
	Events      []inboxOutcome `json:"events"`
}

type inboxOutcome struct {
	Topic   string          `json:"topic"`
	Type    string          `json:"type,omitempty"` // empty: a tombstone
	Ordinal int             `json:"ordinal"`
	Data    json.RawMessage `json:"data,omitempty"`
	// Event is the identity of an event that is no result; nil: its identity is made of the cause's.
	Event     *inboxIdentity `json:"event,omitempty"`
	Partition *int           `json:"partition,omitempty"`
	// Everywhere: the event is for every partition.
	Everywhere bool `json:"everywhere,omitempty"`

	ID  string `json:"id,omitempty"`  // of a result whose identity does not follow from the cause's; empty: it does
	Key string `json:"key,omitempty"` // empty: the company
	// KeyBytes is the key where the column can't hold it as text: with a NUL in it, or not UTF-8.
	KeyBytes []byte `json:"key_bytes,omitempty"`
	// Bytes is the data where the column can't hold it as JSON: with \u0000 in it.
	Bytes []byte `json:"bytes,omitempty"`
}

type inboxIdentity struct {
	Source string    `json:"source"`
	ID     string    `json:"id"`
	Time   time.Time `json:"time"`
}

func (r *inboxResult) encode(outputs []tenant.Output, company string) ([]byte, error) {
	r.Company, r.Events = company, make([]inboxOutcome, 0, len(outputs))
	ordinals := map[string]int{}
	for _, o := range outputs {
		one := inboxOutcome{Topic: o.Topic, Partition: o.Partition, Everywhere: o.Everywhere}
		switch {
		case o.Event != nil:
			one.Type, one.Data, one.Event = o.Type, o.Event.Data, &inboxIdentity{o.Event.Source, o.Event.ID, o.Event.Time}
		case !o.Tombstone:
			one.Type, one.Ordinal = o.Type, ordinals[o.Type]
			ordinals[o.Type]++
			var err error
			if o.Void != nil {
				err = one.void(&o, r.At)
			} else {
				one.Data, err = json.Marshal(o.Data)
			}
			if err != nil {
				return nil, unwritable(o.Type, err)
			}
		}
		r.Events = append(r.Events, one)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, unwritable("the results", err)
	}
	return text, nil
}

// unwritable rejects an event of which something can't be written as JSON: trying again would not help, and would stop its partition.
func unwritable(what string, err error) error {
	return events.Reject(events.RejectedByStore, "%s can't be written: %v", what, err)
}

// readApplied makes the events of a stored result.
func readApplied(cause *events.Envelope, stored []byte) (*Applied, error) {
	var r inboxResult
	if err := json.Unmarshal(stored, &r); err != nil {
		return nil, fmt.Errorf("read the result of event %s of %s: %w", cause.ID, cause.Source, err)
	}
	one := &Applied{Source: cause.Source, ID: cause.ID, Company: r.Company}
	origin := &events.Envelope{Source: cause.Source, ID: cause.ID, TraceParent: r.TraceParent, TraceState: r.TraceState}
	for _, o := range r.Events {
		result := Result{Topic: o.Topic, Key: r.Company, Partition: o.Partition, Everywhere: o.Everywhere}
		switch {
		case o.Event != nil:
			result.Event = &events.Envelope{Source: o.Event.Source, ID: o.Event.ID, Type: o.Type, Time: o.Event.Time, DataContentType: "application/json",
				TraceParent: r.TraceParent, TraceState: r.TraceState, Data: o.Data}
		case o.Type != "":
			result.Event = events.NewResult(r.Consumer, origin, o.Type, o.Ordinal, r.At, o.Data)
			o.place(&result)
		}
		one.Results = append(one.Results, result)
	}
	return one, nil
}

// A settledRow is a row of inbox_settled.sql.
type settledRow struct {
	Place       int // from 1
	Fingerprint []byte
}

// Settled reports, for each event, whether there is nothing to do for it: it is done and published, or it waits for a company that can't
// go on. It is only a short cut: about the others, Apply decides.
func (t *Tenants) Settled(ctx context.Context, all []*events.Event) ([]bool, error) {
	sources, ids := make([]string, len(all)), make([]string, len(all))
	for i, e := range all {
		if e != nil {
			sources[i], ids[i] = e.Source, e.ID
		}
	}
	found, err := collect(ctx, t.store, "look for events that are done", pgx.RowToStructByName[settledRow], inboxSettledSQL, sources, ids)
	if err != nil {
		return nil, err
	}
	settled := make([]bool, len(all))
	for _, r := range found {
		settled[r.Place-1] = all[r.Place-1] != nil && sameEvent(r.Fingerprint, all[r.Place-1])
	}
	return settled, nil
}

// MarkPublished notes that the results of events are published, so that no other process publishes them.
func (t *Tenants) MarkPublished(ctx context.Context, done []Applied) error {
	if len(done) == 0 {
		return nil
	}
	sources, ids := make([]string, len(done)), make([]string, len(done))
	for i, one := range done {
		sources[i], ids[i] = one.Source, one.ID
	}
	_, err := t.store.exec(ctx, "note what is published", inboxPublishedSQL, sources, ids)
	return err
}

// Unpublished returns up to limit events that were done longer than age ago and whose results are not known to be
// published: the process that was to do it has died.
func (t *Tenants) Unpublished(ctx context.Context, age time.Duration, limit int) ([]Applied, error) {
	since := t.mark.since()
	now, err := t.store.Now(ctx)
	if err != nil {
		return nil, err
	}
	found, err := collect(ctx, t.store, "look for results that are not published", pgx.RowToStructByName[inboxText], inboxUnpublishedSQL, age, limit, since)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		t.mark.nothing(since, now.Add(-age))
	}
	all := make([]Applied, 0, len(found))
	for _, r := range found {
		cause := &events.Envelope{Source: r.Source, ID: r.EventID}
		one, err := readApplied(cause, r.Text)
		if err != nil {
			if err := t.faulty(ctx, cause, err); err != nil {
				return all, err
			}
			continue
		}
		all = append(all, *one)
	}
	return all, nil
}

// unknownCompany is why an event is refused that has waited for too long.
func unknownCompany(company string, wait time.Duration) *tier.Refusal {
	return &tier.Refusal{Code: tenant.UnknownCompany, Message: fmt.Sprintf("no company %s was registered within %s", company, wait)}
}
