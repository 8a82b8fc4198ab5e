package migrations_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestTheStorageQuotaCountsTablesIndexesAndWhatIsStoredOutOfLine(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	acme := d.company("acme", "free")
	number := func(query string) int64 {
		t.Helper()
		n, err := strconv.ParseInt(d.one(d.owner, query), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	size := fmt.Sprintf("SELECT tenant_size('%s')", acme)
	// Every relation with a file, by another way: from the files themselves.
	files := fmt.Sprintf(`SELECT sum(pg_relation_size(c.oid, fork)) FROM unnest(ARRAY['main', 'fsm', 'vm', 'init']) AS fork, pg_class c
		WHERE c.relnamespace = 'tenant_%[1]s'::regnamespace AND c.relkind IN ('r', 'i', 'S')
		OR c.oid IN (SELECT unnest(ARRAY[reltoastrelid, (SELECT indexrelid FROM pg_index WHERE indrelid = reltoastrelid)]) FROM pg_class
			WHERE relnamespace = 'tenant_%[1]s'::regnamespace AND relkind = 'r' AND reltoastrelid <> 0)`, acme)
	empty := number(size)
	if want := number(files); empty != want || empty == 0 {
		t.Errorf("an empty schema takes %d bytes, its files %d", empty, want)
	}
	execPostgres(t, d.tables,
		fmt.Sprintf("SELECT tenant_user_put('%s', 'u' || i, 'u' || i || '@x.test', now()) FROM generate_series(1, 1000) i", acme),
		fmt.Sprintf("INSERT INTO tenant_%s.trading_positions (user_id, symbol, volume, open_price) SELECT 'u1', 'EURUSD', 1, 1 FROM generate_series(1, 5000)", acme))
	rows := number(size)
	// 64 x 32 KB that compress badly go out of line: the table itself hardly grows.
	execPostgres(t, d.tables, fmt.Sprintf(`INSERT INTO tenant_%s.mt5_accounts (account_id, user_id, account_number)
		SELECT i, 'u1', (SELECT string_agg(md5(i || ':' || k), '') FROM generate_series(1, 1024) k) FROM generate_series(1, 64) i`, acme))
	out := number(size)
	if rows < empty+600_000 || out < rows+2<<20 || out != number(files) {
		t.Errorf("%d bytes empty, %d with rows, %d with 2 MB out of line; the files have %d", empty, rows, out, number(files))
	}
	// To the byte, in both directions: the quota is 100 MB.
	quota := func(more string) string {
		return d.one(d.owner, fmt.Sprintf("SELECT check_storage_quota('%s', (%s)::numeric)", acme, more))
	}
	rest := fmt.Sprintf("(100 * 1048576 - %d)", out)
	if got := quota(rest+" / 1048576.0") + quota(rest+" / 1048576.0 + 0.000002") + quota("0"); got != "truefalsetrue" {
		t.Errorf("what just fits, a byte or two more, nothing: %s", got)
	}
	execPostgres(t, d.tables, "UPDATE subscriptions SET limits = jsonb_set(limits, '{storage_mb}', '1')")
	if got := quota("0"); got != "false" {
		t.Errorf("beyond its quota a company may store nothing: %s", got)
	}
	execPostgres(t, d.tables, "UPDATE subscriptions SET tier = 'pro'")
	if got := quota("1e12"); got != "true" {
		t.Errorf("with an unlimited tier: %s", got)
	}
	// The tier is that of the subscription, whatever a user's row says.
	execPostgres(t, d.tables, "UPDATE subscriptions SET tier = 'free'", fmt.Sprintf("UPDATE tenant_%s.users SET subscription_tier = 'pro'", acme))
	if got := quota("1e12"); got != "false" {
		t.Errorf("with users of another tier: %s", got)
	}
	execPostgres(t, d.tables, "UPDATE companies SET status = 'closed'")
	if got := quota("0") + d.one(d.owner, "SELECT check_storage_quota('nobody', 0)"); got != "falsefalse" {
		t.Errorf("a company that is closed, and one that is not known: %s", got)
	}
}

func TestCleanupDeletesWhatTheTierNoLongerKeepsAndLogsEveryRun(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	acme, other := d.company("acme", "free"), d.company("other", "free")
	for _, id := range []string{acme, other} {
		execPostgres(t, d.tables, fmt.Sprintf("SELECT tenant_user_put('%s', 'u%[1]s', 'u@x.test', now())", id),
			// Closed 1 to 1000 days ago, one a day, half a day before midnight; and some that stay whatever the tier says.
			fmt.Sprintf(`INSERT INTO tenant_%s.trading_positions (user_id, symbol, volume, open_price, opened_at, closed_at, status)
				SELECT 'u%[1]s', 'S', 1, 1, now() - interval '2000 days', now() - make_interval(days => i, hours => -12), 'closed' FROM generate_series(1, 1000) i
				UNION ALL SELECT 'u%[1]s', 'OPEN', 1, 1, now() - interval '2000 days', NULL, 'open' FROM generate_series(1, 5)
				UNION ALL SELECT 'u%[1]s', 'ODD', 1, 1, now() - interval '2000 days', now() - interval '900 days', 'open' FROM generate_series(1, 5)
				UNION ALL SELECT 'u%[1]s', 'NEW', 1, 1, now() - interval '2000 days', now(), 'closed' FROM generate_series(1, 5)`, id))
	}
	left := func() string {
		return d.one(d.owner, fmt.Sprintf(`SELECT count(*) || ' ' || count(*) FILTER (WHERE symbol = 'S') || ' ' ||
			coalesce(ceil(extract(epoch FROM now() - min(closed_at) FILTER (WHERE symbol = 'S')) / 86400), 0) FROM tenant_%s.trading_positions`, acme))
	}
	for _, step := range []struct{ tier, rows, deleted, left string }{
		{"pro", "0", "0", "1015 1000 1000"},
		{"pro", "100", "100", "915 900 900"}, // the oldest first
		{"pro", "100", "100", "815 800 800"},
		{"pro", "NULL", "435", "380 365 365"}, // never more than the tier says
		{"pro", "NULL", "0", "380 365 365"},
		{"free", "10", "10", "370 355 355"}, // a tier that keeps less
		{"pro", "NULL", "0", "370 355 355"},
		{"free", "NULL", "325", "45 30 30"},
	} {
		execPostgres(t, d.tables, fmt.Sprintf("UPDATE subscriptions SET tier = '%s' WHERE company_id = '%s'", step.tier, acme))
		got := d.psql(d.owner, fmt.Sprintf("SELECT cleanup_old_data_by_tier('%s', %s)", acme, step.rows))
		if got != step.deleted || left() != step.left {
			t.Errorf("%s, at most %s: deleted %s, left %s; want %s and %s", step.tier, step.rows, got, left(), step.deleted, step.left)
		}
	}
	execPostgres(t, d.tables, fmt.Sprintf("DELETE FROM subscriptions WHERE company_id = '%s'", acme))
	if got := d.psql(d.owner, fmt.Sprintf("SELECT cleanup_old_data_by_tier('%s')", acme)); got != "0" {
		t.Errorf("without a subscription %s rows are deleted", got)
	}
	if got := d.one(d.owner, "SELECT string_agg(deleted_rows || '/' || coalesce(retention_days::text, '-'), ' ' ORDER BY id) FROM data_cleanup_log WHERE company_id = $1", acme); got !=
		"0/365 100/365 100/365 435/365 0/365 10/30 0/365 325/30 0/-" {
		t.Errorf("the log says %s", got)
	}
	if got := d.one(d.owner, fmt.Sprintf("SELECT count(*) FROM tenant_%s.trading_positions", other)); got != "1015" {
		t.Errorf("the other company has %s positions", got)
	}
}

func TestADayOfACleanupIsTheSameForEverybody(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	acme := d.company("acme", "free")
	execPostgres(t, d.tables, fmt.Sprintf("SELECT tenant_user_put('%s', 'u', 'u@x.test', now())", acme),
		`UPDATE subscriptions SET limits = jsonb_set(limits, '{retention_days}', '183')`)
	// In half a year the clocks are changed once, forwards in one of the two places.
	for _, zone := range []string{"America/New_York", "Australia/Sydney"} {
		execPostgres(t, d.tables, fmt.Sprintf(`INSERT INTO tenant_%s.trading_positions (user_id, symbol, volume, open_price, closed_at, status)
			SELECT 'u', s, 1, 1, now() - interval '1 hour' * (183 * 24) + m * interval '1 minute', 'closed' FROM (VALUES ('KEPT', 30), ('OLD', -30)) AS v (s, m)`, acme))
		d.psql(d.owner, fmt.Sprintf("SET timezone = '%s'; SELECT cleanup_old_data_by_tier('%s')", zone, acme))
		if got := d.one(d.owner, fmt.Sprintf("SELECT string_agg(symbol, ' ') FROM tenant_%s.trading_positions", acme)); got != "KEPT" {
			t.Errorf("in %s what is left is %s", zone, got)
		}
		execPostgres(t, d.tables, fmt.Sprintf("DELETE FROM tenant_%s.trading_positions", acme))
	}
}

func TestCleanupWaitsForAChangeOfTheTier(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	acme := d.company("acme", "free")
	execPostgres(t, d.tables, fmt.Sprintf("SELECT tenant_user_put('%s', 'u', 'u@x.test', now())", acme),
		fmt.Sprintf(`INSERT INTO tenant_%s.trading_positions (user_id, symbol, volume, open_price, closed_at, status)
			SELECT 'u', 'S', 1, 1, now() - make_interval(days => 100), 'closed' FROM generate_series(1, 10)`, acme))
	upgrade, err := pgx.Connect(t.Context(), d.dsn(d.owner))
	if err != nil {
		t.Fatal(err)
	}
	defer upgrade.Close(context.Background())
	// By hand: without the lock that the service takes.
	for _, statement := range []string{"BEGIN", "UPDATE subscriptions SET tier = 'pro'"} {
		if _, err := upgrade.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	deleted := make(chan string, 1)
	go func() { deleted <- d.psql(d.owner, fmt.Sprintf("SELECT cleanup_old_data_by_tier('%s')", acme)) }()
	awaitLock(t, d)
	if _, err := upgrade.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if got := <-deleted; got != "0" {
		t.Errorf("it deleted %s positions that the new tier keeps", got)
	}
}
