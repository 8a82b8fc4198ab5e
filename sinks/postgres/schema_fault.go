package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
)

//go:embed queries/schema_taken.sql
var schemaTakenSQL string

// An ownFaultError is an error of a company's own objects: its schema or role is missing, broken or taken. It concerns this company
// alone, whatever its code means elsewhere.
type ownFaultError struct{ sent *pgconn.PgError }

func (e *ownFaultError) Error() string { return e.sent.Error() }

func (e *ownFaultError) Unwrap() error { return e.sent }

// ownFunctions are the functions that work on a company's own schema and role, and on the public tables beside.
var ownFunctions = regexp.MustCompile(`public\.(create_company_schema|migrate_company_schema|drop_company_schema|tenant_user_put|tenant_user_remove|seat_users)\(`)

// checkDeferred has the checks of a company's own tables made that would be made with the commit, where what fails could be anything. None of
// the public tables has such checks.
const checkDeferred = "SET CONSTRAINTS ALL IMMEDIATE"

// ownFaults has errors of a batch's statements that come from the company's own objects returned as such, and those of checks that its
// tables put off to the commit.
func ownFaults(b *pgx.Batch, company string) {
	own := false
	for _, q := range b.QueuedQueries {
		if ownFunctions.MatchString(q.SQL) {
			markOwn(q, company)
			own = true
		}
	}
	if own {
		markOwn(b.Queue(checkDeferred), company)
	}
}

func markOwn(q *pgx.QueuedQuery, company string) {
	if q.Fn == nil {
		q.Exec(func(pgconn.CommandTag) error { return nil })
	}
	do := q.Fn
	q.Fn = func(results pgx.BatchResults) error {
		err := do(results)
		var sent *pgconn.PgError
		if errors.As(err, &sent) && isOwn(sent, company, q.SQL) {
			return &ownFaultError{sent}
		}
		return err
	}
}

// ownStatement is the end of a line of an error's context, whatever the server's language: the functions above reach a company's objects
// by EXECUTE alone, because their names are made, and say by RAISE what is wrong with them. Statements on public tables are neither.
// (A RETURN QUERY may be of either kind; what it reads of the public tables was locked before.)
var ownStatement = regexp.MustCompile(`(?m) (EXECUTE|RAISE|RETURN QUERY)$`)

// isOwn reports whether an error of a statement that works on the company's own objects comes from these, and not from the installation or
// from what the event says. Triggers, checks, policies and views of a company may fail with any code there is, so all are its own but
// those that say what the server lacks.
func isOwn(sent *pgconn.PgError, company, statement string) bool {
	if sent.SchemaName == "public" || len(sent.Code) != 5 {
		return false
	}
	schema := tenant.SchemaOf(company)
	named := sent.SchemaName == schema || strings.Contains(sent.Message, schema)
	if !named && statement != checkDeferred && !ownStatement.MatchString(sent.Where) {
		return false
	}
	switch sent.Code {
	case uniqueViolation:
		return sent.ConstraintName != emailTaken // the event names the address of another user
	case lockNotAvailable:
		return false // see judged
	case "42501":
		// The service may not create or drop schemas and roles, which affects every company; anything else that it may not is the company's:
		// its tables belong to another user, have policies, or a trigger that does what the service may not.
		return named || !makesSchema.MatchString(statement) || ownTable.MatchString(sent.Message) || ownMigration.MatchString(sent.Where)
	case queryCanceled:
		return true
	}
	if raised(sent) {
		return true
	}
	switch sent.Code[:2] {
	case "08", "25", "28", "53", "57": // a connection, a server that is read-only, a login, a disk that is full, a server that stops
		return false
	}
	return true
}

// emailTaken is the constraint, of a company's users, that an event may break.
const emailTaken = "users_email_key"

// makesSchema matches a statement that makes or drops a schema and a role.
var makesSchema = regexp.MustCompile(`public\.(create|drop)_company_schema\(`)

// ownMigration matches the context of a statement of a company's migrations. Where the company's schema belongs to another user, Postgres
// passes over it in the search path, and what it refuses then is a temporary table, which is called after neither schema nor table.
var ownMigration = regexp.MustCompile(`(?m)migrate_company_schema\(text,bigint\).* EXECUTE$`)

// ownTable matches what a refusal for lack of rights names, where that is one of a company's tables by its bare name.
var ownTable = regexp.MustCompile(`\b(users|mt5_accounts|trading_positions)\w*"?$`)

// refusal is why an event is refused whose company's own objects stand in its way; nil: the error is something else, or the disk's.
func (e *ownFaultError) refusal(company string) *tier.Refusal {
	return &tier.Refusal{Code: tenant.SchemaFault, Message: fmt.Sprintf("the schema or role %s of the company stands in the way: %s (SQLSTATE %s)",
		tenant.SchemaOf(company), e.sent.Message, e.sent.Code)}
}

// blocks is why the company can't go on, where refusing its events would be wrong, because they can be applied when that is over; empty:
// they are refused.
func (e *ownFaultError) blocks() string {
	switch {
	case e.sent.Code == queryCanceled: // a timeout of statements, or a person
		return BlockedBySize
	case strings.HasPrefix(e.sent.Code, "40"): // again and again: see once
		return BlockedByLock
	case strings.HasPrefix(e.sent.Code, "XX"), strings.HasPrefix(e.sent.Code, "58"): // its tables can't be read
		return BlockedByStorage
	}
	return ""
}

// confirm looks again at a fault of a company's own objects. A company that registers has none, unless something is there by the name of
// its schema or role: without that, what failed is the same for every company.
func (t *Tenants) confirm(ctx context.Context, c *tenant.Cause, err error) error {
	var own *ownFaultError
	if _, registers := c.Payload.(*events.CompanyRegistered); !registers || !errors.As(err, &own) {
		return err
	}
	there, lookErr := collectOne(ctx, t.store, "look for a company's schema", pgx.RowTo[bool], schemaTakenSQL, tenant.SchemaOf(c.Event.Key))
	if lookErr != nil {
		return lookErr
	}
	if there {
		return err
	}
	return explain("make the schema of a company", own.sent)
}
