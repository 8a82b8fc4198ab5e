package consumers_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/dragonfly"
)

// eventually waits until a user's counters of a day are calls and data points.
func (f *quotaFixture) eventuallyCounted(t testing.TB, user string, day time.Time, want string) {
	t.Helper()
	enginetest.Await(t, fmt.Sprintf("%s to have %q", user, want), func() bool { return f.calls(t, user, day) == want })
}

// spentBy is usage of today, some seconds apart.
func spentBy(user string, n int) []*spent {
	at := sameDay(time.Hour).Add(-time.Hour).Truncate(time.Millisecond)
	all := make([]*spent, n)
	for i := range all {
		all[i] = &spent{id: fmt.Sprintf("%s-%d", user, i), company: "acme", user: user, at: at.Add(time.Duration(i) * time.Second), points: uint32(10 + i)}
	}
	return all
}

func TestVoid_TakesItsUsageOffTheDayOnce(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	all := spentBy("u", 3)
	f.count(t, quotaConsumer{window: time.Minute, rows: 2})
	f.Produce(t, all[0].record(), all[1].record(), all[2].record(), all[1].void(t, 10*time.Second))
	f.eventuallyCounted(t, "u", all[0].at, "2 22")
	// Long after the filter has forgotten the first: a resend, and a resend in a batch with another void.
	f.Produce(t, all[1].void(t, 20*time.Minute))
	f.AwaitConsumed(t)
	f.eventuallyCounted(t, "u", all[0].at, "2 22")
	f.Produce(t, all[1].void(t, 40*time.Minute), all[0].void(t, 40*time.Minute))
	f.eventuallyCounted(t, "u", all[0].at, "1 12")
	f.AwaitConsumed(t)
	f.flush(t)
	f.eventuallyCounted(t, "u", all[0].at, "1 12")
	// A new epoch with the counters still there: the share and what was taken off it are given up together.
	f.loseSentinel(t)
	f.eventuallyProgress(t, 7)
	f.eventuallyCounted(t, "u", all[0].at, "1 12")
	f.checkExpiry(t)
}

// What was not counted is not taken back.
func TestVoid_OfUncountedUsageTakesNothing(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	of := spentBy("u", 4)
	strange := *of[3]
	strange.id, strange.company = "strange", "rival"
	late := *of[3]
	late.id, late.at = "late", of[3].at.AddDate(0, 0, -4)
	lateVoid := late.void(t, 4*24*time.Hour, func(v *events.UsageVoided) { v.VoidsRecordedAt = late.at.AddDate(0, 0, 4) })
	lateRecord := late.record()
	lateRecord.Timestamp = late.at.AddDate(0, 0, 4)
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 100}
	f.count(t, quotaConsumer{})
	f.Produce(t, of[0].record(), strange.record(), of[1].record(), strange.void(t, time.Minute), lateRecord, lateVoid)
	f.AwaitConsumed(t)
	f.eventuallyCounted(t, "u", of[0].at, "2 21")
	if got := f.Letters(t); got[events.TenantMismatch] != 1 || len(got) != 1 {
		t.Errorf("dead letters %v, want that of the usage alone", got)
	}
	if got := f.calls(t, "u", late.at); got != "<nil> <nil>" {
		t.Errorf("a day that was over for good is counted: %q", got)
	}
}

// What a replay has published for the table alone was not counted: its void, which says so, takes nothing off.
func TestVoid_OfReplayedUsageTakesNothing(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	all := spentBy("u", 3)
	again := all[1].record()
	var headers []events.Header
	for _, h := range again.Headers {
		headers = append(headers, events.Header{Key: h.Key, Value: h.Value})
	}
	again.Headers = nil
	for _, h := range replayKey.ReplayHeaders(headers, "task", []string{"usage"}, voidedFrom, all[1].id) {
		again.Headers = append(again.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	f.count(t, quotaConsumer{replayKey: replayKey})
	f.Produce(t, all[0].record(), again, all[1].void(t, time.Minute, func(v *events.UsageVoided) { v.Uncounted = true }), all[2].record())
	f.AwaitConsumed(t)
	f.eventuallyCounted(t, "u", all[0].at, "2 22")
}

// A void waits with the usage it takes back until it is known whose the user was.
func TestVoid_WaitsBehindUndecidedUsage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ company, want string }{"the company's own": {"acme", "2 25"}, "another's": {"elsewhere", "<nil> <nil>"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{partitions: 1})
			all := spentBy("late", 3)
			users := &changing{users: deferring("elsewhere", time.Now().Add(longAfter))}
			f.count(t, quotaConsumer{users: users, rows: 1, deferFor: longAfter})
			f.Produce(t, all[0].record(), all[1].record(), all[2].record(), all[0].void(t, time.Minute))
			other := spentBy("u1", 1)[0]
			f.Produce(t, other.record())
			f.eventuallyCounted(t, "u1", other.at, "1 10")
			users.set(deferring(c.company, time.Time{}))
			f.eventuallyProgress(t, 5)
			want := c.want
			if c.company == "acme" {
				want = fmt.Sprintf("2 %d", all[1].points+all[2].points)
			}
			f.eventuallyCounted(t, "late", all[0].at, want)
			letters := int64(0)
			if c.company != "acme" {
				letters = 3
			}
			if got := f.Letters(t); got[events.TenantMismatch] != letters {
				t.Errorf("dead letters %v, want %d", got, letters)
			}
		})
	}
}

// A threshold is reached by the running count, with what was taken back before; what was reached stays reached.
func TestVoid_LowersTheCountOfThresholds(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string]int{"in one batch": 1000, "one by one": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{partitions: 1})
			all := spentBy("u", 6)
			f.members = members{Company: map[string]string{"u": "acme"}, Limit: 5}
			f.count(t, quotaConsumer{rows: rows})
			// 1 2 3, 2, 3, 4 of 5 is 80 %; 3, 4 again; never 5.
			f.Produce(t, all[0].record(), all[1].record(), all[2].record(), all[1].void(t, time.Minute), all[1].void(t, time.Minute), all[3].record(),
				all[4].record(), all[0].void(t, time.Minute), all[5].record())
			f.eventuallyCounted(t, "u", all[0].at, fmt.Sprintf("4 %d", all[2].points+all[3].points+all[4].points+all[5].points))
			f.AwaitConsumed(t)
			day := all[0].at.UTC().Format(time.DateOnly)
			got := f.thresholds(t)
			if len(got) != 1 || got[events.QuotaEventID("u", day, 80, 5)] == nil {
				t.Fatalf("threshold events: %v", got)
			}
			if e := got[events.QuotaEventID("u", day, 80, 5)]; e.CausationID != all[4].id {
				t.Errorf("80 %% was reached by %s, want %s", e.CausationID, all[4].id)
			}
		})
	}
}

func TestVoid_AKillWhileCountingChangesNothing(t *testing.T) {
	t.Parallel()
	for _, step := range quotaSteps() {
		t.Run(string(step), func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{partitions: 1})
			log, want := spendToday(t, rand.New(rand.NewPCG(3, 9)), 500, 1)
			f.members = members{Company: map[string]string{}, Limit: 8}
			for user := range want {
				f.members.Company[user] = "acme"
			}
			f.Produce(t, log...)
			f.crashAt(t, step, 1)
			f.crashAt(t, step, 2)
			f.count(t, quotaConsumer{rows: 100, session: crashSession})
			f.await(t, byDay(want))
			f.AwaitConsumed(t)
			f.await(t, byDay(want))
		})
	}
}

func byDay(users map[string]dragonfly.Counters) usage {
	day := sameDay(time.Hour).UTC().Format(time.DateOnly)
	out := usage{}
	for user, c := range users {
		out[user+"|"+day] = c
	}
	return out
}

// spendToday makes usage of today, resent and taken back at random, and what its users must have used in the end.
func spendToday(t testing.TB, r *rand.Rand, n int, partitions int32) ([]*kgo.Record, map[string]dragonfly.Counters) {
	t.Helper()
	w := &spending{Rand: r, partitions: partitions, voided: map[*spent]bool{}}
	var log []*kgo.Record
	for range n {
		log = append(log, w.next(t))
	}
	return log, w.counters()
}

// spending makes random traffic: usage, resends, voids, second voids.
type spending struct {
	*rand.Rand
	partitions int32
	made       []*spent
	voided     map[*spent]bool
}

func (w *spending) next(t testing.TB) *kgo.Record {
	t.Helper()
	if len(w.made) == 0 || w.IntN(2) == 0 {
		user := w.IntN(12)
		s := &spent{id: fmt.Sprintf("s-%d", len(w.made)), company: "acme", user: fmt.Sprintf("user-%d", user), points: w.Uint32N(1000),
			at: sameDay(time.Hour).Add(-time.Hour).Truncate(time.Second).Add(time.Duration(len(w.made)) * time.Millisecond), partition: int32(user) % w.partitions}
		w.made = append(w.made, s)
		return s.record()
	}
	s := w.made[max(0, len(w.made)-1-w.IntN(40))]
	if w.IntN(3) == 0 {
		return s.record()
	}
	w.voided[s] = true
	return s.void(t, time.Minute)
}

func (w *spending) counters() map[string]dragonfly.Counters {
	all := map[string]dragonfly.Counters{}
	for _, s := range w.made {
		c := all[s.user]
		if !w.voided[s] {
			c.APICalls++
			c.DataPoints += int64(s.points)
		}
		all[s.user] = c
	}
	return all
}

func (w *spending) rows() []string {
	rows := []string{}
	for _, s := range w.made {
		if rows = append(rows, s.id); w.voided[s] {
			rows = append(rows, "-"+s.id)
		}
	}
	slices.Sort(rows)
	return rows
}

// Usage, resends, voids and second voids in any order, read by both consumers, with stores that are lost, offsets that are set back and batches cut
// anywhere: rows, totals and counters are the model's.
func TestVoid_RandomOrdersLeaveWhatTheModelSays(t *testing.T) {
	t.Parallel()
	for range 3 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := &spending{Rand: rand.New(rand.NewPCG(seed, 0)), partitions: 2, voided: map[*spent]bool{}}
			f := newFixture(t, fixtureOptions{partitions: 2})
			q := newQuotaFixtureOver(t, f)
			store, count := f.start(t, consumer{rows: 50}), q.count(t, quotaConsumer{rows: 30})
			for range 6 {
				var log []*kgo.Record
				for range 20 + w.IntN(120) {
					log = append(log, w.next(t))
				}
				f.Produce(t, log...)
				switch w.IntN(5) {
				case 0:
					q.flush(t)
				case 1: // the usage consumer reads all of it again
					f.AwaitConsumed(t)
					if err := store(); err != nil {
						t.Fatal(err)
					}
					f.CommitOutside(t, map[int]int64{0: 0, 1: 0})
					store = f.start(t, consumer{rows: 1 + w.IntN(200)})
				case 2: // and the other one
					q.AwaitConsumed(t)
					if err := count(); err != nil {
						t.Fatal(err)
					}
					q.setOffsets(t, 0)
					count = q.count(t, quotaConsumer{rows: 1 + w.IntN(100)})
				case 3:
					q.loseSentinel(t)
				}
			}
			f.finish(t, store)
			f.wantRows(t, w.rows()...)
			f.wantLetters(t, map[int64]events.Reason{})
			q.await(t, byDay(w.counters()))
			q.AwaitConsumed(t)
			q.await(t, byDay(w.counters()))
			q.flush(t)
			q.await(t, byDay(w.counters()))
			q.checkExpiry(t)
		})
	}
}

// newQuotaFixtureOver counts the topic of another fixture.
func newQuotaFixtureOver(t testing.TB, f *fixture) *quotaFixture {
	t.Helper()
	own := *f
	own.Group = f.Topic + ".quota"
	q := &quotaFixture{fixture: &own, counterStore: newCounterStore(t), began: time.Now()}
	q.client, q.quotas = q.looking, f.Topic+".quotas"
	enginetest.CreateTopic(t, enginetest.SharedKafka(t), q.quotas, 1)
	return q
}
