package consumers_test

import (
	"testing"

	"tenantflow/internal/engine/enginetest"
)

// The answer says that the void is on its way, so it does not come before the void is in the log. What the topic does not take is held for a
// person, and is not tried for ever.
func TestVoidRequest_ItsAnswerStandsBehindItsVoid(t *testing.T) {
	t.Parallel()
	f := newVoidFixture(t, enginetest.SharedKafka(t))
	f.use(t, "e-1", "a", 1)
	f.usage.start(t, consumer{})
	f.usage.AwaitConsumed(t)
	f.usage.Limit(t, f.usage.Topic, 100)
	stop := f.start(t, tenantService{rows: f.rows(t), noSweep: true})
	f.send(t, registration(f.company, f.now), f.ask("r-1", "e-1", 1))
	enginetest.Await(t, "the void to be found too large", func() bool {
		return f.query(t, "SELECT count(*) FROM inbox WHERE event_id = 'r-1' AND state = 'done' AND fault IS NOT NULL")[0] == "(1)"
	})
	// Other requests go on.
	f.send(t, f.ask("r-2", "none", 1))
	f.awaitAnswers(t, map[string]string{"r-2": "unknown_usage"})
	if err := stop(); err != nil { // what is under way has ended then
		t.Fatal(err)
	}
	f.usage.Limit(t, f.usage.Topic, 1<<20)
	f.exec(t, "UPDATE inbox SET fault = NULL")
	f.start(t, tenantService{rows: f.rows(t)})
	f.awaitAnswers(t, map[string]string{"r-1": "voided", "r-2": "unknown_usage"})
	if voids := f.voids(t); len(voids) != 1 {
		t.Errorf("voids %+v", voids)
	}
}
