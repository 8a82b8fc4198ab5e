package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
)

var (
	//go:embed books.sql
	booksSQL string
	//go:embed books_transactions.sql
	booksTransactionsSQL string
	//go:embed books_payments.sql
	booksPaymentsSQL string
	//go:embed books_effects.sql
	booksEffectsSQL string
	//go:embed books_history.sql
	booksHistorySQL string
	//go:embed books_directory.sql
	booksDirectorySQL string
	//go:embed books_users.sql
	booksUsersSQL string
	//go:embed books_companies.sql
	booksCompaniesSQL string
)

// Books is everything that is recorded of one company's subscription, money and users, read at one moment.
type Books struct {
	CompanyID    string
	Status       string // of the company; empty: it is not registered
	Currency     string
	Subscription *BookedSubscription // nil: there is no row
	Config       json.RawMessage     // nil: there is no row
	Transactions []BookedTransaction // by their time
	Payments     []BookedPayment
	Audit        []BookedEffect // the effects on the subscription, by the audit log
	History      []BookedEffect // the same by subscription_events
	Directory    []BookedUser   // the users, by user_directory
	HasSchema    bool           // with a table of users
	Unclosed     bool           // the company has been closed for a while, and its subscription is not
	ClosedAlone  bool           // the subscription has been closed for a while, and the company is not
	Users        []BookedUser   // the same by the company's own schema, if there is one
	// SchemaFault says why the company's own users can't be read; empty: they were, or there is no schema.
	SchemaFault string
}

// A BookedSubscription is what of a row of subscriptions follows from the history.
type BookedSubscription struct {
	Tier, Status           string
	PeriodStart, PeriodEnd time.Time
	Months                 int
	PriceMinor             int64        // of a month
	Limits                 *tier.Limits // that hold: with the overrides
	LimitsText             []byte       // as they are stored, JSON
	LimitsFault            string       // why Limits is nil
	GraceUntil             *time.Time
	RenewalUntil           *time.Time
	PaymentFailed          bool
	Expired                *tenant.Term
	Charged, Received      int64 // for its paid period, or the one that an expiry has ended
}

// A BookedTransaction is a row of billing_transactions.
type BookedTransaction struct {
	ID          string     `db:"transaction_id"`
	Type        string     `db:"transaction_type"`
	OldTier     string     `db:"old_tier"`
	NewTier     string     `db:"new_tier"`
	AmountMinor int64      `db:"amount_minor"`
	Currency    string     `db:"currency"`
	Lines       []byte     `db:"lines"` // JSON
	PeriodStart *time.Time `db:"period_start"`
	PeriodEnd   *time.Time `db:"period_end"`
	CreatedAt   time.Time  `db:"created_at"`
}

// A BookedPayment is a row of payments.
type BookedPayment struct {
	ID            string `db:"payment_id"`
	AmountMinor   int64  `db:"amount_minor"` // 0: not known
	Currency      string `db:"currency"`
	Status        string `db:"status"`
	TransactionID string `db:"transaction_id"` // empty: none
}

// A BookedEffect is one effect of an event on a subscription.
type BookedEffect struct {
	Seq        int64     `db:"seq"`
	Source     string    `db:"source"`
	EventID    string    `db:"event_id"`
	Action     string    `db:"action"`
	OccurredAt time.Time `db:"occurred_at"`
	Details    string    `db:"details"` // JSON
}

// A BookedUser is a user of a company. The directory has no tier and no limits.
type BookedUser struct {
	ID     string `db:"user_id"`
	Email  string `db:"email"`
	Status string `db:"status"`
	Tier   string `db:"tier"`
	Limits []byte `db:"limits"` // JSON; nil: null
}

// BookedCompanies returns up to limit companies behind a company, in the order of their ids: all of which anything is recorded, or only
// those of which an event was applied since a time.
func (s *Store) BookedCompanies(ctx context.Context, after string, limit int, since time.Time) ([]string, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, booksCompaniesSQL, after, limit, pgtype.Timestamptz{Time: since, Valid: !since.IsZero()})
	if err != nil {
		return nil, s.explain("list companies", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, s.explain("list companies", err)
	}
	return found, nil
}

// Books reads what is recorded of a company, all of it as it was at one moment.
//
// Which schemas and tables there are is not part of that moment: Postgres looks them up as they are now. A company that is purged
// meanwhile still has its status and no schema any more. So without a schema that can be read, it reads all once more.
func (s *Store) Books(ctx context.Context, company string) (*Books, error) {
	b, err := s.booksOnce(ctx, company)
	if err == nil && b.Status != "" && b.Status != tenant.Purged && (!b.HasSchema || b.SchemaFault != "") {
		return s.booksOnce(ctx, company)
	}
	return b, err
}

func (s *Store) booksOnce(ctx context.Context, company string) (*Books, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	doing := "read the books of company " + company
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, s.explain(doing, err)
	}
	// Given back in the middle of a transaction, a connection is closed, which ends the transaction.
	defer conn.Release()
	touchTenant(conn.Conn())
	b := &Books{CompanyID: company}
	batch := &pgx.Batch{}
	batch.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	batch.Queue(booksSQL, company).QueryRow(b.scan)
	queueRows(batch, &b.Transactions, booksTransactionsSQL, company)
	queueRows(batch, &b.Payments, booksPaymentsSQL, company)
	queueRows(batch, &b.Audit, booksEffectsSQL, company)
	queueRows(batch, &b.History, booksHistorySQL, company)
	queueRows(batch, &b.Directory, booksDirectorySQL, company)
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		return nil, s.explain(doing, err)
	}
	if b.HasSchema {
		if err := b.readUsers(ctx, conn.Conn(), s.timeout*3/4); err != nil {
			return nil, s.explain(doing, err)
		}
	}
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
		return nil, s.explain(doing, err)
	}
	return b, nil
}

// readUsers reads the users of the company's own schema. What is wrong with that concerns the company alone, unless it is the server: a
// lost connection (08), no room (53), a cancel or a shutdown (57), which a company's function has not raised. A table that is locked and a
// view that takes very long are the company's: the statement has less time than there is for all of it, so that Postgres can say so.
func (b *Books) readUsers(ctx context.Context, conn *pgx.Conn, within time.Duration) error {
	schema := pgx.Identifier{tenant.SchemaOf(b.CompanyID)}.Sanitize()
	if _, err := conn.Exec(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", within.Milliseconds())); err != nil {
		return err
	}
	began := time.Now()
	// A statement of every schema would fill the cache of statements.
	rows, err := conn.Query(ctx, fmt.Sprintf(booksUsersSQL, schema, schema), pgx.QueryExecModeExec)
	if err == nil {
		b.Users, err = pgx.CollectRows(rows, pgx.RowToStructByNameLax[BookedUser])
	}
	var sent *pgconn.PgError
	switch {
	case err == nil, conn.IsClosed(), ctx.Err() != nil:
		return err
	case !errors.As(err, &sent):
		b.SchemaFault = err.Error() // a column is of another type
	case sent.Code == queryCanceled && !raised(sent) && time.Since(began) >= within:
		b.SchemaFault = fmt.Sprintf("it was not read within %s: it is locked, or a view that takes longer", within)
	case len(sent.Code) == 5 && slices.Contains([]string{"08", "53", "57"}, sent.Code[:2]) && !raised(sent):
		return err
	case strings.HasPrefix(sent.Code, "22"), raised(sent):
		b.SchemaFault = refusalWords(sent) // Postgres' own may quote what is in the table, and a function's may say anything
	default:
		b.SchemaFault = sent.Message
	}
	return nil
}

// raised reports whether an error comes from a function's own RAISE. Its code is then whatever the function says.
func raised(sent *pgconn.PgError) bool {
	first, _, _ := strings.Cut(sent.Where, "\n")
	return strings.HasSuffix(first, " RAISE")
}

func (b *Books) scan(row pgx.Row) error {
	var subscribed bool
	var s BookedSubscription
	var start, end *time.Time
	var limits, expired []byte
	if err := row.Scan(&b.Status, &b.Currency, &subscribed, &s.Tier, &s.Status, &start, &end, &s.Months, &s.PriceMinor, &limits, &s.GraceUntil,
		&s.RenewalUntil, &s.PaymentFailed, &expired, &s.Charged, &s.Received, &b.Config, &b.HasSchema, &b.Unclosed, &b.ClosedAlone); err != nil {
		return err
	}
	if !subscribed {
		return nil
	}
	s.PeriodStart, s.PeriodEnd = start.UTC(), end.UTC()
	read, err := (limitsReader{}).read(limits)
	s.LimitsText = limits
	if s.Limits = &read; err != nil {
		s.Limits, s.LimitsFault = nil, err.Error()
	}
	if expired != nil {
		s.Expired = &tenant.Term{}
		if err := json.Unmarshal(expired, s.Expired); err != nil {
			s.Expired, s.LimitsFault = nil, "expired_term: "+err.Error()
		}
	}
	b.Subscription = &s
	return nil
}

// queueRows queues a query whose rows go into a list.
func queueRows[T any](b *pgx.Batch, into *[]T, sql string, args ...any) {
	b.Queue(sql, args...).Query(func(rows pgx.Rows) (err error) {
		*into, err = pgx.CollectRows(rows, pgx.RowToStructByNameLax[T])
		return err
	})
}
