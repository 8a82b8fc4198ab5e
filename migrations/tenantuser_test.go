package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

func TestAUserIsInTheDirectoryAndInTheCompanysTable(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	a, b := d.company("a", "pro"), d.company("b", "free")
	both := func() string {
		return d.one(d.owner, fmt.Sprintf(`SELECT string_agg(concat_ws('/', user_id, u.email, d.email, u.subscription_tier, u.subscription_status,
			d.subscription_status, to_char(u.created_at, 'DD'), to_char(d.created_at, 'DD'), to_char(u.updated_at, 'DD')), ' ' ORDER BY user_id)
			FROM tenant_%s.users u FULL JOIN (SELECT * FROM user_directory WHERE company_id = '%[1]s') d USING (user_id)`, a))
	}
	put := func(company, user, email string, day int) string {
		return fmt.Sprintf("SELECT tenant_user_put('%s', '%s', '%s', '2026-01-%02d')", company, user, email, day)
	}
	remove := func(company, user string, day int) string {
		return fmt.Sprintf("SELECT tenant_user_remove('%s', '%s', '2026-01-%02d')", company, user, day)
	}
	for _, step := range []struct{ statement, prints, want string }{
		{put(a, "u1", "x@x.test", 1), "", "u1/x@x.test/x@x.test/pro/active/active/01/01/01"},
		{put(a, "u1", "x@x.test", 2), "", "u1/x@x.test/x@x.test/pro/active/active/01/01/02"},
		{put(a, "u1", "y@x.test", 3), "", "u1/y@x.test/y@x.test/pro/active/active/01/01/03"},
		{put(b, "u1", "z@x.test", 4), "ERROR:  23505", "u1/y@x.test/y@x.test/pro/active/active/01/01/03"},
		{put(a, "u2", "y@x.test", 4), "ERROR:  23505", "u1/y@x.test/y@x.test/pro/active/active/01/01/03"},
		{put(b, "u3", "y@x.test", 4), "", "u1/y@x.test/y@x.test/pro/active/active/01/01/03"}, // unique within a company only
		{put(a, "u 2", "q@x.test", 4), "ERROR:  23514", "u1/y@x.test/y@x.test/pro/active/active/01/01/03"},
		{remove(a, "u3", 5), "f", "u1/y@x.test/y@x.test/pro/active/active/01/01/03"}, // another company's
		{remove(a, "u1", 5), "t", ""},
		{remove(a, "u1", 5), "f", ""},
		{put(a, "u1", "y@x.test", 6), "", "u1/y@x.test/y@x.test/pro/active/active/06/06/06"},
		{fmt.Sprintf("INSERT INTO tenant_%s.mt5_accounts (account_id, user_id, account_number) VALUES (1, 'u1', 'n')", a), "",
			"u1/y@x.test/y@x.test/pro/active/active/06/06/06"},
		{remove(a, "u1", 7), "t", "u1/removed:u1/pro/removed/06/07"}, // kept for the account, without the email
		{put(a, "u2", "y@x.test", 8), "", "u1/removed:u1/pro/removed/06/07 u2/y@x.test/y@x.test/pro/active/active/08/08/08"},
		{remove(a, "u2", 9), "t", "u1/removed:u1/pro/removed/06/07"},
		{put(a, "u1", "w@x.test", 10), "", "u1/w@x.test/w@x.test/pro/active/active/10/10/10"}, // as a new one
	} {
		if got := d.psql(d.owner, step.statement); got != step.prints || both() != step.want {
			t.Errorf("%s prints %q and leaves %q, want %q and %q", step.statement, got, both(), step.prints, step.want)
		}
	}
	for constraint, statement := range map[string]string{
		"user_directory_pkey": put(b, "u1", "z@x.test", 11), "users_email_key": put(a, "u4", "w@x.test", 11),
	} {
		conn, err := pgx.Connect(t.Context(), d.dsn(d.owner))
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Exec(t.Context(), statement)
		var failed *pgconn.PgError
		if !errors.As(err, &failed) || failed.ConstraintName != constraint {
			t.Errorf("%s: %v, not of constraint %s", statement, err, constraint)
		}
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestAUserIsKeptForAnAccountThatIsMadeMeanwhile(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	acme := d.company("acme", "pro")
	execPostgres(t, d.tables, fmt.Sprintf("SELECT tenant_user_put('%s', 'u1', 'u1@x.test', now())", acme))
	data, err := pgx.Connect(t.Context(), d.dsn(d.login("data", "database_service_role")))
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close(context.Background())
	if _, err := data.Exec(t.Context(), fmt.Sprintf("BEGIN; INSERT INTO tenant_%s.mt5_accounts (account_id, user_id, account_number) VALUES (1, 'u1', 'n')", acme)); err != nil {
		t.Fatal(err)
	}
	removed := make(chan string, 1)
	go func() { removed <- d.psql(d.owner, fmt.Sprintf("SELECT tenant_user_remove('%s', 'u1', now())", acme)) }()
	awaitLock(t, d)
	if _, err := data.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if got := <-removed; got != "t" {
		t.Errorf("the user is removed: %s", got)
	}
	if got := d.one(d.owner, fmt.Sprintf("SELECT user_id || ' ' || subscription_status FROM tenant_%s.users", acme)); got != "u1 removed" {
		t.Errorf("the company has %s", got)
	}
}

func TestTheOldestUsersHaveTheSeats(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	acme, other := d.company("acme", "pro"), d.company("other", "pro")
	execPostgres(t, d.tables, fmt.Sprintf("SELECT tenant_user_put('%s', 'u' || i, i || '@x.test', timestamptz '2026-01-01' - make_interval(days => i)) FROM generate_series(1, 5) i", acme),
		fmt.Sprintf("SELECT tenant_user_put('%s', 'same-' || i, 's' || ascii(i) || '@x.test', '2025-06-01') FROM unnest(ARRAY['b', 'a', 'B']) i", acme),
		fmt.Sprintf("SELECT tenant_user_put('%s', 'z', 'z', now())", other),
		fmt.Sprintf("INSERT INTO tenant_%s.mt5_accounts (account_id, user_id, account_number) VALUES (1, 'u3', 'n')", acme),
		fmt.Sprintf("SELECT tenant_user_remove('%s', 'u3', now())", acme), "DELETE FROM changes")
	for _, step := range []struct{ max, changed, told string }{
		{"NULL", "", ""},
		{"5", "u1|suspended u2|suspended", "u1 u2"},
		{"5", "", ""},
		// Older than the others by half a year, the three of the same time by their names.
		{"2", "same-b|suspended u4|suspended u5|suspended", "same-b u4 u5"},
		{"0", "same-B|suspended same-a|suspended", "same-B same-a"},
		{"4", "same-B|active same-a|active same-b|active u5|active", "same-B same-a same-b u5"},
		{"NULL", "u1|active u2|active u4|active", "u1 u2 u4"},
		{"9223372036854775807", "", ""},
	} {
		got := d.psql(d.owner, fmt.Sprintf("SELECT * FROM seat_users('%s', 'free', '2026-01-01', '2026-02-01', '{\"max_users\": 1}', %s, '2026-01-02')", acme, step.max))
		if got = strings.ReplaceAll(got, "\n", " "); got != step.changed {
			t.Errorf("%s seats change %q, want %q", step.max, got, step.changed)
		}
		if told := d.one(d.owner, "SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM changes"); told != step.told {
			t.Errorf("%s seats tell of %q, want %q", step.max, told, step.told)
		}
		execPostgres(t, d.tables, "DELETE FROM changes")
		if got := d.one(d.owner, fmt.Sprintf(`SELECT count(*) FROM tenant_%s.users u FULL JOIN (SELECT * FROM user_directory WHERE company_id = '%[1]s') d USING (user_id)
			WHERE u.subscription_status IS DISTINCT FROM d.subscription_status AND u.subscription_status <> 'removed'`, acme)); got != "0" {
			t.Errorf("%s users differ between the two tables", got)
		}
	}
	if got := d.one(d.owner, fmt.Sprintf(`SELECT string_agg(DISTINCT concat_ws('/', u.subscription_tier, u.subscription_start_date::date, u.subscription_end_date::date,
		u.subscription_limits, u.updated_at::date, u.subscription_status = 'removed'), ' ') FROM tenant_%s.users u WHERE user_id <> 'u3'`, acme)); got !=
		`free/2026-01-01/2026-02-01/{"max_users": 1}/2026-01-02/f` {
		t.Errorf("the users have %s", got)
	}
	if got := d.one(d.owner, fmt.Sprintf("SELECT concat_ws('/', (SELECT subscription_tier FROM tenant_%s.users WHERE user_id = 'u3'), subscription_tier, subscription_status) FROM tenant_%s.users",
		acme, other)); got != "pro/pro/active" {
		t.Errorf("the removed user and the one of another company have %s", got)
	}
}

func TestLastActivityMovesOnByAnHourOrMore(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	a, b := d.company("a", "pro"), d.company("b", "pro")
	execPostgres(t, d.tables, fmt.Sprintf("SELECT tenant_user_put('%s', 'a' || i, i || '@x.test', now()) FROM generate_series(1, 3) i", a),
		fmt.Sprintf("SELECT tenant_user_put('%s', 'b1', 'b@x.test', now())", b), "DELETE FROM changes",
		"INSERT INTO companies (company_id, name, billing_email) VALUES ('bare', 'Bare', 'e')", "INSERT INTO user_directory (user_id, company_id) VALUES ('bare-1', 'bare')",
		"DELETE FROM changes")
	at := func(table string) string {
		return d.one(d.owner, "SELECT string_agg(user_id || to_char(last_activity AT TIME ZONE 'UTC', ' HH24:MI'), ', ' ORDER BY user_id) FROM "+table)
	}
	for _, step := range []struct {
		touches string // company user time, ...
		moved   string
		want    string
	}{
		{"a a1 10:00, b b1 10:00, bare bare-1 10:00", "3", "a1 10:00, b1 10:00, bare-1 10:00"},
		{"a a1 10:59, a a2 10:30", "1", "a1 10:00, a2 10:30, b1 10:00, bare-1 10:00"},
		{"a a1 11:00, a a2 09:00", "1", "a1 11:00, a2 10:30, b1 10:00, bare-1 10:00"},
		{"a a1 09:00, a a1 13:00, a a1 12:30", "1", "a1 13:00, a2 10:30, b1 10:00, bare-1 10:00"}, // the latest
		{"b a1 20:00, a b1 20:00, a nobody 20:00, nobody a1 20:00", "0", "a1 13:00, a2 10:30, b1 10:00, bare-1 10:00"},
		{"", "0", "a1 13:00, a2 10:30, b1 10:00, bare-1 10:00"},
	} {
		var companies, users, times []string
		for touch := range strings.SplitSeq(step.touches, ", ") {
			if f := strings.Fields(touch); len(f) == 3 {
				company := f[0]
				if len(company) == 1 {
					company = d.id(company)
				}
				companies, users, times = append(companies, company), append(users, f[1]), append(times, "2026-01-01 "+f[2]+"Z")
			}
		}
		quote := func(s []string) string { return `'{"` + strings.Join(s, `","`) + `"}'` }
		if len(users) == 0 {
			quote = func([]string) string { return "'{}'" }
		}
		if got := d.psql(d.owner, fmt.Sprintf("SELECT touch_users(%s, %s, %s)", quote(companies), quote(users), quote(times))); got != step.moved {
			t.Errorf("%s moves %s, want %s", step.touches, got, step.moved)
		}
		if got := at("user_directory"); got != step.want {
			t.Errorf("%s leaves %s in the directory, want %s", step.touches, got, step.want)
		}
		if got, want := at(fmt.Sprintf("(SELECT * FROM tenant_%s.users UNION ALL SELECT * FROM tenant_%s.users) u", a, b)), strings.TrimSuffix(step.want, ", bare-1 10:00"); got != want {
			t.Errorf("%s leaves %s in the companies' tables, want %s", step.touches, got, want)
		}
	}
	if got := told(t, d.tables); got != "" {
		t.Errorf("it is told: %s", got)
	}
}

func TestUsersThatAreTouchedAndSeatedAtOnceEndInNoDeadlock(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	ids := []string{d.company("a", "pro"), d.company("b", "pro"), d.company("c", "pro")}
	for _, id := range ids {
		execPostgres(t, d.tables, fmt.Sprintf("SELECT tenant_user_put('%s', '%[1]s-' || i, i || '@x.test', now()) FROM generate_series(1, 40) i", id))
	}
	var group errgroup.Group
	for worker := range 6 {
		group.Go(func() error {
			for round := range 15 {
				// In another order each time; hours differ, so that rows are written.
				statement := fmt.Sprintf(`SELECT touch_users(array_agg(company_id), array_agg(user_id), array_agg(now() + make_interval(hours => %d)))
					FROM (SELECT * FROM user_directory ORDER BY md5(user_id || %d)) u`, round*10+worker, worker*100+round)
				if worker%2 == 0 {
					statement = fmt.Sprintf("SELECT count(*) FROM seat_users('%s', 'pro', now(), now(), '{}', %d, now())", ids[(worker+round)%3], (worker+round)%40)
				}
				for {
					_, err := d.tables.DB().ExecContext(t.Context(), statement)
					var failed *pgconn.PgError
					if errors.As(err, &failed) && failed.Code == "55P03" {
						continue // touch_users waits 200 ms for a row and leaves the next try to its caller; a deadlock has another code
					}
					if err != nil {
						return fmt.Errorf("%s: %w", statement, err)
					}
					break
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
