package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"tenantflow/internal/certs"
)

// A Class says what to do about an error of Postgres.
type Class int

// The classes of errors.
const (
	Transient Class = iota // wait and try again, for as long as it takes
	Fatal                  // the configuration or the schema is wrong; a person has to act
)

// migrate is what to do when the schema is not the one this version knows.
const migrate = `run "tenantflow migrate"`

// fatalStates are the errors that no amount of waiting mends, by SQLSTATE or by its first two characters, with what to do
// about them. The list is closed: whatever is not in it waits, visibly. Not in it are, for example, a lost connection
// (08), a rollback for the sake of order (40), too many connections or a full disk (53), a server that stops or starts
// (57), one that is read-only because another has taken over (25006), and a plan that a migration made invalid (0A000).
// Source: PostgreSQL's documentation, appendix A.
var fatalStates = map[string]string{ //nolint:gochecknoglobals // a constant table
	"22":    "this is a fault of tenantflow; report it",                                                   // data exception
	"23":    "this is a fault of tenantflow; report it",                                                   // integrity constraint violation
	"28":    "correct the user or the password in TENANTFLOW_POSTGRES_DSN, or the server's pg_hba.conf",   // invalid authorization
	"3D000": migrate + ", or correct the database in TENANTFLOW_POSTGRES_DSN",                             // no such database
	"3F000": migrate,                                                                                      // no such schema
	"42":    "this is a fault of tenantflow; report it",                                                   // syntax error or access rule violation
	"42501": "grant the user of TENANTFLOW_POSTGRES_DSN the right, or name the owner of the tables there", // insufficient privilege
	"42703": migrate,                                                                                      // undefined column
	"42704": migrate,                                                                                      // undefined object
	"42883": migrate,                                                                                      // undefined function
	"42P01": migrate,                                                                                      // undefined table
	"42P05": "add default_query_exec_mode=exec to TENANTFLOW_POSTGRES_DSN, because the pooler in between does not know prepared statements",
}

// Classify decides what to do about an error of this package. It is the only place where that is decided.
func Classify(err error) Class {
	if advice(err) != "" {
		return Fatal
	}
	// Configuration faults that show as a network fault (a wrong host name) can't be distinguished from an outage, so they wait
	// too, visibly.
	return Transient
}

// Refused reports whether Postgres refuses the login (SQLSTATE class 28) or does not have the database (3D000). Then nothing works, no
// matter which company it is for.
func Refused(err error) bool {
	var sent *pgconn.PgError
	return errors.As(err, &sent) && (strings.HasPrefix(sent.Code, "28") || sent.Code == "3D000")
}

// Separable reports whether an error may come from one of several things that a statement was about, so that the others may succeed without
// it: the server has answered, or did not in time, and nothing says that it would refuse every statement. It would without a login (28) or
// the database (3D), when it has no room left (53), stops or starts (57P), has lost a connection of its own (08) or is read-only (25006).
func Separable(err error) bool {
	var sent *pgconn.PgError
	if !errors.As(err, &sent) || len(sent.Code) != 5 {
		return errors.Is(err, context.DeadlineExceeded)
	}
	return !slices.Contains([]string{"08", "28", "3D", "53"}, sent.Code[:2]) && !strings.HasPrefix(sent.Code, "57P") && sent.Code != "25006"
}

// refusedStates are the usual errors of data that can't be stored, in words of our own: Postgres' may quote what it refuses.
var refusedStates = map[string]string{ //nolint:gochecknoglobals // a constant table
	"22001": "a text is too long", "22003": "a number is out of range", "22007": "a time is malformed", "22008": "a time is out of range",
	"22021": "a text has a character that the database can't store", "22P02": "a text is not of the type of its column", "22P05": "a text has a character that the database can't store",
	"23502": "a value is missing", "23503": "a row that it refers to is missing", "23505": "a row of the same key is there", "23514": "a check fails",
}

// refusalWords says why Postgres refuses an event's data, with the names that it gives and without its message.
func refusalWords(sent *pgconn.PgError) string {
	words := cmp.Or(refusedStates[sent.Code], "the data is refused")
	for _, named := range []struct{ what, name string }{{"table", sent.TableName}, {"column", sent.ColumnName}, {"constraint", sent.ConstraintName}} {
		if named.name != "" {
			words += fmt.Sprintf(", %s %s", named.what, named.name)
		}
	}
	return words + " (SQLSTATE " + sent.Code + ")"
}

// advice says what a person can do about a fatal error; it is empty for any other.
func advice(err error) string {
	var secure *certs.Error // which says itself what to do, and may pass
	if errors.As(err, &secure) {
		return ""
	}
	var malformed *pgconn.ParseConfigError
	if errors.As(err, &malformed) {
		return "correct TENANTFLOW_POSTGRES_DSN"
	}
	var sent *pgconn.PgError
	if !errors.As(err, &sent) || len(sent.Code) != 5 {
		return ""
	}
	if do, ok := fatalStates[sent.Code]; ok {
		return do
	}
	return fatalStates[sent.Code[:2]]
}

// explain says what was being done when the error came, and what to do about it.
func explain(doing string, err error) error {
	err = certs.ExplainPostgres(err)
	if do := advice(err); do != "" && !strings.Contains(err.Error(), do) {
		return fmt.Errorf("%s in Postgres: %w; %s", doing, err, do)
	}
	return fmt.Errorf("%s in Postgres: %w", doing, err)
}
