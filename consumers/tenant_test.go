package consumers_test

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
)

// unique starts the ids of a test's companies: their roles belong to the whole cluster.
func unique() string { return "t" + strings.ToLower(rand.Text()[:10]) }

func TestCompaniesRegisterAndSubscribeThroughTheirTopics(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	id, now := unique(), time.Now().Add(-time.Hour)
	company := func(i int) string { return fmt.Sprintf("%s-%d", id, i) }
	f.start(t, tenantService{})
	const companies = 5
	for i := range companies {
		c := company(i)
		f.send(t,
			tenantEvent(c+"-up", events.TypeUpgradeRequested, c, `"new_tier":"pro"`, now.Add(time.Minute)), // before its company is known, perhaps
			registration(c, now),
			tenantEvent(c+"-u2", events.TypeUserAdded, c, fmt.Sprintf(`"user_id":"%s-u2","email":"u2@x"`, c), now.Add(2*time.Minute)))
		// A resend, also of one that waited.
		f.send(t, tenantEvent(c+"-up", events.TypeUpgradeRequested, c, `"new_tier":"pro"`, now.Add(time.Minute)))
	}
	f.send(t, tenantEvent("other", events.TypeUpgradeRequested, company(0), `"new_tier":"gold"`, now.Add(3*time.Minute)))
	bad := tenantEvent("bad", events.TypeUpgradeRequested, company(0), `"new_tier":7`, now)
	stranger := tenantEvent("stranger", events.TypeUpgradeRequested, company(0), `"new_tier":"pro"`, now)
	stranger.Key = company(1)
	f.send(t, bad, stranger, tenantEvent("other", events.TypeUpgradeRequested, company(0), `"new_tier":"silver"`, now))
	f.awaitConsumed(t)
	f.awaitPublished(t)
	if got := f.query(t, "SELECT count(*), min(tier), max(tier) FROM subscriptions"); got[0] != "(5,pro,pro)" {
		t.Errorf("subscriptions: %v", got)
	}
	types := map[string]int{}
	for _, r := range f.results(t) {
		types[r.eventType]++
	}
	// A user who came before the upgrade was applied was one too many; then there is a refusal in its place.
	users := types[events.TypeUserProvisioned] + types[events.TypeCompanyRejected]
	if types[events.TypeCompanyCreated] != companies || types[events.TypeUpgraded] != companies || users != companies ||
		types[events.TypeSubscriptionRejected] != 1 || types[events.TypeConfigChanged] != 2*companies {
		t.Errorf("results: %v", types)
	}
	letters := f.log(events.TopicSubscription).Letters(t)
	if letters[events.InvalidData] != 1 || letters[events.KeyMismatch] != 1 || letters[events.Conflict] != 1 || len(letters) != 3 {
		t.Errorf("dead letters: %v", letters)
	}
}

func TestAnotherNumberOfPartitionsStopsTheConsumersUntilItIsAccepted(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	id, now := unique(), time.Now().Add(-time.Hour)
	stop := f.start(t, tenantService{})
	f.send(t, registration(id, now))
	f.awaitConsumed(t)
	enginetest.Await(t, "the number of partitions to be noted", func() bool {
		return f.query(t, "SELECT count(*) FROM topic_partitions")[0] == "(2)"
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.exec(t, "UPDATE topic_partitions SET partitions = 2 WHERE topic LIKE '%subscription%'") // as if it had had fewer
	f.send(t, tenantEvent(id+"-up", events.TypeUpgradeRequested, id, `"new_tier":"pro"`, now.Add(time.Minute)),
		tenantEvent(id+"-config", events.TypeConfigUpdated, id, `"config":{"a":1}`, now.Add(time.Minute)))
	tracker := health.New(time.Minute, slog.New(slog.DiscardHandler), events.TopicSubscription, events.TopicCompany)
	stop = f.start(t, tenantService{health: tracker})
	enginetest.Await(t, "readiness to say it", func() bool {
		return strings.Contains(fmt.Sprintf("%+v", tracker.Readiness()), "tenant partitions --accept")
	})
	enginetest.Await(t, "the other consumer to go on", func() bool {
		return f.query(t, "SELECT count(*) FROM inbox")[0] == "(2)"
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.exec(t, "UPDATE topic_partitions SET partitions = 3")
	f.start(t, tenantService{})
	f.awaitConsumed(t)
	if got := f.query(t, "SELECT tier FROM subscriptions"); got[0] != "(pro)" {
		t.Errorf("subscription: %v", got)
	}
}

// A sender whose clock is wrong must not take a company's time with it: whatever comes later would be dated to it.
func TestAnEventOfTheFutureIsADeadLetterAndLeavesTheCompanyItsTime(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	id, now := unique(), time.Now().UTC().Truncate(time.Second)
	f.start(t, tenantService{})
	f.send(t, registration(id, now.Add(-time.Minute)),
		tenantEvent(id+"-2099", events.TypeConfigUpdated, id, `"config":{"a":1}`, now.AddDate(73, 0, 0)),
		tenantEvent(id+"-soon", events.TypeConfigUpdated, id, `"config":{"b":1}`, now.Add(4*time.Minute)),
		tenantEvent(id+"-later", events.TypeCancelRequested, id, "", now.Add(6*time.Minute)))
	f.awaitConsumed(t)
	for _, topic := range []string{events.TopicCompany, events.TopicSubscription} {
		if got := f.log(topic).Letters(t); len(got) != 1 || got[events.TimestampInFuture] != 1 {
			t.Errorf("%s: dead letters %v", topic, got)
		}
	}
	if got := f.query(t, "SELECT config ->> 'a', config ->> 'b' FROM company_config"); len(got) != 1 || got[0] != "(,1)" {
		t.Errorf("configuration: %v", got)
	}
	if got := f.query(t, fmt.Sprintf("SELECT last_effect_at = '%s' FROM company_heads", now.Add(4*time.Minute).Format(time.RFC3339))); len(got) != 1 || got[0] != "(t)" {
		t.Errorf("the time the company has come to: %v", got)
	}
}
