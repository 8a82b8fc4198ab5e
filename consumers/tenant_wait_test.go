package consumers_test

import (
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
)

func TestAnEventIsNotRefusedWhileItsRegistrationIsUnread(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	id, now := unique(), time.Now().Add(-time.Hour)
	stop := f.start(t, tenantService{wait: time.Second, noSweep: true})
	f.send(t, tenantEvent(id+"-up", events.TypeUpgradeRequested, id, `"new_tier":"pro"`, now.Add(time.Minute)),
		tenantEvent("stranger-up", events.TypeUpgradeRequested, id+"-stranger", `"new_tier":"pro"`, now))
	f.log(events.TopicSubscription).AwaitConsumed(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// The service is away for longer than events wait.
	f.send(t, registration(id, now))
	enginetest.Await(t, "the time to wait to be over", func() bool {
		return f.query(t, "SELECT count(*) FROM inbox WHERE state = 'waiting' AND wait_until < now()")[0] == "(2)"
	})
	f.start(t, tenantService{wait: time.Second})
	f.awaitConsumed(t)
	enginetest.Await(t, "both events to be at their end", func() bool {
		return f.query(t, "SELECT count(*) FROM inbox WHERE state = 'waiting'")[0] == "(0)"
	})
	if got := f.query(t, "SELECT company_id = '"+id+"', state FROM inbox WHERE type LIKE 'subscription.%' ORDER BY 1"); got[0] != "(f,rejected)" || got[1] != "(t,done)" {
		t.Errorf("the events that waited: %v", got)
	}
}
