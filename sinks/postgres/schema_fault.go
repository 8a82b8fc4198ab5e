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

// ownFaults has errors of a batch's statements that come from the company's own objects returned as such.
func ownFaults(b *pgx.Batch, company string) {
	for _, q := range b.QueuedQueries {
		if !ownFunctions.MatchString(q.SQL) {
			continue
		}
		if q.Fn == nil {
			q.Exec(func(pgconn.CommandTag) error { return nil })
		}
		do := q.Fn
		q.Fn = func(results pgx.BatchResults) error {
			err := do(results)
			var sent *pgconn.PgError
			if errors.As(err, &sent) && isOwn(sent, company) {
				return &ownFaultError{sent}
			}
			return err
		}
	}
}

// ownStatement is the end of a line of an error's context, whatever the server's language: the functions above reach a company's objects
// by EXECUTE alone, because their names are made, and say by RAISE what is wrong with them. Statements on public tables are neither.
// (A RETURN QUERY may be of either kind; what it reads of the public tables was locked before.)
var ownStatement = regexp.MustCompile(`(?m) (EXECUTE|RAISE|RETURN QUERY)$`)

// isOwn reports whether an error of one of these functions comes from the company's own objects, and not from the installation's.
func isOwn(sent *pgconn.PgError, company string) bool {
	if sent.SchemaName == "public" || len(sent.Code) != 5 {
		return false
	}
	named := strings.Contains(sent.Message, tenant.SchemaOf(company))
	if !named && !ownStatement.MatchString(sent.Where) {
		return false
	}
	switch sent.Code {
	case "42501":
		// The company's tables belong to another user; or the service may not create schemas and roles, which affects every company.
		return named || ownTable.MatchString(sent.Message) || ownMigration.MatchString(sent.Where)
	case "0A000", "2BP01", "3F000", "55000", "55006", "P0001":
		return true
	}
	class := sent.Code[:2]
	return class == "42" || class == "54" || class == "XX"
}

// ownMigration matches the context of a statement of a company's migrations. Where the company's schema belongs to another user, Postgres
// passes over it in the search path, and what it refuses then is a temporary table, which is called after neither schema nor table.
var ownMigration = regexp.MustCompile(`(?m)migrate_company_schema\(text,bigint\).* EXECUTE$`)

// ownTable matches what a refusal for lack of rights names, where that is one of a company's tables by its bare name.
var ownTable = regexp.MustCompile(`\b(users|mt5_accounts|trading_positions)\w*$`)

// refusal is why an event is refused whose company's own objects stand in its way; nil: the error is something else, or the disk's.
func (e *ownFaultError) refusal(company string) *tier.Refusal {
	return &tier.Refusal{Code: tenant.SchemaFault, Message: fmt.Sprintf("the schema or role %s of the company stands in the way: %s (SQLSTATE %s)",
		tenant.SchemaOf(company), e.sent.Message, e.sent.Code)}
}

// damaged reports whether Postgres can't read the company's tables. Refusing events would not mend that, and they can be applied when
// the tables are restored.
func (e *ownFaultError) damaged() bool { return strings.HasPrefix(e.sent.Code, "XX") }

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
