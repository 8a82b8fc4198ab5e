package consumers_test

import (
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/model"
)

var replayKey = events.ReplayKey("0123456789abcdef0123456789abcdef") //nolint:gochecknoglobals // a constant

// replayed gives messages the headers of a replay for some consumers, with a proof made by a key.
func replayed(messages []model.Message, key events.ReplayKey, effects ...string) []model.Message {
	out := make([]model.Message, len(messages))
	for i, m := range messages {
		var source, id string
		for _, h := range m.Headers {
			switch h.Key {
			case "ce_source":
				source = string(h.Value)
			case "ce_id":
				id = string(h.Value)
			}
		}
		m.Headers = key.ReplayHeaders(m.Headers, "task", effects, source, id)
		out[i] = m
	}
	return out
}

func TestQuota_LeavesOutWhatAReplayProves(t *testing.T) {
	t.Parallel()
	start := sameDay(10 * time.Minute).Add(-10 * time.Minute) // a recount leaves out the day before
	f := newQuotaFixture(t, fixtureOptions{})
	messages, _ := recent(t, model.Config{Seed: 12, Count: 300, Start: start})
	_, want := recent(t, model.Config{Seed: 12, Count: 200, Start: start})
	f.know(want, 1000)
	f.publish(t, messages[:100])
	f.publish(t, replayed(messages[100:200], events.ReplayKey("a producer's own"), "usage")) // counts
	f.publish(t, replayed(messages[200:], replayKey, "usage"))                               // does not
	stop := f.count(t, quotaConsumer{replayKey: replayKey})
	f.check(t, want)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// A recount comes to the same, and the original of a replayed event counts, however soon it follows.
	if err := f.client.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	_, all := recent(t, model.Config{Seed: 12, Count: 300, Start: start})
	f.know(all, 1000)
	f.publish(t, messages[200:])
	f.count(t, quotaConsumer{replayKey: replayKey})
	f.check(t, all)
}

func TestUsage_NoHeaderHidesAnEvent(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	g, err := model.New(model.Config{Seed: 13, Count: 150, Start: time.Now().Add(-6 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	messages := make([]model.Message, 150)
	var want model.Expected // of the first 100
	for i := range messages {
		if i == 100 {
			want = g.Expected()
		}
		g.Next(&messages[i])
	}
	f.publish(t, messages[:90])
	f.publish(t, replayed(messages[90:100], replayKey, "usage"))
	f.publish(t, replayed(messages[:50], replayKey, "company"))  // they are there
	f.publish(t, replayed(messages[100:], replayKey, "company")) // they are not
	f.start(t, consumer{})
	f.AwaitConsumed(t)
	want.DeadLetters[events.MalformedEnvelope] = 50
	f.verify(t, want)
}
