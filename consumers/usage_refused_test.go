package consumers_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
)

// usageOf is one event of a user. Two with the same id, company and time, and other points, are a conflict.
func usageOf(id, company string, at time.Time, points int) model.Message {
	e := events.Envelope{
		ID: id, Source: "/data-bridge/fates", Type: "usage.recorded.v1", Time: at,
		Data: fmt.Appendf(nil, `{"company_id":%q,"user_id":"u-1","subscription_tier":"pro","service_name":"reporting","api_endpoint":"/v1/ticks",`+
			`"data_points_consumed":%d,"processing_time_ms":1.5,"revenue_attributed":"0.25"}`, company, points),
	}
	m := model.Message{Key: []byte("one partition")}
	m.Value, m.Headers = e.EncodeBinary()
	return m
}

// fates are how many rows are stored, and how many dead letters of each reason there are.
type fates struct {
	rows    uint64
	letters map[events.Reason]int64
}

func (f *fixture) fates(t *testing.T, want fates) {
	t.Helper()
	if rows := f.count(t, "SELECT count() FROM usage_tracking"); rows != want.rows {
		t.Errorf("%d rows, want %d", rows, want.rows)
	}
	for _, d := range model.CompareDeadLetters(f.Letters(t), want.letters) {
		t.Errorf("dead letters: %s", d)
	}
}

const refuseSome = "ALTER TABLE usage_tracking ADD CONSTRAINT not_of_these CHECK NOT startsWith(company_id, 'refused-')"

func TestUsage_ACopySharesTheFateOfItsFirst(t *testing.T) {
	t.Parallel()
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	known := usageOf("x", "acme", at, 1)
	for name, c := range map[string]struct {
		batch []model.Message
		want  fates
	}{
		"of a conflict with a stored event": {
			[]model.Message{usageOf("x", "acme", at, 2), usageOf("x", "acme", at, 2)},
			fates{1, map[events.Reason]int64{events.Conflict: 2}},
		},
		"of a conflict with another time": {
			[]model.Message{usageOf("x", "acme", at.Add(time.Minute), 1), usageOf("x", "acme", at.Add(time.Minute), 1), usageOf("x", "acme", at.Add(time.Minute), 1)},
			fates{1, map[events.Reason]int64{events.Conflict: 3}},
		},
		"of a refused row": {
			[]model.Message{usageOf("a", "acme", at, 1), usageOf("y", "refused-1", at, 1), usageOf("y", "refused-1", at, 1), usageOf("b", "acme", at, 1)},
			fates{3, map[events.Reason]int64{events.RejectedByStore: 2}},
		},
		"of a conflict with a refused row": {
			[]model.Message{usageOf("y", "refused-1", at, 1), usageOf("y", "refused-1", at, 2), usageOf("y", "refused-1", at, 1), usageOf("b", "acme", at, 1)},
			fates{2, map[events.Reason]int64{events.RejectedByStore: 2, events.Conflict: 1}},
		},
		"of a stored row": {
			[]model.Message{usageOf("y", "acme", at, 1), usageOf("y", "acme", at, 1), known, usageOf("y", "acme", at, 2)},
			fates{2, map[events.Reason]int64{events.Conflict: 1}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{partitions: 1})
			if err := f.db.Exec(t.Context(), refuseSome); err != nil {
				t.Fatal(err)
			}
			stop := f.start(t, faulty(1000))
			f.publish(t, []model.Message{known})
			f.AwaitConsumed(t)
			f.publish(t, c.batch)
			f.finish(t, stop)
			f.fates(t, c.want)
		})
	}
}

// A producer that uses one id for everything: the first event is stored, and each of the others is a conflict.
func TestUsage_AConstantIDIsOneRowAndLetters(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]time.Duration{"at one time": 0, "at different times": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const count = 20_000
			f := newFixture(t, fixtureOptions{partitions: 1})
			at := time.Now().Add(-time.Hour).Truncate(time.Second)
			messages := make([]model.Message, count)
			for i := range messages {
				messages[i] = usageOf("constant", "acme", at.Add(time.Duration(i)*step), i)
			}
			f.publish(t, messages)
			c, report := tracked(consumer{rows: 100_000})
			began := time.Now()
			f.finish(t, f.start(t, c))
			t.Logf("%d conflicts in %s", count-1, time.Since(began))
			f.fates(t, fates{1, map[events.Reason]int64{events.Conflict: count - 1}})
			if r := report(); r.Lag != 0 {
				t.Errorf("lag %d", r.Lag)
			}
		})
	}
}

func TestUsage_ATableThatRefusesAllStopsThePartition(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string]int{"in one batch": 1000, "in small batches": 7} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{partitions: 1})
			messages, want := traffic(t, model.Config{Seed: 71, Count: 600})
			if err := f.db.Exec(t.Context(), "ALTER TABLE usage_tracking ADD CONSTRAINT nothing CHECK length(company_id) > 1000"); err != nil {
				t.Fatal(err)
			}
			f.publish(t, messages)
			c, report := tracked(consumer{rows: rows, session: undisturbed}) // a partition that begins again counts the refused rows again
			stop := f.start(t, c)
			enginetest.Await(t, "the partition to stop", func() bool {
				return strings.Contains(report().Reason, "accepted none")
			})
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if n := f.Letters(t)[events.RejectedByStore]; n >= 120 || rows == 1000 && n != 0 {
				t.Errorf("%d events went to the dead letters", n)
			}
			if err := f.db.Exec(t.Context(), "ALTER TABLE usage_tracking DROP CONSTRAINT nothing"); err != nil {
				t.Fatal(err)
			}
			f.finish(t, f.start(t, consumer{rows: rows}))
			if n := f.count(t, "SELECT count() FROM usage_tracking"); int64(n)+f.Letters(t)[events.RejectedByStore] < want.Tables.Rows || int64(n) > want.Tables.Rows {
				t.Errorf("%d rows of %d, and %d dead letters", n, want.Tables.Rows, f.Letters(t)[events.RejectedByStore])
			}
		})
	}
}

// The bad rows of one company, however many side by side, cost no other company anything.
func TestUsage_ManyBadRowsOfOneCompanyStopNothing(t *testing.T) {
	t.Parallel()
	const bad = 110 // more than the breaker takes, all before the first good one
	f := newFixture(t, fixtureOptions{partitions: 1})
	if err := f.db.Exec(t.Context(), refuseSome); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Hour)
	var messages []model.Message
	for i := range bad {
		messages = append(messages, usageOf(fmt.Sprintf("bad-%d", i), "refused-1", at, i))
	}
	for i := range 20 {
		messages = append(messages, usageOf(fmt.Sprintf("good-%d", i), "acme", at, i))
	}
	f.publish(t, messages)
	c := consumer{rows: 1000}
	var steps int
	c.onStep = func(s consumers.UsageStep) {
		if s == consumers.StepUnknown {
			steps++
		}
	}
	f.finish(t, f.start(t, c))
	f.fates(t, fates{20, map[events.Reason]int64{events.RejectedByStore: bad}})
	t.Logf("%d refusals", steps)
}
