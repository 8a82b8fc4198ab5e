package consumers_test

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
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
	f.awaitConsumed(t, time.Minute)
	f.awaitPublished(t, time.Minute)
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
	letters := f.log(events.TopicSubscription).letters(t)
	if letters[events.InvalidData] != 1 || letters[events.KeyMismatch] != 1 || letters[events.Conflict] != 1 || len(letters) != 3 {
		t.Errorf("dead letters: %v", letters)
	}
}
