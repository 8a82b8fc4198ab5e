package migrations_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// A touched is two companies with a user each. The tables of the first are harmed, and it comes before the other.
type touched struct {
	*tenantDB
	bad, good string
}

func newTouched(t *testing.T) *touched {
	t.Helper()
	d := &touched{tenantDB: newTenantDB(t)}
	d.bad, d.good = d.company("a", "free"), d.company("b", "free")
	for _, id := range []string{d.bad, d.good} {
		execPostgres(t, d.tables, "SELECT tenant_user_put('"+id+"', 'u"+id+"', 'u@x.test', now())")
	}
	return d
}

// trigger gives the first company's table of users a trigger with this body.
func (d *touched) trigger(body, kind string) {
	d.t.Helper()
	schema := "tenant_" + d.bad
	d.as(d.owner, "DROP TRIGGER IF EXISTS harm ON "+schema+".users",
		"CREATE OR REPLACE FUNCTION "+schema+".harm() RETURNS trigger LANGUAGE plpgsql AS $harm$ DECLARE n text; BEGIN "+body+" RETURN NEW; END $harm$",
		strings.ReplaceAll(kind, "$", schema))
}

const (
	before   = "CREATE TRIGGER harm BEFORE UPDATE ON $.users FOR EACH ROW EXECUTE FUNCTION $.harm()"
	deferred = "CREATE CONSTRAINT TRIGGER harm AFTER UPDATE ON $.users DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION $.harm()"
)

// touch moves the activity of both users on, and gives the SQLSTATE of the error.
func (d *touched) touch(timeout string) string {
	d.t.Helper()
	execPostgres(d.t, d.tables, "UPDATE user_directory SET last_activity = NULL", "UPDATE tenant_"+d.good+".users SET last_activity = NULL")
	tx, err := d.tables.DB().BeginTx(d.t.Context(), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(d.t.Context(), "SET LOCAL statement_timeout = '"+timeout+"'"); err != nil {
		d.t.Fatal(err)
	}
	_, err = tx.ExecContext(d.t.Context(), fmt.Sprintf("SELECT touch_users('{%[1]s,%[2]s}', '{u%[1]s,u%[2]s}', array[now(), now()])", d.bad, d.good))
	if err == nil {
		err = tx.Commit()
	}
	var sent *pgconn.PgError
	if errors.As(err, &sent) {
		return sent.Code
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return ""
}

func (d *touched) check(t *testing.T, name string) {
	t.Helper()
	if got := d.touch("0"); got != "" {
		t.Errorf("%s: the call ends with SQLSTATE %s, want no error", name, got)
	}
	if got := d.one(d.owner, "SELECT (SELECT count(*) FROM user_directory WHERE last_activity IS NOT NULL) || '/' || count(last_activity) FROM tenant_"+d.good+".users"); got != "2/1" {
		t.Errorf("%s: users touched in the directory/in the other company's tables: %s, want 2/1", name, got)
	}
}

func TestTouchUsers_TroubleOfOneCompanyIsItsOwn(t *testing.T) {
	t.Parallel()
	d := newTouched(t)
	for name, body := range map[string]string{
		"a case without a branch": "CASE NEW.user_id WHEN 'x' THEN NULL; END CASE;",
		"an assertion":            "ASSERT false;",
		"no row":                  "SELECT 'x' INTO STRICT n WHERE false;",
		"two rows":                "n := (SELECT x FROM (VALUES ('a'), ('b')) AS v (x));",
		"a division":              "n := 1 / 0;",
		"an own code":             "RAISE EXCEPTION USING ERRCODE = '45000';",
		"damage":                  "RAISE EXCEPTION USING ERRCODE = 'XX001';",
		"the code of a cancel":    "RAISE EXCEPTION USING ERRCODE = '57014';",
		"the code of a shutdown":  "RAISE EXCEPTION USING ERRCODE = '57P01';",
		"the code of a deadlock":  "RAISE EXCEPTION USING ERRCODE = '40P01';",
		"the code of a full disk": "RAISE EXCEPTION USING ERRCODE = '53100';",
		"the code of a lost line": "RAISE EXCEPTION USING ERRCODE = '08006';",
		"no such class at all":    "RAISE EXCEPTION USING ERRCODE = 'ZZZZZ';",
	} {
		d.trigger(body, before)
		d.check(t, name)
	}
	d.trigger("RAISE EXCEPTION 'no';", deferred)
	d.check(t, "a deferred trigger")
	d.trigger("", before)
	d.as("postgres", "ALTER SCHEMA tenant_"+d.bad+" OWNER TO postgres", "REVOKE ALL ON SCHEMA tenant_"+d.bad+" FROM PUBLIC, "+d.owner)
	d.check(t, "a schema that may not be used")
}

func TestTouchUsers_ACancelEndsTheCall(t *testing.T) {
	t.Parallel()
	d := newTouched(t)
	for _, c := range []struct{ name, body, timeout, want string }{
		{"cancelled", "PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(5);", "0", "57014"},
		{"out of time", "PERFORM pg_sleep(5);", "200ms", "57014"},
		{"out of time, behind a trigger that hides it", "BEGIN PERFORM pg_sleep(5); EXCEPTION WHEN query_canceled THEN RAISE EXCEPTION 'no'; END;", "200ms", "P0001"},
	} {
		d.trigger(c.body, before)
		if got := d.touch(c.timeout); got != c.want {
			t.Errorf("%s: SQLSTATE %q, want %q", c.name, got, c.want)
		}
	}
}
