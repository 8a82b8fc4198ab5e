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
	"tenantflow/internal/tier"
)

//go:embed tenant_load.sql
var tenantLoadSQL string

// Tenants applies events to companies: each in one transaction that holds the event's identity, its effects, the record of them
// and what is to be published. So an event that comes again finds itself done, whoever has done it and whatever broke.
//
// Everything that happens to a company happens under the company's lock, which is the first thing a transaction takes.
type Tenants struct {
	store *Store
	rules *tenant.Rules
	wait  time.Duration
	step  func(TenantStep)

	timeout time.Duration // of a transaction
}

// TenantsConfig is what Tenants needs.
type TenantsConfig struct {
	Rules *tenant.Rules
	// Wait is how long an event waits for a company that is not registered. Default: 15m.
	Wait time.Duration
	// Timeout is how long one transaction may take: a change of tier of a company with very many users, say. Default: 1m.
	Timeout time.Duration
	// Step is told what is about to happen, or has happened. For tests; default: nobody.
	Step func(TenantStep)
}

// A TenantStep is a place in the course of an event where a process may die.
type TenantStep string

// The steps of an event in Postgres.
const (
	TenantDecided   TenantStep = "decided"   // it is known what the event does; nothing is written
	TenantWritten   TenantStep = "written"   // its effects are written, but not committed
	TenantCommitted TenantStep = "committed" // all of it is durable
)

const (
	// tenantTries is how often a transaction is begun anew because another one was faster.
	tenantTries = 5
	// longestIdentity is the size of a source and an id together, in bytes, up to which an index can hold them.
	longestIdentity = 2000
)

// Tenants returns what applies events to the companies of this store.
func (s *Store) Tenants(cfg TenantsConfig) *Tenants {
	if cfg.Wait == 0 {
		cfg.Wait = 15 * time.Minute
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Step == nil {
		cfg.Step = func(TenantStep) {}
	}
	return &Tenants{store: s, rules: cfg.Rules, wait: cfg.Wait, step: cfg.Step, timeout: cfg.Timeout}
}

// Apply brings an event to its end: it is applied, refused by a rule, kept until its company is registered, or found to be done
// already; or it waits with its company, which can't go on (see BlockedError). Events that have to come before it, because they wait for
// the same company or are due, are applied first. The result
// names all events that are done and whose results are not known to be published: publish them, and tell MarkPublished.
//
// Errors: an *events.Rejection for what can't be applied at all; anything else is judged by Classify.
func (t *Tenants) Apply(ctx context.Context, e *events.Event, partition int) ([]Applied, error) {
	payload, err := e.Payload()
	if err != nil {
		return nil, err
	}
	if len(e.Source)+len(e.ID) > longestIdentity {
		return nil, events.Reject(events.MalformedEnvelope, "source and id together have %d bytes, more than %d", len(e.Source)+len(e.ID), longestIdentity)
	}
	if e.Source == tenant.DueSource {
		// Something due whose identity is taken could never happen, and would hold up its partition.
		return nil, events.Reject(events.MalformedEnvelope, "the source %s is this service's own, for what happens by itself", e.Source)
	}
	if err := e.CheckYear(); err != nil {
		return nil, err
	}
	c := &tenant.Cause{Event: e, Payload: payload, Partition: partition}
	done, err := t.apply(ctx, c)
	return done, t.setAside(ctx, c, err)
}

// apply is Apply, for what may also have come about by itself.
func (t *Tenants) apply(ctx context.Context, c *tenant.Cause) ([]Applied, error) {
	var all []Applied
	a := attempt{cause: c}
	for {
		one, first, err := t.once(ctx, a)
		if err != nil {
			return all, err
		}
		if first == nil {
			if one != nil {
				all = append(all, *one)
			}
			if _, registered := c.Payload.(*events.CompanyRegistered); !registered {
				return all, nil
			}
			rest, err := t.drain(ctx, c.Event.Key)
			return append(all, rest...), err
		}
		before, err := t.before(ctx, first)
		all = append(all, before...)
		switch {
		case a.refuse(err): // what is due to the company fails in its schema, so the event does too
			continue
		case err != nil:
			return all, err
		}
		// What is due again at the very time at which it was done was set back by hand, and is left alone.
		_, due := first.Payload.(*tenant.Due)
		a.notDue = due && len(before) == 0
	}
}

// before applies what has to come before another event. What Postgres refuses of it is not that other event's fault.
func (t *Tenants) before(ctx context.Context, first *tenant.Cause) ([]Applied, error) {
	done, err := t.apply(ctx, first)
	var refused *events.Rejection
	if !errors.As(err, &refused) {
		return done, err
	}
	if _, due := first.Payload.(*tenant.Due); due {
		return done, refusedDue(first, refused)
	}
	return done, t.hold(ctx, &first.Event.Envelope, refused)
}

// An attempt is how an event is to be applied.
type attempt struct {
	cause      *tenant.Cause
	emailTaken bool // the email it names is another user's
	notDue     bool // nothing has to come before it because it is due
	// fault is why it is to be refused: its company's own schema stands in the way; nil: nothing is known to.
	fault *tier.Refusal
}

// drain applies what has waited for a company, in the order in which it came. The error may be a *BlockedError.
func (t *Tenants) drain(ctx context.Context, company string) ([]Applied, error) {
	var all []Applied
	for {
		c, err := t.firstWaiting(ctx, company)
		switch {
		case err != nil:
			return all, err
		case c == nil:
			return all, t.unblock(ctx, company)
		}
		done, err := t.before(ctx, c)
		all = append(all, done...)
		if err != nil || len(all) >= DrainAtOnce {
			return all, err
		}
		if len(done) == 0 {
			again, err := t.firstWaiting(ctx, company)
			if err != nil || again == nil || again.Event.Source == c.Event.Source && again.Event.ID == c.Event.ID {
				return all, err // it is still to wait
			}
		}
	}
}

// errRaced says that another transaction was faster, so that what was read is not true any more.
var errRaced = errors.New("another transaction was faster")

// once applies one event in one transaction, again where others were faster. It returns what is to be published: nil if there
// is nothing, because the event waits or was published before. If something has to come before the event, nothing was done and
// first is that.
func (t *Tenants) once(ctx context.Context, a attempt) (one *Applied, first *tenant.Cause, err error) {
	for try := 1; ; try++ {
		one, first, err = t.attempt(ctx, a)
		err = t.confirm(ctx, a.cause, err)
		var sent *pgconn.PgError
		var unreadable *unreadableError
		switch {
		case err == nil:
			return one, first, nil
		case errors.As(err, &unreadable):
			if err := t.hold(ctx, &unreadable.row, unreadable.cause); err != nil {
				return nil, nil, err
			}
			continue
		case a.refuse(err):
			continue
		case errors.As(err, &sent) && sent.Code == uniqueViolation && sent.SchemaName != "public":
			a.emailTaken = true // of the tenant's own tables, only the users' email is the event's to choose
		case errors.As(err, &sent) && (sent.Code == uniqueViolation || sent.Code == serializationFailure || sent.Code == deadlockDetected), errors.Is(err, errRaced):
		default:
			return nil, nil, rejectStored(err)
		}
		if try == tenantTries {
			return nil, nil, rejectStored(err)
		}
	}
}

// SQLSTATEs that a transaction is begun anew for. Source: PostgreSQL's documentation, appendix A.
const (
	uniqueViolation      = "23505"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
)

// rejectStored makes a rejection of an error that says the event's data can't be stored: it alone has to step aside.
func rejectStored(err error) error {
	var sent *pgconn.PgError
	if errors.As(err, &sent) && len(sent.Code) == 5 && (sent.Code[:2] == "22" || sent.Code[:2] == "23") {
		return events.Reject(events.RejectedByStore, "Postgres refuses it: %s (SQLSTATE %s)", sent.Message, sent.Code)
	}
	return err
}

// attempt is one transaction.
func (t *Tenants) attempt(ctx context.Context, a attempt) (one *Applied, first *tenant.Cause, err error) {
	err = t.transaction(ctx, a.cause, func(ctx context.Context, x *tenantTx) error {
		x.state.EmailTaken, x.notDue, x.fault = a.emailTaken, a.notDue, a.fault
		one, first, err = x.run(ctx)
		return err
	})
	return one, first, err
}

// transaction begins a transaction for an event and has something done in it. If that has not committed, it is undone.
func (t *Tenants) transaction(ctx context.Context, c *tenant.Cause, do func(context.Context, *tenantTx) error) error {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	doing := fmt.Sprintf("apply %s of company %s", c.Event.Type, c.Event.Key)
	conn, err := t.store.pool.Acquire(ctx)
	if err != nil {
		return explain(doing, err)
	}
	// Given back in the middle of a transaction, a connection is closed, which ends the transaction.
	defer conn.Release()
	x := &tenantTx{tenants: t, conn: conn.Conn(), cause: c, watch: t.watchLocks(ctx, conn.Conn().PgConn().PID())}
	defer x.watch.stop()
	if err := x.begin(ctx); err != nil {
		return x.judged(caller, doing, err)
	}
	err = do(ctx, x)
	var rejection *events.Rejection
	switch {
	case errors.As(err, &rejection):
		return errors.Join(err, x.rollback(ctx))
	case err != nil:
		return x.judged(caller, doing, err)
	case !x.ended:
		return x.rollback(ctx)
	}
	t.step(TenantCommitted)
	return nil
}

// A tenantTx is the transaction of one event.
type tenantTx struct {
	tenants *Tenants
	conn    *pgx.Conn
	cause   *tenant.Cause
	notDue  bool          // see attempt
	fault   *tier.Refusal // see attempt
	blocked bool          // the company can't go on
	watch   *lockWatch
	ended   bool // committed

	state     tenant.State
	audit     auditHead
	prior     inboxRow
	firstWait int64 // 0: nothing waits for the company
}

// run does what there is to do, and commits if it has written anything.
func (x *tenantTx) run(ctx context.Context) (*Applied, *tenant.Cause, error) {
	c, s := x.cause, &x.state
	print := x.prior.fingerprint
	if x.prior.state == "" {
		print = fingerprint(c.Event)
	} else if !sameEvent(print, c.Event) {
		if _, due := c.Payload.(*tenant.Due); due {
			return nil, nil, &stateError{fmt.Errorf("the identity %s of something that is due was used by another event", c.Event.ID)}
		}
		return nil, nil, conflict(c.Event)
	}
	if one, done, err := x.settled(ctx); done || err != nil {
		return one, nil, err
	}
	_, registers := c.Payload.(*events.CompanyRegistered)
	due, isDue := c.Payload.(*tenant.Due)
	switch {
	case isDue && due.ByClock && x.firstWait != 0:
		return nil, nil, nil // there will be another time
	case x.queues():
		return nil, nil, x.waits(ctx, print)
	case s.Company == nil && !registers:
		if x.prior.state == inboxWaiting {
			return nil, nil, nil
		}
		return nil, nil, x.waits(ctx, print)
	case s.Company != nil && !isDue && x.firstWait != 0 && x.firstWait != x.prior.seq:
		first, err := x.firstWaiting(ctx)
		return nil, first, err
	case x.fault != nil:
	case isDue && !s.IsOver(c.Event.Time):
		return nil, nil, nil // it was due, and something has come in between
	case !isDue && !x.notDue && tenant.IsDue(s, c.Payload, tenant.EffectTime(s, c.Event.Time)):
		return nil, tenant.DueCause(s), nil
	}
	d, err := x.decide()
	if err != nil {
		return nil, nil, err
	}
	x.tenants.step(TenantDecided)
	one, err := x.write(ctx, d, print)
	return one, nil, err
}

func (x *tenantTx) rollback(ctx context.Context) error {
	if _, err := x.conn.Exec(ctx, "ROLLBACK"); err != nil {
		return explain("end a transaction", err)
	}
	return nil
}
