package consumers_test

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/consumers"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/sinks/dragonfly"
)

func TestEveryEventIsCountedOnce(t *testing.T) {
	t.Parallel()
	brokers := map[string]func(testing.TB) *engine.Kafka{"embedded": enginetest.SharedKafka, "apache": enginetest.SharedApacheKafka}
	for name, broker := range brokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{broker: broker(t), partitions: 4})
			messages, want := recent(t, model.Config{Seed: 3, Count: 8000, Resends: 0.1, Conflicts: 0.01, Late: 0.1, Malformed: 0.02, Structured: 0.2})
			f.know(want, 60)
			f.publish(t, messages)
			stop := f.count(t, quotaConsumer{})
			f.check(t, want)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if got := f.Letters(t); len(got) != 0 {
				t.Errorf("dead letters, which are the usage consumer's to write: %v", got)
			}
		})
	}
}

const quotaChildEnv = "QUOTA_CRASH_CHILD"

// stepRefused is where the store has no memory for what it is to do.
const stepRefused consumers.QuotaStep = "refused"

// A quotaCrash is where a child kills itself.
type quotaCrash struct {
	Brokers, Topic, Group, Quotas, URL string
	Partitions                         int
	Members                            members
	Step                               consumers.QuotaStep
	Nth                                int32
}

func (c quotaCrash) run() error {
	kill := nth(c.Nth, enginetest.KillSelf)
	f := &quotaFixture{fixture: &fixture{Log: kafkatest.Log{Brokers: c.Brokers, Topic: c.Topic, Group: c.Group, Partitions: c.Partitions}}, quotas: c.Quotas, members: c.Members}
	o, err := redis.ParseURL(c.URL)
	if err == nil {
		users := &changing{users: c.Members}
		err = quotaConsumer{rows: 100, session: crashSession, users: users, deferFor: longAfter, onStep: func(s consumers.QuotaStep) {
			if s == c.Step {
				kill()
			}
			if s == consumers.QuotaCounted && s == c.Step { // once the first batch is counted, all company events are applied
				known := c.Members
				known.Applied = time.Time{}
				users.set(known)
			}
		}, wrap: func(s consumers.QuotaSession) consumers.QuotaSession {
			if c.Step == stepRefused {
				return starved{s, kill}
			}
			return s
		}}.run(context.Background(), f, o)
	}
	return err
}

// crashAt runs a child until it has killed itself.
func (f *quotaFixture) crashAt(t *testing.T, step consumers.QuotaStep, nth int32) {
	t.Helper()
	task := quotaCrash{Brokers: f.Brokers, Topic: f.Topic, Group: f.Group, Quotas: f.quotas, URL: f.url,
		Partitions: f.Partitions, Members: f.members, Step: step, Nth: nth}
	if !enginetest.StartChild(t, quotaChildEnv, task).UntilKilled(t, string(step), func() bool { return false }) {
		t.Fatalf("the child never came to %s a %d. time", step, nth)
	}
}

func quotaSteps() []consumers.QuotaStep {
	return []consumers.QuotaStep{consumers.QuotaFormed, consumers.QuotaCounted, consumers.QuotaPublished, consumers.QuotaCleared, consumers.QuotaNoted}
}

func TestAKillAtAnyBorderOfCountingChangesNothing(t *testing.T) {
	t.Parallel()
	for _, step := range quotaSteps() {
		t.Run(string(step), func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{})
			messages, want := recent(t, model.Config{Seed: 7, Count: 1500, Resends: 0.1, Late: 0.05, Malformed: 0.02, Companies: 4, UsersPerCompany: 4})
			f.know(want, 50)
			f.publish(t, messages)
			f.crashAt(t, step, 1)
			f.crashAt(t, step, 2)
			f.count(t, quotaConsumer{rows: 100, session: crashSession})
			f.check(t, want)
		})
	}
}

func TestKillsAtRandomBordersOfCountingChangeNothing(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	f := newQuotaFixture(t, fixtureOptions{partitions: 3})
	messages, want := recent(t, model.Config{Seed: seed, Count: 6000, Resends: 0.1, Conflicts: 0.01, Late: 0.1, Malformed: 0.02, Companies: 4, UsersPerCompany: 6})
	f.know(want, 100)
	f.publish(t, messages)
	steps := quotaSteps()
	for range 4 {
		f.crashAt(t, steps[random.IntN(3)], 1+random.Int32N(4))
	}
	f.count(t, quotaConsumer{rows: 100, session: crashSession})
	f.check(t, want)
}

func TestTwoMembersCountEveryEventOnceWhileOneComesAndGoes(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 6})
	messages, want := recent(t, model.Config{Seed: 11, Count: 12000, Resends: 0.1, Late: 0.05})
	f.know(want, 80)
	f.count(t, quotaConsumer{rows: 50})
	for part := range 6 {
		stop := f.count(t, quotaConsumer{rows: 50})
		f.publish(t, messages[part*2000:(part+1)*2000])
		if part%2 == 1 {
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		} else {
			defer func() { _ = stop() }()
		}
	}
	f.check(t, want)
}

func TestAFlushedStoreHealsByItselfWithTrafficAndWithout(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 3})
	messages, want := recent(t, model.Config{Seed: 13, Count: 9000, Resends: 0.1})
	f.know(want, 80)
	var batches atomic.Int32
	f.count(t, quotaConsumer{rows: 100, onStep: func(s consumers.QuotaStep) {
		if s == consumers.QuotaCounted {
			batches.Add(1)
		}
	}})
	f.publish(t, messages[:6000])
	enginetest.Await(t, "some batches", func() bool { return batches.Load() > 10 })
	f.flush(t) // in the middle
	f.publish(t, messages[6000:])
	f.flush(t)
	f.check(t, want)
	f.flush(t) // idle
	f.check(t, want)
}

func (f *quotaFixture) flush(t testing.TB) {
	t.Helper()
	if err := f.client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestAKilledStoreLosesNothingWhateverItRemembers(t *testing.T) {
	t.Parallel()
	for _, persistence := range []engine.Persistence{engine.AppendOnly, engine.Snapshot, engine.Forgetful} {
		t.Run(string(persistence), func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{partitions: 3}, enginetest.Persist(persistence))
			messages, want := recent(t, model.Config{Seed: 17, Count: 9000, Resends: 0.1, Late: 0.05})
			if persistence == engine.Forgetful {
				// What was lost of days that are over is not recounted.
				messages, want = recent(t, model.Config{Seed: 17, Count: 9000, Resends: 0.1})
			}
			f.know(want, 80)
			f.count(t, quotaConsumer{rows: 100})
			// A snapshot without any progress is a lost store, of whose earlier days nothing is recounted.
			enginetest.Await(t, "the counting to begin", func() bool {
				fields, err := f.client.HLen(t.Context(), dragonfly.SentinelKey(7)).Result()
				return err == nil && fields == int64(f.Partitions)+1
			})
			for part := range 3 {
				f.publish(t, messages[part*3000:part*3000+1500])
				if persistence == engine.Snapshot {
					if err := f.client.Save(t.Context()).Err(); err != nil {
						t.Fatal(err)
					}
				}
				f.publish(t, messages[part*3000+1500:(part+1)*3000])
				if err := f.redis.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := f.redis.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			f.check(t, want)
			if err := f.redis.Kill(); err != nil { // idle
				t.Fatal(err)
			}
			if err := f.redis.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.check(t, want)
		})
	}
}
