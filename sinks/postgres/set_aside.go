package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

var (
	//go:embed queries/inbox_wait.sql
	inboxWaitSQL string
	//go:embed queries/block_put.sql
	blockPutSQL string
	//go:embed queries/block_retry.sql
	blockRetrySQL string
	//go:embed queries/blocks.sql
	blocksSQL string
)

// lockNotAvailable is the SQLSTATE of a wait for a lock that took too long.
const lockNotAvailable = "55P03"

// Reasons why a company can't go on.
const (
	BlockedByLock    = "lock"    // another session has locked rows or tables of the company
	BlockedByState   = "state"   // its rows in the public tables make no sense together: one is missing or can't be read
	BlockedBySchema  = "schema"  // what is due to it fails in its own schema
	BlockedByStorage = "storage" // Postgres can't read its tables
	BlockedBySize    = "slow"    // an event takes longer than one may
)

// A BlockedError says why a company can't go on now. It concerns this company alone, and may go away: the event is set aside in the
// inbox, the company's later events queue behind it, and it is tried again.
type BlockedError struct {
	Company string
	Reason  string
	By      string // the sessions that hold the lock; empty: not known
	Err     error
}

func (e *BlockedError) Error() string {
	return "company " + e.Company + " can't go on: " + e.Err.Error()
}

func (e *BlockedError) Unwrap() error { return e.Err }

// A stateError is a state of a company that can't be understood.
type stateError struct{ error }

func (e *stateError) Unwrap() error { return e.error }

// judged explains an error of the transaction of an event, as a *BlockedError if the company can't go on because of it. ctx is that of the
// caller, without the time that a transaction has.
func (x *tenantTx) judged(ctx context.Context, doing string, err error) error {
	blocked := &BlockedError{Company: x.cause.Event.Key, Err: explain(doing, err)}
	var sent *pgconn.PgError
	var state *stateError
	var own *ownFaultError
	switch {
	case errors.As(err, &state):
		blocked.Reason = BlockedByState
	case errors.As(err, &own) && ctx.Err() != nil: // it may be the caller's end that canceled the statement
		return blocked.Err
	case errors.As(err, &own) && own.blocks() != "":
		blocked.Reason = own.blocks()
	case errors.As(err, &own):
		return own // the event is refused
	case errors.As(err, &sent) && sent.Code == lockNotAvailable:
		blocked.Reason, blocked.By = BlockedByLock, x.watch.blockers()
		x.patience.spend(x.timeout)
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		blocked.Reason = BlockedBySize // where Postgres does not answer at all, it can't be noted either, and the partition waits
	default:
		return blocked.Err
	}
	return blocked
}

// judge judges the event by the rules, or by what is known of the company's schema.
func (x *tenantTx) judge() (*tenant.Decision, error) {
	if x.fault != nil {
		return &tenant.Decision{At: tenant.EffectTime(&x.state, x.cause.Event.Time), Refused: x.fault}, nil //nolint:nilerr // the refusal is the decision
	}
	if err := x.whole(); err != nil {
		return nil, err
	}
	if unlisted := x.tenants.rules.Unlisted(&x.state); unlisted != "" {
		x.tenants.store.sayUnlisted(unlisted, x.state.CompanyID)
	}
	d, err := x.tenants.rules.Decide(&x.state, x.cause)
	if err != nil {
		return nil, &stateError{err}
	}
	return d, nil
}

// whole checks that the company has the rows without which what an event does would be wrong. Decide looks for its subscription.
func (x *tenantTx) whole() error {
	c := x.state.Company
	switch {
	case c == nil:
		return nil
	case x.headless:
		return &stateError{fmt.Errorf("company %s has no row in public.company_heads; insert it, with sequence number and hash of the last record of its audit log", x.state.CompanyID)}
	case c.Status == tenant.Active && len(x.state.Config) == 0:
		return &stateError{fmt.Errorf("company %s has no configuration; insert its row into public.company_config", x.state.CompanyID)}
	}
	return nil
}

// refuse makes the next attempt refuse the event, if an error says that its company's schema stands in the way. What is due is not
// refused: it stays due.
func (a *attempt) refuse(err error) bool {
	var own *ownFaultError
	var blocked *BlockedError
	if !errors.As(err, &own) || errors.As(err, &blocked) || a.fault != nil {
		return false
	}
	if _, due := tenant.NamedDue(a.cause.Payload); due {
		return false
	}
	a.fault = own.refusal(a.cause.Event.Key)
	return true
}

// setAside lets an event wait in the inbox whose company can't go on, and notes why. Any other error comes back as it is.
func (t *Tenants) setAside(ctx context.Context, c *tenant.Cause, err error) error {
	_, due := tenant.NamedDue(c.Payload)
	var blocked *BlockedError
	var own *ownFaultError
	var refused *events.Rejection
	switch {
	case errors.As(err, &blocked):
	case errors.As(err, &own): // of what is due: events are refused
		blocked = &BlockedError{Company: c.Event.Key, Reason: BlockedBySchema, Err: err}
	case due && errors.As(err, &refused): // its state is not what it should be
		blocked = &BlockedError{Company: c.Event.Key, Reason: BlockedByState,
			Err: fmt.Errorf("apply %s of company %s, which is due: %s", c.Event.ID, c.Event.Key, refused.Error())}
	default:
		return err
	}
	text, err := writeEvent(c)
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	e := c.Event
	print := fingerprint(e)
	b.Queue(inboxWaitSQL, e.Source, inboxID(c), e.Type, e.Key, print, text, t.wait)
	b.Queue("SELECT fingerprint FROM public.inbox WHERE source = $1 AND event_id = $2", e.Source, inboxID(c)).
		QueryRow(func(row pgx.Row) error { return row.Scan(&print) })
	if err := t.block(ctx, blocked, b); err != nil {
		return err
	}
	if !sameEvent(print, e) {
		return conflict(e)
	}
	return nil
}

// block notes that a company can't go on, in one transaction with what is queued.
func (t *Tenants) block(ctx context.Context, why *BlockedError, queued *pgx.Batch) error {
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	var tries int
	queued.Queue(blockPutSQL, why.Company, why.Reason, why.Err.Error(), why.By).QueryRow(func(row pgx.Row) error { return row.Scan(&tries) })
	err := pgx.BeginFunc(ctx, t.store.pool, func(tx pgx.Tx) error { return tx.SendBatch(ctx, queued).Close() })
	if err != nil {
		return t.store.explain("set an event aside", err)
	}
	if tries%logBlockedEvery == 1 {
		t.store.log.WarnContext(ctx, "a company can't go on; its events are set aside in the inbox", "company_id", why.Company,
			"reason", why.Reason, "blocked_by", why.By, "tries", tries, "error", why.Err)
	}
	return nil
}

// logBlockedEvery is after how many tries it is logged again that a company can't go on.
const logBlockedEvery = 20

func conflict(e *events.Event) error {
	return events.Reject(events.Conflict, "the event %s of %s was taken before with other data", e.ID, e.Source)
}

// DrainAtOnce is how many events Drain applies at most, so that their results are published before there are very many.
const DrainAtOnce = 500

// Drain applies what has waited for a company that is registered now, or that can go on now, in the order in which it came. Where it
// returns DrainAtOnce events or more, others may be left. The error is a *BlockedError if the company can't go on yet.
func (t *Tenants) Drain(ctx context.Context, company string) ([]Applied, error) {
	done, err := t.drain(ctx, company)
	var blocked *BlockedError
	if !errors.As(err, &blocked) {
		return done, err
	}
	if err := t.block(ctx, blocked, &pgx.Batch{}); err != nil {
		return done, err
	}
	return done, blocked
}

// unblock notes that a company goes on: nothing of it is set aside any more.
func (t *Tenants) unblock(ctx context.Context, company string) error {
	n, err := t.store.exec(ctx, "note that a company goes on", "DELETE FROM public.company_blocks WHERE company_id = $1", company)
	if n > 0 {
		t.store.log.InfoContext(ctx, "a company goes on; what was set aside is applied", "company_id", company)
	}
	return err
}

// Retry returns up to limit companies that can't go on and are to be tried again, with Drain. For a while no other process gets them.
func (t *Tenants) Retry(ctx context.Context, limit int) ([]string, error) {
	return collect(ctx, t.store, "look for companies to be tried again", pgx.RowTo[string], blockRetrySQL, limit)
}

// A Block is a company that can't go on.
type Block struct {
	Company string `db:"company_id"`
	Reason  string
	Detail  string
	By      string `db:"blocked_by"` // the sessions that hold a lock; empty: not known
	Since   time.Time
	Tries   int
	Waiting int64 // events that are set aside
}

func (b Block) String() string {
	text := fmt.Sprintf("company %s can't go on since %s (%s), %d events wait", b.Company, b.Since.Format(time.RFC3339), b.Reason, b.Waiting)
	if b.By != "" {
		text += ", blocked by " + b.By
	}
	return text
}

// Blocked returns up to limit companies that can't go on, those that have stood still for longest first.
func (t *Tenants) Blocked(ctx context.Context, limit int) ([]Block, error) {
	found, err := collect(ctx, t.store, "list the companies that can't go on", pgx.RowToStructByName[Block], blocksSQL, limit)
	for i := range found {
		found[i].Since = found[i].Since.UTC()
	}
	return found, err
}
