package consumers_test

import (
	"testing"

	"tenantflow/internal/engine/enginetest"
)

// The answer says that the void is on its way, so it does not come before the void is in the log, however long that takes.
func TestVoidRequest_ItsAnswerStandsBehindItsVoid(t *testing.T) {
	t.Parallel()
	f := newVoidFixture(t, enginetest.SharedKafka(t))
	f.use(t, "e-1", "a", 1)
	f.usage.start(t, consumer{})
	f.usage.AwaitConsumed(t)
	f.usage.Limit(t, f.usage.Topic, 100)
	stop := f.start(t, tenantService{rows: f.rows(t), noSweep: true})
	f.send(t, registration(f.company, f.now), f.ask("r-1", "e-1", 1))
	enginetest.Await(t, "the request to be decided", func() bool {
		return f.query(t, "SELECT count(*) FROM inbox WHERE event_id = 'r-1' AND state = 'done'")[0] == "(1)"
	})
	if err := stop(); err != nil { // what is under way has ended then
		t.Fatal(err)
	}
	if got := f.answers(t); len(got) > 0 {
		t.Fatalf("answers without the void: %v", got)
	}
	f.usage.Limit(t, f.usage.Topic, 1<<20)
	f.start(t, tenantService{rows: f.rows(t)})
	f.awaitAnswers(t, map[string]string{"r-1": "voided"})
	if voids := f.voids(t); len(voids) != 1 {
		t.Errorf("voids %+v", voids)
	}
}
