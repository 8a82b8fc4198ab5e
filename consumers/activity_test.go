package consumers_test

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tenantflow/consumers"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/sinks/dragonfly"
)

// An activityFixture is users in Postgres, which is behind a proxy, and a consumer that counts what they use.
type activityFixture struct {
	*quotaFixture
	tables   *pgx.Conn
	proxy    *engine.Proxy
	registry *prometheus.Registry
	stop     func() error
}

// newActivityFixture makes users of the company "acme" and runs a consumer that remembers up to most of them.
func newActivityFixture(t *testing.T, most int, users ...string) *activityFixture {
	t.Helper()
	f := &activityFixture{quotaFixture: newQuotaFixture(t, fixtureOptions{}), registry: prometheus.NewRegistry()}
	dsn := postgrestest.New(t)
	var err error
	if f.tables, err = pgx.Connect(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.tables.Close(context.Background()) })
	if _, err := f.tables.Exec(t.Context(), "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('other', 'O', 'o@x')"); err != nil {
		t.Fatal(err)
	}
	f.members = members{Company: map[string]string{}, Limit: 1000}
	for _, user := range users {
		if _, err := f.tables.Exec(t.Context(), "INSERT INTO user_directory (user_id, company_id) VALUES ($1, 'acme')", user); err != nil {
			t.Fatal(err)
		}
		f.members.Company[user] = "acme"
	}
	address, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	f.proxy = enginetest.Proxy(t, address.Host)
	address.Host = f.proxy.Addr()
	store := openTables(t, address.String())
	t.Cleanup(store.Close)
	activity := consumers.NewActivity(consumers.ActivityConfig{Store: store, Every: 20 * time.Millisecond, Users: most, Registry: f.registry})
	counters := f.count(t, quotaConsumer{activity: activity})
	writer := background(t, func(ctx context.Context) error { activity.Run(ctx); return nil })
	f.stop = func() error {
		if err := counters(); err != nil {
			return err
		}
		return writer()
	}
	return f
}

// active is the last activity of the users who have one, in order of their names.
func (f *activityFixture) active(t *testing.T) string {
	t.Helper()
	var all *string
	err := f.tables.QueryRow(t.Context(), "SELECT string_agg(user_id || to_char(last_activity AT TIME ZONE 'UTC', ' DD HH24:MI'), ', ' ORDER BY user_id) FROM user_directory").Scan(&all)
	if err != nil {
		t.Fatal(err)
	}
	if all == nil {
		return ""
	}
	return *all
}

func (f *activityFixture) awaitCalls(t *testing.T, user string, day time.Time, calls int64) {
	t.Helper()
	enginetest.Await(t, fmt.Sprintf("%d calls of %s are counted", calls, user), func() bool {
		n, _ := f.client.HGet(t.Context(), dragonfly.QuotaKey(user, day), "api_calls").Int64()
		return n == calls
	})
}

func (f *activityFixture) metric(t *testing.T, name string) float64 {
	t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "tenantflow_activity_"+name {
			m := family.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

func TestUsersLastActivityIsKeptFromWhatIsCounted(t *testing.T) {
	t.Parallel()
	f := newActivityFixture(t, 0, "u1", "u2")
	at := time.Now().UTC().Truncate(time.Hour).Add(-10 * time.Hour)
	says := func(user string, at time.Time) string { return user + at.Format(" 02 15:04") }
	n := 0
	event := func(company, user string, at time.Time) {
		n++
		f.send(t, used(fmt.Sprintf("e%d", n), company, user, at))
	}
	await := func(want string) {
		t.Helper()
		enginetest.Await(t, want, func() bool { return f.active(t) == want })
	}
	event("acme", "u1", at)
	await(says("u1", at))
	event("acme", "u1", at.Add(59*time.Minute)) // not an hour yet
	event("other", "u2", at.Add(time.Hour))     // no activity: the user belongs to another company
	event("acme", "stranger", at.Add(time.Hour))
	event("acme", "u1", at.Add(-3*time.Hour)) // late
	f.AwaitConsumed(t)
	event("acme", "u2", at.Add(2*time.Hour))
	await(says("u1", at) + ", " + says("u2", at.Add(2*time.Hour)))
	event("acme", "u1", at.Add(61*time.Minute))
	await(says("u1", at.Add(61*time.Minute)) + ", " + says("u2", at.Add(2*time.Hour)))
	// It is noted when Postgres has answered, which is after its rows can be read.
	enginetest.Await(t, "all writes to be noted", func() bool { return f.metric(t, "written_total") >= 3 })
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	if got := f.metric(t, "written_total"); got != 3 {
		t.Errorf("%v users were moved on, want 3", got)
	}
	if problems, err := testutil.GatherAndLint(f.registry); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func TestCountingGoesOnWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	f := newActivityFixture(t, 3, "u1", "u2", "u3", "u4")
	f.proxy.Refuse(true)
	at := time.Now().UTC().Truncate(24 * time.Hour).Add(-time.Hour)
	for i, user := range []string{"u1", "u2", "u3", "u4"} {
		for k := range 3 {
			f.send(t, used(fmt.Sprintf("e%d.%d", i, k), "acme", user, at.Add(time.Duration(k)*time.Minute)))
		}
		f.awaitCalls(t, user, at, 3)
	}
	f.AwaitConsumed(t) // the activity is noted after the counters have the calls, and before the offset is committed
	enginetest.Await(t, "the write fails", func() bool { return f.metric(t, "failures_total") >= 2 })
	if got := f.metric(t, "waiting_users"); got != 3 {
		t.Errorf("%v users wait, want 3: there is room for no more", got)
	}
	if f.metric(t, "dropped_total") == 0 {
		t.Error("nobody is counted as dropped")
	}
	f.proxy.Refuse(false)
	late := at.Add(2 * time.Minute)
	three := "u1" + late.Format(" 02 15:04") + ", u2" + late.Format(" 02 15:04") + ", u3" + late.Format(" 02 15:04")
	enginetest.Await(t, "what waited is written", func() bool { return f.active(t) == three })
	// Until the answer of Postgres is there they wait, and nothing makes room for the user who comes now.
	enginetest.Await(t, "the users wait no more", func() bool { return f.metric(t, "waiting_users") == 0 })
	f.send(t, used("again", "acme", "u4", late))
	enginetest.Await(t, "the next event makes up for what was dropped", func() bool { return f.active(t) == three+", u4"+late.Format(" 02 15:04") })
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestActivityThatCanNotBeWrittenAtTheEndIsCountedAsDropped(t *testing.T) {
	t.Parallel()
	f := newActivityFixture(t, 0, "u1")
	f.proxy.Refuse(true)
	at := time.Now().UTC()
	f.send(t, used("e", "acme", "u1", at))
	enginetest.Await(t, "the user waits", func() bool { return f.metric(t, "waiting_users") == 1 })
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	if got := f.metric(t, "dropped_total"); got != 1 {
		t.Errorf("%v are counted as dropped, want 1", got)
	}
}
