package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

var (
	//go:embed queries/inbox_first.sql
	inboxFirstSQL string
	//go:embed queries/inbox_hold.sql
	inboxHoldSQL string
)

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

// writeEvent is the column event: without members that no schema names, which may be anything of anyone. An event that can't be written
// is rejected, because its row would stand in its company's way.
func writeEvent(c *tenant.Cause) ([]byte, error) {
	e := c.Event
	data, err := e.Kept()
	if err != nil {
		return nil, unwritable("the event", err)
	}
	text, err := json.Marshal(waitingEvent{e.Source, e.ID, e.Type, e.Time, e.TraceParent, e.TraceState, e.Key, c.Partition, c.Offset, c.Appended, data})
	if err != nil {
		return nil, unwritable("the event", err)
	}
	return text, nil
}

// An unreadableError is a row of the inbox whose event can't be read.
type unreadableError struct {
	row   events.Envelope // its identity
	cause error
}

func (e *unreadableError) Error() string {
	return fmt.Sprintf("read the event %s of %s in the inbox: %v", e.row.ID, e.row.Source, e.cause)
}

func (e *unreadableError) Unwrap() error { return e.cause }

// readEvent reads the column event of a row.
func readEvent(row events.Envelope, text []byte) (*tenant.Cause, error) {
	var w waitingEvent
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, &unreadableError{row, err}
	}
	e := &events.Event{Key: w.Key, Envelope: events.Envelope{Source: w.Source, ID: w.ID, Type: w.Type, Time: w.Time,
		TraceParent: w.TraceParent, TraceState: w.TraceState, Data: w.Data}}
	payload, err := e.Payload()
	if err != nil {
		return nil, &unreadableError{row, err}
	}
	c := &tenant.Cause{Event: e, Payload: payload, Partition: w.Partition, Offset: w.Offset, Appended: w.Appended}
	if w.Source != row.Source || inboxID(c) != row.ID {
		return nil, &unreadableError{row, errors.New("the event is another one")}
	}
	return c, nil
}

// waits lets the event wait for its company, and commits.
func (x *tenantTx) waits(ctx context.Context, print []byte) error {
	e := x.cause.Event
	text, err := writeEvent(x.cause)
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	b.Queue(inboxWaitSQL, e.Source, inboxID(x.cause), e.Type, e.Key, print, text, x.tenants.wait).QueryRow(raced)
	b.Queue("COMMIT")
	if err := x.conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	x.ended = true
	return nil
}

// readWaiting reads a row whose text is the event.
func readWaiting(row pgx.CollectableRow) (*tenant.Cause, error) {
	r, err := pgx.RowToStructByName[inboxText](row)
	if err != nil {
		return nil, err
	}
	return readEvent(events.Envelope{Source: r.Source, ID: r.EventID}, r.Text)
}

// firstWaiting is the event that has waited longest for the company. The error is an *unreadableError if that can't be read.
func (x *tenantTx) firstWaiting(ctx context.Context) (*tenant.Cause, error) {
	rows, _ := x.conn.Query(ctx, inboxFirstSQL, x.state.CompanyID) // its error comes with the rows
	return pgx.CollectExactlyOneRow(rows, readWaiting)
}

// firstWaiting is the event that has waited longest for a company; nil: none does. Those that can't be read step aside.
func (t *Tenants) firstWaiting(ctx context.Context, company string) (*tenant.Cause, error) {
	for {
		c, err := collectOne(ctx, t.store, "read what waits for a company", readWaiting, inboxFirstSQL, company)
		var unreadable *unreadableError
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return nil, nil
		case errors.As(err, &unreadable):
			if err := t.hold(ctx, &unreadable.row, unreadable.cause); err != nil {
				return nil, err
			}
		default:
			return c, err
		}
	}
}

// hold takes an event that waits out of its company's way: it can't be read, or Postgres refuses it. It stays in the inbox with the
// reason; the same event, delivered again, is tried again.
func (t *Tenants) hold(ctx context.Context, row *events.Envelope, why error) error {
	t.store.log.ErrorContext(ctx, "an event that has waited can't be applied; it is held in the inbox", "source", row.Source, "event_id", row.ID, "error", why)
	return t.fault(ctx, row, why, inboxHoldSQL)
}

// faulty leaves a result that can't be read unpublished. The effects stay.
func (t *Tenants) faulty(ctx context.Context, row *events.Envelope, why error) error {
	t.store.log.ErrorContext(ctx, "a result in the inbox can't be read; it is not published", "source", row.Source, "event_id", row.ID, "error", why)
	return t.fault(ctx, row, why, "UPDATE public.inbox SET fault = $3 WHERE source = $1 AND event_id = $2 AND fault IS NULL")
}

// Unpublishable notes that what is done can't be published, and why, which keeps it out of Unpublished.
func (t *Tenants) Unpublishable(ctx context.Context, one *Applied, why error) error {
	t.store.log.ErrorContext(ctx, "results can't be published; they are held in the inbox", "source", one.Source, "event_id", one.ID, "error", why)
	return t.fault(ctx, &events.Envelope{Source: one.Source, ID: one.ID}, why, "UPDATE public.inbox SET fault = $3 WHERE source = $1 AND event_id = $2 AND fault IS NULL")
}

func (t *Tenants) fault(ctx context.Context, row *events.Envelope, why error, sql string) error {
	_, err := t.store.exec(ctx, "note a fault in the inbox", sql, row.Source, row.ID, why.Error())
	return err
}

// settled reports whether the event is done, according to its row in the inbox, and returns what is still to be published of it.
func (x *tenantTx) settled(ctx context.Context) (one *Applied, done bool, err error) {
	switch {
	case x.prior.State == "" || x.prior.State == inboxWaiting || x.prior.State == inboxHeld && x.Faulty:
		return nil, false, nil
	case x.prior.Published || x.prior.Result == nil || x.Faulty:
		return nil, true, nil
	}
	cause := &x.cause.Event.Envelope
	if one, err = readApplied(cause, x.prior.Result); err != nil {
		return nil, true, x.tenants.faulty(ctx, cause, err)
	}
	return one, true, nil
}
