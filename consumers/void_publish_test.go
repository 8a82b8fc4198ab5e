package consumers_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
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

// A void says whether the record of its usage was counted.
func TestVoidRequest_OfReplayedUsageSaysSo(t *testing.T) {
	t.Parallel()
	f := newVoidFixture(t, enginetest.SharedKafka(t))
	for n, key := range []events.ReplayKey{nil, replayKey, events.ReplayKey("a producer's own")} {
		id, at := fmt.Sprint("e-", n), f.now.Add(time.Duration(n)*time.Second)
		value, head := (&events.Envelope{ID: id, Source: "/gateway", Type: events.TypeUsageRecorded, Time: at, Data: fmt.Appendf(nil,
			`{"company_id":%q,"user_id":"%s-u1","subscription_tier":"free","service_name":"s","api_endpoint":"/e","data_points_consumed":1,"processing_time_ms":1}`,
			f.company, f.company)}).EncodeBinary()
		if key != nil {
			head = key.ReplayHeaders(head, "task", []string{"usage"}, "/gateway", id)
		}
		f.send(t, tenantMessage{events.TopicUsage, "a", value, head, 0})
	}
	f.usage.start(t, consumer{})
	f.usage.AwaitConsumed(t)
	f.start(t, tenantService{rows: f.rows(t), replayKey: replayKey})
	f.send(t, registration(f.company, f.now), f.ask("r-0", "e-0", 0), f.ask("r-1", "e-1", 1), f.ask("r-2", "e-2", 2))
	f.awaitAnswers(t, map[string]string{"r-0": "voided", "r-1": "voided", "r-2": "voided"})
	voids := f.voids(t)
	for id, uncounted := range map[string]bool{"e-0": false, "e-1": true, "e-2": false} {
		if got := strings.Contains(voids[id].data, `"voids_counted": false`); got != uncounted {
			t.Errorf("the void of %s: %s", id, voids[id].data)
		}
	}
}
