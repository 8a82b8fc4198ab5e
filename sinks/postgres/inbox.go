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
	//go:embed inbox_done.sql
	inboxDoneSQL string
	//go:embed inbox_wait.sql
	inboxWaitSQL string
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
	state       string // empty: nothing
	fingerprint []byte
	seq         int64
	result      []byte
	published   bool
	faulty      bool // it can't be read, or was refused by Postgres after it had waited
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
}

func (r *inboxResult) encode(outputs []tenant.Output, company string) ([]byte, error) {
	r.Company, r.Events = company, make([]inboxOutcome, 0, len(outputs))
	ordinals := map[string]int{}
	for _, o := range outputs {
		one := inboxOutcome{Topic: o.Topic}
		if !o.Tombstone {
			one.Type, one.Ordinal = o.Type, ordinals[o.Type]
			ordinals[o.Type]++
			var err error
			if one.Data, err = json.Marshal(o.Data); err != nil {
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
		result := Result{Topic: o.Topic, Key: r.Company}
		if o.Type != "" {
			result.Event = events.NewResult(r.Consumer, origin, o.Type, o.Ordinal, r.At, o.Data)
		}
		one.Results = append(one.Results, result)
	}
	return one, nil
}

// Settled reports, for each event, whether there is nothing to do for it: it is done and published, or it waits for a company that can't
// go on. It is only a short cut: about the others, Apply decides.
func (t *Tenants) Settled(ctx context.Context, all []*events.Event) ([]bool, error) {
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	sources, ids := make([]string, len(all)), make([]string, len(all))
	for i, e := range all {
		if e != nil {
			sources[i], ids[i] = e.Source, e.ID
		}
	}
	rows, err := t.store.pool.Query(ctx, `SELECT a.place, i.fingerprint
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS a (source, event_id, place)
		JOIN public.inbox AS i ON i.source = a.source AND i.event_id = a.event_id
		WHERE CASE i.state
			WHEN 'held' THEN i.fault IS NULL -- else the event that comes again may mend it
			WHEN 'waiting' THEN EXISTS (SELECT FROM public.company_blocks AS b WHERE b.company_id = i.company_id)
			ELSE i.published_at IS NOT NULL OR i.fault IS NOT NULL END`, sources, ids)
	settled := make([]bool, len(all))
	if err == nil {
		var place int
		var print []byte
		_, err = pgx.ForEachRow(rows, []any{&place, &print}, func() error {
			settled[place-1] = all[place-1] != nil && sameEvent(print, all[place-1])
			return nil
		})
	}
	if err != nil {
		return nil, explain("look for events that are done", err)
	}
	return settled, nil
}

// MarkPublished notes that the results of events are published, so that no other process publishes them.
func (t *Tenants) MarkPublished(ctx context.Context, done []Applied) error {
	if len(done) == 0 {
		return nil
	}
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	sources, ids := make([]string, len(done)), make([]string, len(done))
	for i, one := range done {
		sources[i], ids[i] = one.Source, one.ID
	}
	// What a purge has found on its way is forgotten here, but for the purge's own result.
	_, err := t.store.pool.Exec(ctx, `UPDATE public.inbox AS i SET published_at = clock_timestamp(), result = CASE
			WHEN i.state = 'done' AND i.type <> 'company.closed.v1' AND EXISTS (
				SELECT FROM public.companies AS c WHERE c.company_id = i.company_id AND c.status = 'purged') THEN NULL
			ELSE i.result END
		FROM unnest($1::text[], $2::text[]) AS p (source, event_id)
		WHERE i.source = p.source AND i.event_id = p.event_id AND i.published_at IS NULL`, sources, ids)
	if err != nil {
		return explain("note what is published", err)
	}
	return nil
}

// Unpublished returns up to limit events that were done longer than age ago and whose results are not known to be
// published: the process that was to do it has died.
func (t *Tenants) Unpublished(ctx context.Context, age time.Duration, limit int) ([]Applied, error) {
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	rows, err := t.store.pool.Query(ctx, `SELECT source, event_id, result FROM public.inbox
		WHERE published_at IS NULL AND state IN ('done', 'rejected') AND applied_at < clock_timestamp() - $1::interval AND result IS NOT NULL
			AND fault IS NULL
		ORDER BY applied_at LIMIT $2`, age, limit)
	if err != nil {
		return nil, explain("look for results that are not published", err)
	}
	type stored struct {
		cause events.Envelope
		text  []byte
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (one stored, err error) {
		return one, row.Scan(&one.cause.Source, &one.cause.ID, &one.text)
	})
	if err != nil {
		return nil, explain("look for results that are not published", err)
	}
	all := make([]Applied, 0, len(found))
	for i := range found {
		one, err := readApplied(&found[i].cause, found[i].text)
		if err != nil {
			if err := t.faulty(ctx, &found[i].cause, err); err != nil {
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
