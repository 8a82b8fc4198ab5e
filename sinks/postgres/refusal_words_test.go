package postgres

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"tenantflow/events"
)

// A dead letter says this. Postgres' message may quote the value, and a trigger's whatever it likes.
func TestRejectStored_NamesNoValue(t *testing.T) {
	t.Parallel()
	for want, sent := range map[string]*pgconn.PgError{
		"Postgres refuses it: a text is not of the type of its column (SQLSTATE 22P02)":                            {Code: "22P02", Message: `invalid input syntax for type integer: "ann@x"`},
		"Postgres refuses it: the data is refused (SQLSTATE 22023)":                                                {Code: "22023", Message: "not ann@x"},
		"Postgres refuses it: a row of the same key is there, table users, constraint users_pkey (SQLSTATE 23505)": {Code: "23505", Message: "duplicate", Detail: "Key (email)=(ann@x)", TableName: "users", ConstraintName: "users_pkey"},
	} {
		var rejection *events.Rejection
		if err := rejectStored(fmt.Errorf("apply: %w", sent)); !errors.As(err, &rejection) || rejection.Reason != events.RejectedByStore || rejection.Detail != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
