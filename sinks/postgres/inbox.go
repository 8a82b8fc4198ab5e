package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
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
	inboxWaiting  = "waiting"  // for its company to be registered
	inboxHeld     = "held"     // for a part of the service that can handle it
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
				return nil, fmt.Errorf("encode %s: %w", o.Type, err)
			}
		}
		r.Events = append(r.Events, one)
	}
	return json.Marshal(r)
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

// fingerprint tells events of one identity apart by what they say: type, company and data, however the data is written.
func fingerprint(e *events.Event) []byte {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n", e.Type, e.Key)
	var data any
	d := json.NewDecoder(bytes.NewReader(e.Data))
	d.UseNumber()
	if err := d.Decode(&data); err != nil {
		sum.Write(e.Data)
	} else if text, err := json.Marshal(data); err == nil {
		sum.Write(text)
	}
	return sum.Sum(nil)
}

// A waitingEvent is the column event: all that is needed to apply it later.
type waitingEvent struct {
	Source      string          `json:"source"`
	ID          string          `json:"id"`
	Type        string          `json:"type"`
	Time        time.Time       `json:"time"`
	TraceParent string          `json:"traceparent,omitempty"`
	TraceState  string          `json:"tracestate,omitempty"`
	Key         string          `json:"key"`
	Partition   int             `json:"partition"`
	Offset      int64           `json:"offset,omitempty"`
	Appended    time.Time       `json:"appended,omitzero"`
	Data        json.RawMessage `json:"data"`
}

func writeEvent(c *tenant.Cause) []byte {
	e := c.Event
	text, err := json.Marshal(waitingEvent{e.Source, e.ID, e.Type, e.Time, e.TraceParent, e.TraceState, e.Key, c.Partition, c.Offset, c.Appended, e.Data})
	if err != nil {
		return nil // its data was read as JSON
	}
	return text
}

func readEvent(text []byte) (*tenant.Cause, error) {
	var w waitingEvent
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, fmt.Errorf("read an event that waits: %w", err)
	}
	e := &events.Event{Key: w.Key, Envelope: events.Envelope{Source: w.Source, ID: w.ID, Type: w.Type, Time: w.Time,
		TraceParent: w.TraceParent, TraceState: w.TraceState, Data: w.Data}}
	payload, err := e.Payload()
	if err != nil {
		return nil, err
	}
	return &tenant.Cause{Event: e, Payload: payload, Partition: w.Partition, Offset: w.Offset, Appended: w.Appended}, nil
}

// waits lets the event wait for its company, and commits.
func (x *tenantTx) waits(ctx context.Context, print []byte) error {
	e := x.cause.Event
	b := &pgx.Batch{}
	b.Queue(inboxWaitSQL, e.Source, inboxID(x.cause), e.Type, e.Key, print, writeEvent(x.cause), x.tenants.wait).QueryRow(raced)
	b.Queue("COMMIT")
	if err := x.conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	x.ended = true
	return nil
}

const firstWaitingSQL = "SELECT event FROM public.inbox WHERE company_id = $1 AND state = 'waiting' ORDER BY seq LIMIT 1"

// firstWaiting is the event that has waited longest for the company.
func (x *tenantTx) firstWaiting(ctx context.Context) (*tenant.Cause, error) {
	var text []byte
	if err := x.conn.QueryRow(ctx, firstWaitingSQL, x.state.CompanyID).Scan(&text); err != nil {
		return nil, err
	}
	return readEvent(text)
}

// firstWaiting is the event that has waited longest for a company; nil: none does.
func (t *Tenants) firstWaiting(ctx context.Context, company string) (*tenant.Cause, error) {
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	var text []byte
	err := t.store.pool.QueryRow(ctx, firstWaitingSQL, company).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, explain("read what waits for a company", err)
	}
	return readEvent(text)
}

// Settled tells, for each event, that it is done and published, so that there is nothing to do for it. It is only a short cut:
// of those it says nothing of, Apply knows better.
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
		WHERE i.state = 'held' OR i.state IN ('done', 'rejected') AND i.published_at IS NOT NULL`, sources, ids)
	settled := make([]bool, len(all))
	if err == nil {
		var place int
		var print []byte
		_, err = pgx.ForEachRow(rows, []any{&place, &print}, func() error {
			settled[place-1] = all[place-1] != nil && bytes.Equal(print, fingerprint(all[place-1]))
			return nil
		})
	}
	if err != nil {
		return nil, explain("look for events that are done", err)
	}
	return settled, nil
}

// MarkPublished notes that the results of events are published, so that nobody else publishes them.
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

// Unpublished returns up to limit events that were done longer than age ago and whose results nobody is known to have
// published: who was to do it has died.
func (t *Tenants) Unpublished(ctx context.Context, age time.Duration, limit int) ([]Applied, error) {
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	rows, err := t.store.pool.Query(ctx, `SELECT source, event_id, result FROM public.inbox
		WHERE published_at IS NULL AND state IN ('done', 'rejected') AND applied_at < clock_timestamp() - $1::interval AND result IS NOT NULL
		ORDER BY applied_at LIMIT $2`, age, limit)
	if err != nil {
		return nil, explain("look for results that are not published", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Applied, error) {
		var cause events.Envelope
		var stored []byte
		if err := row.Scan(&cause.Source, &cause.ID, &stored); err != nil {
			return Applied{}, err
		}
		one, err := readApplied(&cause, stored)
		if err != nil {
			return Applied{}, err
		}
		return *one, nil
	})
	if err != nil {
		return nil, explain("look for results that are not published", err)
	}
	return found, nil
}

// unknownCompany is why an event is refused that has waited for too long.
func unknownCompany(company string, wait time.Duration) *tier.Refusal {
	return &tier.Refusal{Code: tenant.UnknownCompany, Message: fmt.Sprintf("no company %s was registered within %s", company, wait)}
}
