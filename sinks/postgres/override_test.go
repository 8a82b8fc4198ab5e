package postgres_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// override makes an event that sets limits. Limits are JSON; until is an RFC 3339 time, or empty.
func (b *book) override(limits, until string) *events.Event {
	data := fmt.Sprintf(`"limits":%s,"reason":"ticket %d"`, limits, b.next)
	if until != "" {
		data += fmt.Sprintf(`,"expires_at":%q`, until)
	}
	return b.event(events.TypeLimitsOverridden, data)
}

// limits are those that hold for the company, as every reader sees them: by the subscription, the users' rows, the configuration and the
// directory's query.
func (b *book) limits(t *testing.T) string {
	t.Helper()
	held := b.row(t, `SELECT effective_limits ->> 'daily_api_calls', effective_limits ->> 'max_users', effective_limits ->> 'retention_days', effective_limits ->> 'storage_mb'
		FROM subscriptions`)
	if users := b.row(t, `SELECT DISTINCT u.subscription_limits = s.effective_limits FROM subscriptions AS s, "tenant_`+b.company+`".users AS u`); users != "(t)" {
		t.Errorf("the limits of users are other ones than those of the subscription: %s", users)
	}
	if config := b.row(t, "SELECT f.config -> 'max_users' = s.effective_limits -> 'max_users' FROM subscriptions AS s JOIN company_config AS f USING (company_id)"); config != "(t)" {
		t.Errorf("max_users of the configuration is another one: %s", config)
	}
	users, err := b.store.Users(t.Context(), []string{b.company + "-u1"})
	if err != nil || len(users) != 1 {
		t.Fatalf("users %+v: %v", users, err)
	}
	l := users[0].Limits
	if seen := fmt.Sprintf("(%s,%s,%s,%s)", l.DailyAPICalls, l.MaxUsers, l.RetentionDays, l.StorageMB); seen != held {
		t.Errorf("the directory sees %s, the subscription has %s", seen, held)
	}
	company, err := b.store.Company(t.Context(), b.company)
	if err != nil || company.Limits.DailyAPICalls != l.DailyAPICalls || company.Limits.MaxUsers != l.MaxUsers {
		t.Errorf("of the company %+v: %v", company.Limits, err)
	}
	sub, err := b.store.Subscription(t.Context(), b.company)
	if over := sub.Overrides.Over(sub.Limits); err != nil || over.DailyAPICalls != l.DailyAPICalls || over.StorageMB != l.StorageMB || over.MaxUsers != l.MaxUsers || over.RetentionDays != l.RetentionDays {
		t.Errorf("of the subscription %+v: %v", over, err)
	}
	return held
}

// dataOf is the data of the one result of a type.
func dataOf(t *testing.T, done []postgres.Applied, eventType string) map[string]any {
	t.Helper()
	for _, one := range done {
		for _, r := range one.Results {
			if r.Event != nil && r.Event.Type == eventType {
				var data map[string]any
				if err := json.Unmarshal(r.Event.Data, &data); err != nil {
					t.Fatal(err)
				}
				return data
			}
		}
	}
	t.Fatalf("there is no %s among %+v", eventType, done)
	return nil
}

func TestOverride_HoldsForEveryTierAndIsAudited(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	if got := b.limits(t); got != "(1000,1,30,100)" {
		t.Errorf("the tier's: %s", got)
	}
	version := func() int64 {
		users, err := b.store.Users(t.Context(), []string{b.company + "-u1"})
		if err != nil || len(users) != 1 {
			t.Fatalf("users %+v: %v", users, err)
		}
		return users[0].Version
	}
	before := version()
	done := b.apply(t, b.override(`{"daily_api_calls":5000,"max_users":2,"retention_days":"unlimited"}`, "2026-06-01T00:00:00.1234567Z"), "company.limits_changed", "company.config_changed")
	if got := b.limits(t); got != "(5000,2,unlimited,100)" {
		t.Errorf("overridden: %s", got)
	}
	if after := version(); after <= before {
		t.Errorf("the version of what is cached was %d and is %d", before, after)
	}
	data := dataOf(t, done, events.TypeLimitsChanged)
	if text := fmt.Sprintf("%v %v %v", data["change"], data["changes"], data["overrides"]); text != `overridden map[daily_api_calls:map[new:5000 old:1000] max_users:map[new:2 old:1] retention_days:map[new:unlimited old:30]] `+
		`[map[expires_at:2026-06-01T00:00:00.123456Z limit_name:daily_api_calls set_at:2026-01-31T10:02:00Z value:5000] map[expires_at:2026-06-01T00:00:00.123456Z limit_name:max_users set_at:2026-01-31T10:02:00Z value:2] `+
		`map[expires_at:2026-06-01T00:00:00.123456Z limit_name:retention_days set_at:2026-01-31T10:02:00Z value:unlimited]]` {
		t.Errorf("the result says %s", text)
	}
	if strings.Contains(fmt.Sprint(data), "ticket") {
		t.Errorf("the reason is in the result: %v", data)
	}
	if got := b.row(t, "SELECT action, details FROM audit_log ORDER BY seq DESC LIMIT 1"); got !=
		`(company.limits_overridden,"{""expires_at"":""2026-06-01T00:00:00.123456Z"",""limits"":{""daily_api_calls"":5000,""max_users"":2,""retention_days"":""unlimited""},""reason"":""ticket 1""}")` {
		t.Errorf("the audit log says %s", got)
	}
	b.apply(t, b.event(events.TypeUserAdded, fmt.Sprintf(`"user_id":"%s-u2","email":"u2@x"`, b.company)), "company.user_provisioned")
	b.apply(t, b.event(events.TypeUserAdded, fmt.Sprintf(`"user_id":"%s-u3","email":"u3@x"`, b.company)), "company.rejected user_limit_reached")
	done = b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	if got := b.limits(t); got != "(5000,2,unlimited,10240)" {
		t.Errorf("on pro: %s", got)
	}
	if limits := fmt.Sprint(dataOf(t, done, events.TypeUpgraded)["limits"]); !strings.Contains(limits, "daily_api_calls:5000") || !strings.Contains(limits, "storage_mb:10240") {
		t.Errorf("the upgrade says %s", limits)
	}
	done = b.apply(t, b.event(events.TypeDowngradeRequested, `"new_tier":"free","effective":"immediate"`), "subscription.downgraded", "company.config_changed")
	if got := b.limits(t); got != "(5000,2,unlimited,100)" {
		t.Errorf("on free again: %s", got)
	}
	if lost := fmt.Sprint(dataOf(t, done, events.TypeDowngraded)["restrictions_applied"]); strings.Contains(lost, "users") || strings.Contains(lost, "calls") || !strings.Contains(lost, "storage_mb") {
		t.Errorf("the downgrade takes away %s", lost)
	}
	b.apply(t, b.override(`{"daily_api_calls":null,"storage_mb":0}`, ""), "company.limits_changed")
	if got := b.limits(t); got != "(1000,2,unlimited,0)" {
		t.Errorf("one back, one more: %s", got)
	}
	b.apply(t, b.override(`{"daily_api_calls":null,"max_users":null,"retention_days":null,"storage_mb":null}`, ""), "company.limits_changed", "company.config_changed")
	if got := b.limits(t) + b.row(t, "SELECT count(*) FROM limit_overrides"); got != "(1000,1,30,100)(0)" {
		t.Errorf("all back: %s", got)
	}
	b.apply(t, b.override(`{"max_users":null}`, ""), "company.limits_changed") // which there was none of
}

func TestOverride_ThatWouldEndBeforeItBegins(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	for _, end := range []string{"2025-01-01T00:00:00Z", "2026-01-31T10:03:00Z"} { // the second is its own time
		b.apply(t, b.override(`{"max_users":7}`, end), "company.rejected invalid_period")
	}
	old := b.override(`{"max_users":7}`, "2026-01-31T10:00:30Z") // before the registration, which has had its effect
	old.Time = time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC)
	b.apply(t, old, "company.rejected invalid_period")
	if got := b.limits(t) + b.row(t, "SELECT count(*) FROM limit_overrides"); got != "(1000,1,30,100)(0)" {
		t.Errorf("refused, and %s", got)
	}
}

func TestOverride_EndsOnceByTheClock(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.override(`{"max_users":7,"storage_mb":5}`, "2026-02-05T00:00:00Z"), "company.limits_changed", "company.config_changed")
	b.apply(t, b.override(`{"daily_api_calls":9}`, "2026-02-07T00:00:00Z"), "company.limits_changed")
	b.apply(t, b.override(`{"retention_days":9}`, ""), "company.limits_changed")
	due := func(partition int, by string) []*events.Event {
		t.Helper()
		until, err := time.Parse(time.DateOnly, by)
		if err != nil {
			t.Fatal(err)
		}
		found, err := b.tenants.CompanyDue(t.Context(), partition, until, 10)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if none := append(due(3, "2026-02-04"), due(2, "2026-02-06")...); len(none) != 0 {
		t.Errorf("due before its time, or in another partition: %v", none)
	}
	first := due(3, "2026-02-06")
	if len(first) != 1 || first[0].ID != "due:"+b.company+":override:storage_mb:2026-02-05T00:00:00Z" || first[0].Source != "/tenantflow/schedule" ||
		first[0].Type != "company.due.v1" || first[0].Key != b.company || !first[0].Time.Equal(time.Date(2026, 2, 5, 0, 0, 0, 0, time.UTC)) {
		t.Fatalf("due: %+v", first)
	}
	if err := b.tenants.MarkDue(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if again := due(3, "2026-02-06"); len(again) != 0 {
		t.Errorf("at once again: %v", again)
	}
	if later := due(3, "2026-02-08"); len(later) != 1 || !strings.Contains(later[0].ID, "daily_api_calls") {
		t.Errorf("what ends later: %v", later)
	}
	early := b.place(3)
	early.Appended = first[0].Time.Add(-time.Millisecond)
	if done, err := b.tenants.Apply(t.Context(), first[0], early); err != nil || len(done) != 0 {
		t.Errorf("taken before its time: %v, %v", done, err)
	}
	if got := b.row(t, "SELECT count(*) FROM inbox"); got != "(4)" {
		t.Errorf("inbox: %s", got)
	}
	b.exec(t, "UPDATE due_events SET published_at = published_at - interval '10 minutes'")
	if again := due(3, "2026-02-06"); len(again) != 1 {
		t.Errorf("after ten minutes: %v", again)
	}
	// An event in another partition moves the company there, also one that is refused; one of the other topic does not.
	if _, err := b.tenants.Apply(t.Context(), b.event(events.TypeUserRemoved, `"user_id":"stranger"`), b.place(5)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.tenants.Apply(t.Context(), b.event(events.TypeChangeWithdrawn, ""), b.place(6)); err != nil {
		t.Fatal(err)
	}
	if found := append(due(5, "2026-02-06"), due(6, "2026-02-06")...); len(found) != 1 {
		t.Errorf("in the partition of the last event: %v", found)
	}
	for i, want := range [][]string{{"company.limits_changed", "company.config_changed", "company.limits_changed"}, {}} {
		done, err := b.tenants.Apply(t.Context(), first[0], b.place(5))
		if err != nil {
			t.Fatal(err)
		}
		b.expect(t, fmt.Sprintf("the %d. copy", i+1), done, want)
		if i == 0 {
			data := dataOf(t, done[1:], events.TypeLimitsChanged)
			handled, _ := data["handled_at"].(string)
			if data["change"] != "ended" || data["effective_date"] != "2026-02-05T00:00:00Z" || handled <= "2026-02-05" {
				t.Errorf("the result says %v", data)
			}
		}
	}
	if got := b.limits(t); got != "(9,1,9,100)" {
		t.Errorf("two have ended: %s", got)
	}
	if got := b.row(t, "SELECT count(*) FROM due_events") + b.row(t, "SELECT count(*) FROM inbox WHERE source = '/tenantflow/schedule' AND state = 'done'"); got != "(0)(2)" {
		t.Errorf("published and not done, done: %s", got)
	}
	if got := b.row(t, "SELECT action, details FROM audit_log ORDER BY seq DESC LIMIT 1"); got != `(company.override_ended,"{""expires_at"":""2026-02-05T00:00:00Z"",""limit"":""storage_mb""}")` {
		t.Errorf("the audit log says %s", got)
	}
}

func TestOverride_ReplacedDoesNotEndAtItsOldTime(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.override(`{"daily_api_calls":7}`, "2026-02-05T00:00:00Z"), "company.limits_changed")
	old := tenant.DueCause(b.company, tenant.Due{Kind: tenant.DueOverride, Name: "daily_api_calls", At: time.Date(2026, 2, 5, 0, 0, 0, 0, time.UTC)}).Event
	b.apply(t, b.override(`{"daily_api_calls":8}`, "2026-03-05T00:00:00Z"), "company.limits_changed")
	b.apply(t, old)
	if got := b.limits(t); got != "(8,1,30,100)" {
		t.Errorf("its successor has ended: %s", got)
	}
	b.apply(t, b.override(`{"daily_api_calls":9}`, "2026-02-05T00:00:00Z"), "company.limits_changed")
	b.apply(t, old, "company.limits_changed") // the same time may come twice
	b.apply(t, b.override(`{"daily_api_calls":10}`, "2026-02-05T00:00:00Z"), "company.rejected invalid_period")
	if got := b.limits(t); got != "(1000,1,30,100)" {
		t.Errorf("ended: %s", got)
	}
}

func TestOverride_EndsBeforeALaterCompanyEvent(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.override(`{"max_users":7}`, "2026-02-05T00:00:00Z"), "company.limits_changed", "company.config_changed")
	add := func(n int) *events.Event {
		return b.event(events.TypeUserAdded, fmt.Sprintf(`"user_id":"%s-u%d","email":"u%[2]d@x"`, b.company, n))
	}
	b.apply(t, add(2), "company.user_provisioned")
	b.clock = time.Date(2026, 2, 5, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed") // which ends none
	if got := b.limits(t); got != "(50000,7,365,10240)" {
		t.Errorf("after an event of the other topic: %s", got)
	}
	b.apply(t, b.event(events.TypeDowngradeRequested, `"new_tier":"free","effective":"immediate"`), "subscription.downgraded", "company.config_changed")
	b.apply(t, add(3), "company.limits_changed", "company.config_changed", "company.rejected user_limit_reached")
	if got := b.row(t, "SELECT user_id, subscription_status FROM user_directory ORDER BY user_id"); got != strings.ReplaceAll("(C-u1,active) ; (C-u2,suspended)", "C", b.company) {
		t.Errorf("users: %s", got)
	}
	late := add(3) // of before the end, and behind it in the log
	late.Time = time.Date(2026, 2, 4, 0, 0, 0, 0, time.UTC)
	b.apply(t, late, "company.rejected user_limit_reached")
}

func TestOverride_SeatsTheUsersThereArePlacesFor(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.override(`{"max_users":"unlimited"}`, ""), "company.limits_changed", "company.config_changed")
	for n := 2; n <= 4; n++ {
		b.apply(t, b.event(events.TypeUserAdded, fmt.Sprintf(`"user_id":"%s-u%d","email":"u%[2]d@x"`, b.company, n)), "company.user_provisioned")
	}
	for _, c := range []struct{ limit, active, suspended, reactivated string }{
		{"3", "u1 u2 u3", "u4", ""}, {"0", "", "u1 u2 u3", ""}, {"2", "u1 u2", "", "u1 u2"}, {"null", "u1", "u2", ""}, {`"unlimited"`, "u1 u2 u3 u4", "", "u2 u3 u4"},
	} {
		done := b.apply(t, b.override(`{"max_users":`+c.limit+`}`, ""), "company.limits_changed", "company.config_changed")
		names := func(value any) string {
			list, _ := value.([]any)
			var short []string
			for _, name := range list {
				short = append(short, strings.TrimPrefix(fmt.Sprint(name), b.company+"-"))
			}
			return strings.Join(short, " ")
		}
		data := dataOf(t, done, events.TypeLimitsChanged)
		if s, r := names(data["users_suspended"]), names(data["users_reactivated"]); s != c.suspended || r != c.reactivated {
			t.Errorf("max_users %s: suspended %q, reactivated %q, want %q and %q", c.limit, s, r, c.suspended, c.reactivated)
		}
		want := ""
		if c.active != "" {
			want = "(" + strings.Join(strings.Fields(c.active), ") ; (") + ")"
		}
		if got := b.row(t, "SELECT replace(user_id, '"+b.company+"-', '') FROM user_directory WHERE subscription_status = 'active' ORDER BY user_id"); got != want {
			t.Errorf("max_users %s: active %s, want %s", c.limit, got, want)
		}
	}
	// A downgrade looks at the limit that holds.
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.upgraded", "company.config_changed")
	b.apply(t, b.override(`{"max_users":3}`, ""), "company.limits_changed", "company.config_changed")
	done := b.apply(t, b.event(events.TypeDowngradeRequested, `"new_tier":"free","effective":"immediate"`), "subscription.downgraded", "company.config_changed")
	if lost := dataOf(t, done, events.TypeDowngraded)["restrictions_applied"]; strings.Contains(fmt.Sprint(lost), "users") {
		t.Errorf("the downgrade suspends users: %v", lost)
	}
	b.apply(t, b.event(events.TypeUserRemoved, fmt.Sprintf(`"user_id":"%s-u1"`, b.company)), "company.user_deprovisioned")
	if got := b.row(t, "SELECT count(*) FILTER (WHERE subscription_status = 'active'), count(*) FROM user_directory"); got != "(3,3)" {
		t.Errorf("active, all: %s", got)
	}
}

func TestCompanyDue_IsTheServicesOwn(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.override(`{"daily_api_calls":7}`, "2026-02-05T00:00:00Z"), "company.limits_changed")
	due := tenant.DueCause(b.company, tenant.Due{Kind: tenant.DueOverride, Name: "daily_api_calls", At: time.Date(2026, 2, 5, 0, 0, 0, 0, time.UTC)}).Event
	for name, change := range map[string]func(e *events.Event){
		"another source": func(e *events.Event) { e.Source = "/hub" },
		"another id":     func(e *events.Event) { e.ID += "0" },
		"another time":   func(e *events.Event) { e.Time = e.Time.Add(time.Second) },
		"another limit": func(e *events.Event) {
			e.Data = []byte(strings.Replace(string(e.Data), "daily_api_calls", "max_users", 1))
		},
		"another type": func(e *events.Event) { e.Type = events.TypeCompanyClosed },
	} {
		forged := *due
		change(&forged)
		if _, err := b.tenants.Apply(t.Context(), &forged, b.place(3)); !isRejection(err, events.MalformedEnvelope) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.apply(t, due, "company.limits_changed")
}

func TestOverride_OfAClosedCompanyEndsNoMore(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.override(`{"daily_api_calls":7}`, "2026-02-05T00:00:00Z"), "company.limits_changed")
	counted := func() string {
		t.Helper()
		all, err := b.tenants.Overridden(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(all)
	}
	if got := counted(); got != "[{daily_api_calls 1}]" {
		t.Errorf("counted %s", got)
	}
	b.apply(t, b.event(events.TypeCompanyClosed, ""), "subscription.due", "company.archived")
	if got := counted(); got != "[]" {
		t.Errorf("counted %s of a closed company", got)
	}
	if due, err := b.tenants.CompanyDue(t.Context(), 3, time.Time{}, 10); err != nil || len(due) != 0 {
		t.Errorf("due to a closed company: %v, %v", due, err)
	}
	b.apply(t, tenant.DueCause(b.company, tenant.Due{Kind: tenant.DueOverride, Name: "daily_api_calls", At: time.Date(2026, 2, 5, 0, 0, 0, 0, time.UTC)}).Event)
	b.apply(t, b.override(`{"daily_api_calls":8}`, ""), "company.rejected company_closed")
	if got := b.row(t, "SELECT value, expires_at FROM limit_overrides"); got != `(7,"2026-02-05 00:00:00+00")` {
		t.Errorf("overrides: %s", got)
	}
	b.apply(t, b.event(events.TypeCompanyClosed, `"purge":true`), "company.archived", "company.config tombstone")
	if got := b.row(t, "SELECT count(*) FROM limit_overrides"); got != "(0)" {
		t.Errorf("overrides of a purged company: %s", got)
	}
}

// A limit that tiers need not have comes with an override and goes with it.
func TestOverride_OfDataPoints(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	points := func() string {
		t.Helper()
		users, err := b.store.Users(t.Context(), []string{b.company + "-u1"})
		if err != nil || len(users) != 1 {
			t.Fatalf("users %+v: %v", users, err)
		}
		return users[0].Limits.DataPoints().String() + b.row(t, "SELECT effective_limits ->> 'daily_data_points', limits ? 'daily_data_points' FROM subscriptions")
	}
	for _, c := range []struct {
		limits, want string
		old, new     any // nil: it is no change
	}{
		{`{"daily_data_points":"unlimited"}`, "unlimited(unlimited,f)", nil, nil},
		{`{"daily_data_points":null}`, "unlimited(,f)", nil, nil},
		{`{"daily_data_points":250000}`, "250000(250000,f)", "unlimited", 250000.0},
		{`{"daily_data_points":0}`, "0(0,f)", 250000.0, 0.0},
		{`{"daily_data_points":"unlimited"}`, "unlimited(unlimited,f)", 0.0, "unlimited"},
		{`{"daily_data_points":7}`, "7(7,f)", "unlimited", 7.0},
		{`{"daily_data_points":null}`, "unlimited(,f)", 7.0, "unlimited"},
	} {
		data := dataOf(t, b.apply(t, b.override(c.limits, ""), "company.limits_changed"), events.TypeLimitsChanged)
		if got := points(); got != c.want {
			t.Errorf("%s: %s, want %s", c.limits, got, c.want)
		}
		changes, _ := data["changes"].(map[string]any)
		if change, there := changes["daily_data_points"].(map[string]any); change["old"] != c.old || change["new"] != c.new || there != (c.old != nil) {
			t.Errorf("%s: changes %v", c.limits, changes)
		}
		b.limits(t) // every copy says the same
	}
	for _, wrong := range []string{"-1", "1.5", "null", `"many"`, "1000000000000000000"} {
		if _, err := b.conn.Exec(t.Context(), `UPDATE subscriptions SET limits = limits || jsonb_build_object('daily_data_points', $1::jsonb)`, wrong); err == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
}

// The rules in Go and the trigger in Postgres say what holds: both must say the same, whatever the limits are.
func TestEffectiveLimits_AreTheSameInGoAndPostgres(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	values := []tier.Limit{tier.Unlimited, 0, 1, 999_999_999_999_999_999}
	for i := range 1 << (2 * len(tier.LimitNames())) {
		if i%7 != 0 { // some of all
			continue
		}
		var all tenant.Overrides
		for n, name := range tier.LimitNames() {
			if i>>n&1 == 0 {
				all = append(all, tenant.Override{Limit: name, Value: values[i>>(n+len(tier.LimitNames())/2)&3]})
			}
		}
		b.exec(t, "DELETE FROM limit_overrides")
		for _, o := range all {
			value, err := json.Marshal(o.Value)
			if err != nil {
				t.Fatal(err)
			}
			b.exec(t, fmt.Sprintf("INSERT INTO limit_overrides (company_id, limit_name, value, reason) VALUES ('%s', '%s', '%s', 'r')", b.company, o.Limit, value))
		}
		sub, err := b.store.Subscription(t.Context(), b.company)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(all.Over(sub.Limits))
		if err != nil {
			t.Fatal(err)
		}
		if got := b.row(t, "SELECT effective_limits = '"+string(want)+"'::jsonb FROM subscriptions"); got != "(t)" {
			t.Errorf("overrides %+v: %s", all, b.row(t, "SELECT effective_limits FROM subscriptions"))
		}
	}
}
