package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
)

// Tenants applies events to companies: each in one transaction that holds the event's identity, its effects, the record of them
// and what is to be published. So an event that arrives again is found done, whichever process did it and whatever broke.
//
// Everything that happens to a company happens under the company's lock, which is the first thing a transaction takes.
type Tenants struct {
	store *Store
	rules *tenant.Rules
	wait  time.Duration
	step  func(TenantStep)

	timeout  time.Duration // of a transaction
	patience lockPatience  // of the events that partitions bring
	mark     publishedMark // where to look for what is not published
}

// TenantsConfig is what Tenants needs.
type TenantsConfig struct {
	Rules *tenant.Rules
	// Wait is how long an event waits for a company that is not registered. Default: DefaultWait.
	Wait time.Duration
	// Timeout is how long one transaction may take: a change of tier of a company with very many users, say. Default: 1m.
	Timeout time.Duration
	// Step is called with what is about to happen, or has happened. For tests; default: nothing is.
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
	// tenantTries is how often a transaction is begun where others are faster.
	tenantTries = 5
	// longestIdentity is the size of a source and an id together, in bytes, up to which an index can hold them.
	longestIdentity = 2000
)

// DefaultWait is how long an event waits for its company.
const DefaultWait = 15 * time.Minute

// Tenants returns what applies events to the companies of this store.
func (s *Store) Tenants(cfg TenantsConfig) *Tenants {
	cfg.Wait = cmp.Or(cfg.Wait, DefaultWait)
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Step == nil {
		cfg.Step = func(TenantStep) {}
	}
	return &Tenants{store: s, rules: cfg.Rules, wait: cfg.Wait, step: cfg.Step, timeout: cfg.Timeout}
}

// A Place is where an event stood in its topic.
type Place struct {
	Partition int
	Offset    int64
	Appended  time.Time // when the broker took it
}

// Apply brings an event to its end: it is applied, refused by a rule, kept until its company is registered, or found to be done
// already; or it waits with its company, which can't go on (see BlockedError). Events that have to come before it, because they wait for
// the same company or are due, are applied first. The result
// names all events that are done and whose results are not known to be published: publish them, and call MarkPublished.
//
// Errors: an *events.Rejection for what can't be applied at all; anything else is judged by Classify.
func (t *Tenants) Apply(ctx context.Context, e *events.Event, at Place) ([]Applied, error) {
	payload, err := e.Payload()
	if err != nil {
		return nil, err
	}
	if len(e.Source)+len(e.ID) > longestIdentity {
		return nil, events.Reject(events.MalformedEnvelope, "source and id together have %d bytes, more than %d", len(e.Source)+len(e.ID), longestIdentity)
	}
	if rejection := checkSchedule(e, payload); rejection != nil {
		return nil, rejection
	}
	if err := e.CheckYear(); err != nil {
		return nil, err
	}
	c := &tenant.Cause{Event: e, Payload: payload, Partition: at.Partition, Offset: at.Offset, Appended: at.Appended}
	done, err := t.bring(ctx, c, &t.patience, false)
	return done, t.setAside(ctx, c, err)
}

// checkSchedule refuses events in the name of the service's own schedule that are none of it, and events of the schedule in other
// names.
func checkSchedule(e *events.Event, payload any) *events.Rejection {
	due, isDue := tenant.NamedDue(payload)
	switch {
	case isDue != (e.Source == tenant.DueSource):
		return events.Reject(events.MalformedEnvelope, "%s and %s are this service's own events, of the source %s, and that source has no others",
			events.TypeSubscriptionDue, events.TypeCompanyDue, tenant.DueSource)
	case isDue && tenant.DueCause(e.Key, due).Event.ID != e.ID, isDue && !e.Time.Equal(due.At):
		return events.Reject(events.MalformedEnvelope, "the id and the time are not those of what is due")
	}
	return nil
}

// An attempt is how an event is to be applied.
type attempt struct {
	cause      *tenant.Cause
	patience   *lockPatience
	emailTaken bool // the email it names is another user's
	blocked    bool // the first event that waits for the company was tried and goes on waiting
	// fault is why it is to be refused: its company's own schema stands in the way; nil: nothing is known to.
	fault *tier.Refusal
}

// An outcome is what one transaction has come to.
type outcome struct {
	step tenant.Step
	done *Applied      // to be published; nil: nothing is, or not any more
	head *tenant.Cause // the event to bring to its end before, if the step is HeadFirst
}

// bring brings an event to its end, with everything that has to happen before it, one transaction after the other; if it drains, it
// goes on with what waits for the company, in the order in which it came, until there are DrainAtOnce results. The error may be a
// *BlockedError.
func (t *Tenants) bring(ctx context.Context, c *tenant.Cause, patience *lockPatience, drains bool) ([]Applied, error) {
	var all []Applied
	company := c.Event.Key
	todo := []attempt{{cause: c, patience: patience}} // the last one is to be done before the one in front of it
	due := ""                                         // the id of what was due and done last
	for len(todo) > 0 {
		last := len(todo) - 1
		out, err := t.once(ctx, todo[last])
		if err != nil && todo[last].cause != c {
			err = t.holdRefused(ctx, todo[last].cause, err) // which is not the fault of the event that comes after it
		}
		if err != nil {
			return all, err
		}
		if out.done != nil {
			all = append(all, *out.done)
		}
		switch out.step {
		case tenant.DueFirst: // and then the same event again
			if out.done != nil && out.done.ID == due {
				return all, fmt.Errorf("%s of company %s was done and is due again", due, company)
			} else if out.done != nil {
				due = out.done.ID
			}
		case tenant.HeadFirst:
			todo = append(todo, attempt{cause: out.head, patience: patience})
		default:
			todo = todo[:last]
			if _, registered := c.Payload.(*events.CompanyRegistered); registered && last == 0 && out.step == tenant.Apply {
				drains = true
			}
			if out.step == tenant.Enqueue && last > 0 {
				todo[last-1].blocked = true
			}
			if len(todo) > 0 || !drains || out.step == tenant.Enqueue || len(all) >= DrainAtOnce {
				continue
			}
			head, err := t.firstWaiting(ctx, company)
			if err == nil && head == nil {
				err = t.unblock(ctx, company)
			}
			if err != nil {
				return all, err
			}
			if head != nil {
				todo = append(todo, attempt{cause: head, patience: patience})
			}
		}
	}
	return all, nil
}

// drain applies what has waited for a company, in the order in which it came. The error may be a *BlockedError.
func (t *Tenants) drain(ctx context.Context, company string) ([]Applied, error) {
	var all []Applied
	for len(all) < DrainAtOnce {
		head, err := t.firstWaiting(ctx, company)
		switch {
		case err != nil:
			return all, err
		case head == nil:
			return all, t.unblock(ctx, company)
		}
		done, err := t.bring(ctx, head, nil, true)
		all = append(all, done...)
		if err == nil {
			return all, nil
		}
		if err := t.holdRefused(ctx, head, err); err != nil {
			return all, err
		}
	}
	return all, nil
}

// holdRefused keeps an event that has waited and that Postgres refuses out of the way of those behind it. Any other error stays one.
func (t *Tenants) holdRefused(ctx context.Context, c *tenant.Cause, err error) error {
	var refused *events.Rejection
	if !errors.As(err, &refused) {
		return err
	}
	return t.hold(ctx, &events.Envelope{Source: c.Event.Source, ID: inboxID(c)}, refused)
}

// errRaced says that a concurrent transaction invalidated what was read.
var errRaced = errors.New("another transaction was faster")

// once does the next step for an event in one transaction, again where others were faster.
func (t *Tenants) once(ctx context.Context, a attempt) (outcome, error) {
	for try := 1; ; try++ {
		out, err := t.attempt(ctx, a)
		err = t.confirm(ctx, a.cause, err)
		var sent *pgconn.PgError
		var unreadable *unreadableError
		switch {
		case err == nil:
			return out, nil
		case errors.As(err, &unreadable):
			if err := t.hold(ctx, &unreadable.row, unreadable.cause); err != nil {
				return outcome{}, err
			}
			continue
		case a.refuse(err):
			continue
		case errors.As(err, &sent) && sent.Code == uniqueViolation && sent.ConstraintName == emailTaken:
			a.emailTaken = true
		case errors.As(err, &sent) && (sent.Code == uniqueViolation || sent.Code == serializationFailure || sent.Code == deadlockDetected), errors.Is(err, errRaced):
		default:
			return outcome{}, rejectStored(err)
		}
		if try == tenantTries {
			return outcome{}, rejectStored(err)
		}
	}
}

// SQLSTATEs after which a transaction is tried again. Source: PostgreSQL's documentation, appendix A.
const (
	uniqueViolation      = "23505"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	queryCanceled        = "57014"
)

// rejectStored makes a rejection of an error that says the event's data can't be stored: it alone has to step aside.
func rejectStored(err error) error {
	var sent *pgconn.PgError
	if errors.As(err, &sent) && len(sent.Code) == 5 && (sent.Code[:2] == "22" || sent.Code[:2] == "23") {
		return events.Reject(events.RejectedByStore, "Postgres refuses it: %s", refusalWords(sent))
	}
	return err
}

// attempt is one transaction.
func (t *Tenants) attempt(ctx context.Context, a attempt) (out outcome, err error) {
	err = t.transaction(ctx, a.cause, a.patience, func(ctx context.Context, x *tenantTx) error {
		x.state.EmailTaken, x.state.Queue.Blocked, x.fault = a.emailTaken, a.blocked || x.Blocked, a.fault
		out, err = x.run(ctx)
		return err
	})
	return out, err
}

// transaction begins a transaction for an event and has something done in it. If that has not committed, it is undone.
func (t *Tenants) transaction(ctx context.Context, c *tenant.Cause, patience *lockPatience, do func(context.Context, *tenantTx) error) error {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	doing := fmt.Sprintf("apply %s of company %s", c.Event.Type, c.Event.Key)
	conn, err := t.store.pool.Acquire(ctx)
	if err != nil {
		return t.store.explain(doing, err)
	}
	defer func() {
		// Given back in the middle of a transaction, a connection is closed, which ends the transaction. After a wait for a lock in vain
		// it is kept: a new one costs the other companies more than the wait.
		if conn.Conn().PgConn().TxStatus() == 'E' {
			_, _ = conn.Exec(ctx, "ROLLBACK") // or else it is closed
		}
		conn.Release()
	}()
	x := &tenantTx{tenants: t, conn: conn.Conn(), cause: c, patience: patience, timeout: patience.timeout(), watch: t.watchLocks(ctx, conn.Conn().PgConn().PID())}
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
	fault   *tier.Refusal // see attempt
	watch   *lockWatch

	patience *lockPatience
	timeout  time.Duration // of a lock that another session holds
	ended    bool          // committed
	lockRow

	state tenant.State
	last  *time.Time // of the last effect of either topic
	audit auditHead
	prior inboxRow

	headless bool // see loadedRow
}

// run does the next step for the event, and commits if it has written anything.
func (x *tenantTx) run(ctx context.Context) (outcome, error) {
	c, s := x.cause, &x.state
	print := x.prior.Fingerprint
	_, isDue := tenant.NamedDue(c.Payload) // which is done when the state says so
	switch {
	case isDue || x.prior.State == "":
		print = fingerprint(c.Event)
	case !sameEvent(print, c.Event):
		return outcome{}, conflict(c.Event)
	default:
		if one, done, err := x.settled(ctx); done || err != nil {
			return outcome{step: tenant.Drop, done: one}, err
		}
	}
	out := outcome{step: tenant.Next(s, c)}
	if x.fault != nil && out.step == tenant.DueFirst {
		out.step = tenant.Apply // it is refused, and what is due stays due
	}
	var err error
	switch out.step {
	case tenant.Drop:
		err = x.drop(ctx)
	case tenant.Enqueue:
		if s.Queue.Own == 0 {
			err = x.waits(ctx, print)
		}
	case tenant.HeadFirst:
		out.head, err = x.firstWaiting(ctx)
	case tenant.DueFirst:
		out.done, err = x.applyDue(ctx)
	case tenant.Apply:
		out.done, err = x.decide(ctx, print)
	}
	return out, err
}

// decide decides the event and writes what it does.
func (x *tenantTx) decide(ctx context.Context, print []byte) (*Applied, error) {
	d, err := x.judge()
	if err != nil {
		return nil, err
	}
	x.tenants.step(TenantDecided)
	return x.write(ctx, d, print)
}

// applyDue does the first thing that is due, in place of the event. It is caused by its own identity, wherever it is found.
func (x *tenantTx) applyDue(ctx context.Context) (*Applied, error) {
	due := x.state.DueBefore(x.cause.Payload)[0]
	c := tenant.DueCause(x.state.CompanyID, due)
	c.Partition, c.Appended = x.cause.Partition, x.cause.Appended
	x.cause = c
	return x.decide(ctx, fingerprint(c.Event))
}

func (x *tenantTx) rollback(ctx context.Context) error {
	if _, err := x.conn.Exec(ctx, "ROLLBACK"); err != nil {
		return explain("end a transaction", err)
	}
	return nil
}
