package consumers_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/model"
)

// refused is an event of a company whose rows the table does not take in this test. It is a good event otherwise.
func refused(company string, number int, at time.Time) model.Message {
	e := events.Envelope{
		ID: fmt.Sprintf("refused-%d", number), Source: "/data-bridge/refused", Type: "usage.recorded.v1", Time: at,
		Data: fmt.Appendf(nil, `{"company_id":%q,"user_id":"u-%d","subscription_tier":"pro","service_name":"reporting","api_endpoint":"/v1/ticks",`+
			`"data_points_consumed":666,"processing_time_ms":1.5,"revenue_attributed":"0.25"}`, company, number),
	}
	m := model.Message{Key: []byte(company)}
	m.Value, m.Headers = e.EncodeBinary()
	return m
}

func TestARowThatClickHouseRefusesIsTheOnlyOneThatIsNotStored(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 1})
	if err := f.db.Exec(t.Context(), "ALTER TABLE usage_tracking ADD CONSTRAINT not_of_these CHECK NOT startsWith(company_id, 'refused-')"); err != nil {
		t.Fatal(err)
	}
	messages, want := traffic(t, model.Config{Seed: 41, Count: 400, Resends: 0.02, Conflicts: 0.01, Late: 0.05, LateSpan: 40 * 24 * time.Hour, Malformed: 0.01})
	// Some stand alone, some beside each other, some at the ends of batches; in this month and in earlier ones. The
	// name of one company is a part of the name of the constraint that refuses late rows.
	originals := map[string]model.Message{}
	now := time.Now().Add(-time.Hour)
	for number, at := range []int{0, 127, 128, 300, 301, 302, 399} {
		company := []string{"refused-acme", "refused-in_time"}[number%2]
		m := refused(company, number, now.Add(-time.Duration(number%3)*35*24*time.Hour))
		originals[fmt.Sprintf("refused-%d", number)] = m
		messages = slices.Insert(messages, at, m)
	}
	want.DeadLetters[events.RejectedByStore] += int64(len(originals))
	f.publish(t, messages)
	stop := f.start(t, consumer{insertTimeout: 3 * time.Second, rows: 128})
	f.finish(t, stop)
	f.verify(t, want)

	f.ReadAll(t, events.DeadLetterTopic(f.Topic), func(r *events.Record) {
		letter, err := events.ParseDeadLetter(r)
		if err != nil {
			t.Fatal(err)
		}
		if letter.Reason != events.RejectedByStore {
			return
		}
		id := ""
		for _, h := range letter.Headers {
			if h.Key == "ce_id" {
				id = string(h.Value)
			}
		}
		original, ok := originals[id]
		if !ok {
			t.Errorf("dead letter of event %q: %s", id, letter.Detail)
			return
		}
		sameHeaders := slices.EqualFunc(letter.Headers, original.Headers, func(a, b events.Header) bool {
			return a.Key == b.Key && bytes.Equal(a.Value, b.Value)
		})
		if !bytes.Equal(letter.Key, original.Key) || !bytes.Equal(letter.Value, original.Value) || !sameHeaders {
			t.Errorf("dead letter of event %s does not hold the original record: %+v", id, letter)
		}
		delete(originals, id)
	})
	for id := range originals {
		t.Errorf("no dead letter of event %s", id)
	}
}
