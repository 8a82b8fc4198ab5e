package consumers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/sinks/postgres"
)

// Two overrides of a company have ended: the service that says so is killed on the way, wherever that is. Each ends once.
func TestOverride_AKillWhereItEndsChangesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		step string
		nth  int32
	}{
		{string(consumers.TenantDuePublished), 1}, {string(postgres.TenantDecided), 3}, {string(postgres.TenantWritten), 3}, {string(postgres.TenantCommitted), 3},
		{string(postgres.TenantWritten), 4}, {string(consumers.TenantApplied), 2}, {string(consumers.TenantPublished), 2}, {string(consumers.TenantMarked), 2},
	} {
		t.Run(fmt.Sprintf("%s %d", c.step, c.nth), func(t *testing.T) {
			t.Parallel()
			f := newTenantFixture(t, enginetest.SharedKafka(t), "")
			company, at := unique(), time.Now().Add(-3*time.Hour).UTC().Truncate(time.Second)
			f.send(t, registration(company, at), tenantEvent("o-"+company, events.TypeLimitsOverridden, company, fmt.Sprintf(
				`"limits":{"max_users":3,"daily_api_calls":7},"reason":"r","expires_at":%q`, at.Add(time.Hour).Format(time.RFC3339)), at.Add(time.Minute)))
			enginetest.StartChild(t, tenantChildEnv, tenantCrash{f.brokers, f.prefix, f.dsn, f.partitions, c.step, c.nth, ""}).UntilKilled(t, c.step, func() bool { return false })
			f.start(t, tenantService{session: crashSession})
			enginetest.Await(t, "both to end", func() bool {
				return f.query(t, "SELECT count(*) FROM audit_log WHERE action = 'company.override_ended'")[0] == "(2)"
			})
			f.awaitConsumed(t)
			f.awaitPublished(t)
			f.checkAudit(t)
			if got := strings.Join(f.query(t, "SELECT action FROM audit_log ORDER BY seq"), " "); got !=
				"(company.created) (company.limits_overridden) (company.override_ended) (company.override_ended)" {
				t.Errorf("the audit log has %s", got)
			}
			if got := f.query(t, `SELECT (SELECT count(*) FROM limit_overrides), (SELECT count(*) FROM inbox), (SELECT count(*) FROM due_events), s.effective_limits = s.limits,
				c.config -> 'max_users' = s.limits -> 'max_users' FROM subscriptions AS s JOIN company_config AS c USING (company_id)`)[0]; got != "(0,4,0,t,t)" {
				t.Errorf("overrides, events, due, limits, configuration: %s", got)
			}
			changed := 0
			for _, r := range f.results(t) {
				if r.eventType == events.TypeLimitsChanged {
					changed++
				}
			}
			if changed != 3 {
				t.Errorf("%d changes of limits are published, want 3", changed)
			}
		})
	}
}

// The ends of overrides stand in the log: the same log, read again into empty stores, gives the same limits, users and results.
func TestOverride_LiveAndTheLogAgainAreEqual(t *testing.T) {
	t.Parallel()
	live := newTenantFixture(t, enginetest.SharedKafka(t), "")
	company, at := unique(), time.Now().UTC().AddDate(0, 0, -10).Truncate(time.Second)
	n := 0
	event := func(eventType, data string, after time.Duration) tenantMessage {
		n++
		return tenantEvent(fmt.Sprintf("%s-%d", company, n), eventType, company, data, at.Add(after))
	}
	override := func(limits string, after, ends time.Duration) tenantMessage {
		return event(events.TypeLimitsOverridden, fmt.Sprintf(`"limits":%s,"reason":"r","expires_at":%q`, limits, at.Add(ends).Format(time.RFC3339)), after)
	}
	user := func(after time.Duration) tenantMessage {
		return event(events.TypeUserAdded, fmt.Sprintf(`"user_id":"%s-u%d","email":"u%[2]d@x"`, company, n+2), after)
	}
	live.start(t, tenantService{})
	live.send(t, registration(company, at), override(`{"max_users":3,"storage_mb":1}`, time.Hour, 24*time.Hour))
	enginetest.Await(t, "both to end by the clock", func() bool {
		return live.query(t, "SELECT count(*) FROM audit_log WHERE action = 'company.override_ended'")[0] == "(2)"
	})
	live.send(t, user(12*time.Hour), // of before the end, and behind it in the log: there is no place
		override(`{"max_users":2}`, 25*time.Hour, 48*time.Hour), user(26*time.Hour),
		user(72*time.Hour), // of after the end, which comes first, whether the clock or this event ends it
		override(`{"max_users":40,"daily_api_calls":"unlimited"}`, 73*time.Hour, 1000*24*time.Hour), user(74*time.Hour), user(75*time.Hour))
	live.awaitConsumed(t)
	live.awaitPublished(t)
	told := func(f *tenantFixture) []string {
		var all []string
		for _, name := range []string{"overrides", "users", "configs", "subscriptions"} {
			for _, row := range f.query(t, tenantTables[name]) {
				all = append(all, name+" "+row)
			}
		}
		for id, r := range f.results(t) {
			all = append(all, "result "+id+" "+r.eventType)
		}
		slices.Sort(all)
		return all
	}
	want := told(live)
	if got := live.query(t, "SELECT count(*), count(*) FILTER (WHERE subscription_status = 'active') FROM user_directory"); got[0] != "(4,4)" {
		t.Errorf("users, active ones: %v", got)
	}
	f := newTenantFixture(t, enginetest.SharedKafka(t), postgrestest.On(t, enginetest.Postgres(t).DSN()))
	f.send(t, live.messages(t, events.TopicCompany)...)
	f.start(t, tenantService{})
	f.awaitConsumed(t)
	f.awaitPublished(t)
	if d := differ(told(f), want); len(d) > 0 {
		t.Errorf("the log again differs from live:\n%s", strings.Join(d, "\n"))
	}
	f.checkAudit(t)
}
