package postgres

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

var (
	//go:embed queries/void_known.sql
	voidKnownSQL string
	//go:embed queries/void_wait.sql
	voidWaitSQL string
	//go:embed queries/void_put.sql
	voidPutSQL string
	//go:embed queries/void_claim.sql
	voidClaimSQL string
	//go:embed queries/void_defer.sql
	voidDeferSQL string
	//go:embed queries/void_fault.sql
	voidFaultSQL string
	//go:embed queries/void_backlog.sql
	voidBacklogSQL string
)

// A VoidRequest is a request to take usage back, held in the inbox until its usage is looked up. It waits alone: what comes behind it
// is applied.
type VoidRequest struct {
	Asks *events.UsageVoidRequested
	// Appended is when the broker took the request: usage that came before it may be meant.
	Appended time.Time

	cause *tenant.Cause
	at    time.Time // when its effect happens
}

// A voidRow is a row of void_claim.sql.
type voidRow struct {
	inboxText
	EffectAt time.Time
}

// ClaimVoids returns up to limit requests whose usage is to be looked up now. For a while no other process gets them. Those that can't be
// read step aside.
func (t *Tenants) ClaimVoids(ctx context.Context, limit int, lease time.Duration) ([]VoidRequest, error) {
	found, err := collect(ctx, t.store, "look for requests to take usage back", pgx.RowToStructByName[voidRow], voidClaimSQL, limit, lease)
	if err != nil {
		return nil, err
	}
	all := make([]VoidRequest, 0, len(found))
	for _, r := range found {
		row := events.Envelope{Source: r.Source, ID: r.EventID}
		c, err := readEvent(row, r.Text)
		var asks *events.UsageVoidRequested
		if err == nil {
			if asks, _ = c.Payload.(*events.UsageVoidRequested); asks == nil {
				err = errors.New("the event is no request to take usage back")
			}
		}
		if err != nil {
			if err := t.voidFault(ctx, &row, err); err != nil {
				return all, err
			}
			continue
		}
		all = append(all, VoidRequest{Asks: asks, Appended: c.Appended, cause: c, at: r.EffectAt.UTC()})
	}
	return all, nil
}

// DecideVoid decides a request whose usage was looked up; nil: there is none. It returns what is to be published, or nil where another process
// was faster. The error is a *BlockedError if the company can't go on now: try again later.
func (t *Tenants) DecideVoid(ctx context.Context, r *VoidRequest, usage *tenant.StoredUsage) (one *Applied, err error) {
	c := *r.cause
	c.Looked = &tenant.UsageLookup{At: r.at, Usage: usage}
	err = t.transaction(ctx, &c, nil, func(ctx context.Context, x *tenantTx) error {
		if x.prior.State != inboxHeld || x.Faulty {
			return nil
		}
		if x.state.Company == nil {
			return &stateError{fmt.Errorf("company %s has no row in public.companies, and the inbox holds a request of it", c.Event.Key)}
		}
		d, err := x.judge()
		if err != nil {
			return err
		}
		t.step(TenantDecided)
		one, err = x.write(ctx, d, x.prior.Fingerprint)
		return err
	})
	var refused *events.Rejection
	if errors.As(rejectStored(err), &refused) {
		return nil, t.voidFault(ctx, &c.Event.Envelope, refused)
	}
	return one, err
}

// DeferVoids puts requests off, each for longer the more look-ups were in vain. why says what they wait for.
func (t *Tenants) DeferVoids(ctx context.Context, requests []VoidRequest, why string) error {
	if len(requests) == 0 {
		return nil
	}
	sources, ids := make([]string, len(requests)), make([]string, len(requests))
	for i, r := range requests {
		sources[i], ids[i] = r.cause.Event.Source, r.cause.Event.ID
	}
	_, err := t.store.exec(ctx, "put off requests to take usage back", voidDeferSQL, sources, ids, why)
	return err
}

// A VoidBacklog counts the requests to take usage back that are not decided.
type VoidBacklog struct {
	Waiting int64
	Oldest  time.Duration // how long the first of them has waited
	Why     string        // what that waits for; empty: its turn
}

// VoidBacklog counts the requests to take usage back that are not decided.
func (t *Tenants) VoidBacklog(ctx context.Context) (VoidBacklog, error) {
	return collectOne(ctx, t.store, "count requests to take usage back", pgx.RowToStructByName[VoidBacklog], voidBacklogSQL)
}

// voidFault keeps a request out of the others' way that can't be read, or that Postgres refuses to store.
func (t *Tenants) voidFault(ctx context.Context, row *events.Envelope, why error) error {
	t.store.log.ErrorContext(ctx, "a request to take usage back can't be decided; it is held in the inbox", "source", row.Source, "event_id", row.ID, "error", why)
	return t.fault(ctx, row, why, voidFaultSQL)
}

// loadVoid queues the question whether the usage that the event takes back is taken back already.
func (x *tenantTx) loadVoid(b *pgx.Batch) {
	if p, ok := x.cause.Payload.(*events.UsageVoidRequested); ok {
		b.Queue(voidKnownSQL, x.cause.Event.Key, p.VoidID()).
			QueryRow(func(row pgx.Row) error { return row.Scan(&x.state.Voided) })
	}
}

// voids queues what a decision says of taking usage back: the row of the void, or that the request waits, or does so no more.
func (x *tenantTx) voids(b *pgx.Batch, d *tenant.Decision) {
	p, ok := x.cause.Payload.(*events.UsageVoidRequested)
	if !ok {
		return
	}
	company, e := x.state.CompanyID, x.cause.Event
	if d.Held {
		b.Queue(voidWaitSQL, e.Source, e.ID, company, p.VoidID(), d.At)
		return
	}
	if v := d.Void; v != nil {
		b.Queue(voidPutSQL, company, v.ID, v.Source, v.UsageID, v.Timestamp, e.Source, e.ID, d.At)
	}
	b.Queue("DELETE FROM public.void_requests WHERE source = $1 AND event_id = $2", e.Source, e.ID)
}

// maxVoid bounds the key and the data of a void, in bytes. A topic takes 1 MiB where its limit has not been changed, with the headers. A void
// repeats the texts of its usage, which may be longer in it than they were: as JSON, and with escapes.
const maxVoid = 1<<20 - 32<<10

// void writes an event that takes usage back: whole, because its id and its place are not those of other results. One that its topic might
// not take is refused, before anything is decided: it would be answered, and never be there.
func (one *inboxOutcome) void(o *tenant.Output, at time.Time) error {
	e, err := o.Void.Event(&events.Envelope{}, at)
	if err != nil {
		return err
	}
	if n := len(o.Key) + len(e.Data); n > maxVoid {
		return fmt.Errorf("the void would have %d bytes, and %d is the most that its topic is sure to take", n, maxVoid)
	}
	one.ID, one.Key, one.Data = e.ID, o.Key, e.Data
	if strings.Contains(o.Key, "\x00") || !utf8.ValidString(o.Key) {
		one.Key, one.KeyBytes = "", []byte(o.Key)
	}
	if bytes.Contains(e.Data, []byte(`\u0000`)) {
		one.Data, one.Bytes = nil, e.Data
	}
	return nil
}

// place gives a result the identity, key and data that are its own.
func (one *inboxOutcome) place(r *Result) {
	if one.ID != "" {
		r.Event.ID = one.ID
	}
	if one.Key != "" {
		r.Key = one.Key
	}
	if one.KeyBytes != nil {
		r.Key = string(one.KeyBytes)
	}
	if one.Bytes != nil {
		r.Event.Data = one.Bytes
	}
}
