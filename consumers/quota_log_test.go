package consumers_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/sinks/dragonfly"
)

// The last record counted lies further ahead of its time than one of the two runs takes, so it is understood in one of them only.
func TestQuota_ALogIsTheSameUnderOtherSettings(t *testing.T) {
	t.Parallel()
	for name, tolerance := range map[string][2]time.Duration{"lowered": {time.Hour, 5 * time.Minute}, "raised": {5 * time.Minute, time.Hour}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{partitions: 1})
			now := sameDay(0)
			f.send(t, used("1", "acme", "u", now), used("2", "acme", "v", now.Add(10*time.Minute)))
			stop := f.count(t, quotaConsumer{future: tolerance[0]})
			f.AwaitConsumed(t)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			f.send(t, used("3", "acme", "u", now))
			log := &kafkatest.Transcript{}
			f.count(t, quotaConsumer{future: tolerance[1], log: log.Logger()})
			enginetest.Await(t, "the third event to be counted, or the partition to stop", func() bool { return f.calls(t, "u", now) == "2 6" || log.Has("topic_recreated") })
			if log.Has("topic_recreated") {
				t.Errorf("the partition is stopped, u has %s", f.calls(t, "u", now))
			}
		})
	}
}

// What versions before noted of the last record is a hash of another kind.
func TestQuota_AnEarlierVersionsRecordIsNotCompared(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	f.send(t, many("a", "u", 10, now)...)
	stop := f.count(t, quotaConsumer{})
	f.AwaitConsumed(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for k := range 8 {
		for name, text := range f.client.HGetAll(t.Context(), dragonfly.SentinelKey(k)).Val() {
			if part := strings.Fields(text); strings.Contains(name, ".") {
				part[6], part[7] = "9", "abc"
				if err := f.client.HSet(t.Context(), dragonfly.SentinelKey(k), name, strings.Join(part, " ")).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	f.send(t, many("b", "u", 5, now)...)
	log := &kafkatest.Transcript{}
	f.count(t, quotaConsumer{log: log.Logger()})
	enginetest.Await(t, "the others to be counted, or the partition to stop", func() bool { return f.calls(t, "u", now) == "15 45" || log.Has("topic_recreated") })
	if log.Has("topic_recreated") {
		t.Error("the partition is stopped")
	}
}

// The group is deleted with its offsets, the counters are there, and a sentinel is lost.
func TestQuota_ADeletedGroupClearsNoCounters(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 100_000}
	f.send(t, many("a", "u", 100, now)...)
	stop := f.count(t, quotaConsumer{})
	f.AwaitConsumed(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.Truncate(t, 0, 60)
	answer, err := f.Client.DeleteGroups(t.Context(), &kafkago.DeleteGroupsRequest{GroupIDs: []string{f.Group}})
	if err == nil {
		err = answer.Errors[f.Group]
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.client.Del(t.Context(), dragonfly.SentinelKey(3)).Err(); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	f.count(t, quotaConsumer{registry: reg})
	f.send(t, many("b", "u", 5, now)...)
	f.eventuallyCalls(t, "u", now, 105)
	if total(t, reg, "tenantflow_quota_events_gone_total") == 0 {
		t.Error("no metric says that events are gone")
	}
}

// unheard is a session whose answers never arrive.
type unheard struct{ consumers.QuotaSession }

func (s unheard) Count(ctx context.Context, b dragonfly.Batch, calls []dragonfly.Call, into []dragonfly.Counted) ([]dragonfly.Counted, error) {
	_, err := s.QuotaSession.Count(ctx, b, calls, into)
	return into, errors.Join(err, errors.New("the process dies before it has read the answers"))
}

// The next owner cuts the batch otherwise and none of the user's events is left for its call, while the limit is another one.
func TestQuota_DueEventsOutliveACutAndAnotherLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{10, 5} {
		t.Run(strconv.FormatInt(limit, 10), func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{partitions: 1})
			now := time.Now()
			f.members = members{Company: map[string]string{"u": "acme", "v": "acme"}, Limit: 10}
			f.send(t, many("a", "u", 10, now)...)
			stop := f.count(t, quotaConsumer{wrap: func(s consumers.QuotaSession) consumers.QuotaSession { return unheard{s} }})
			f.eventuallyCalls(t, "u", now, 10)
			_ = stop()
			f.send(t, used("other", "acme", "v", now))
			f.members.Limit = limit
			f.count(t, quotaConsumer{interval: 300 * time.Millisecond})
			f.eventuallyCalls(t, "v", now, 1)
			f.AwaitConsumed(t)
			got := f.thresholds(t)
			for _, percent := range []int{80, 100} {
				if got[events.QuotaEventID("u", now.UTC().Format(time.DateOnly), percent, 10)] == nil {
					t.Errorf("no event says that %d %% of 10 were reached: %d events", percent, len(got))
				}
			}
		})
	}
}

// eventuallySettled waits until answers no longer say that the counters are being rebuilt.
func (f *quotaFixture) eventuallySettled(t testing.TB) {
	t.Helper()
	store, err := dragonfly.Open(t.Context(), dragonfly.Config{Options: enginetest.RedisOptions(t, f.url), Topic: f.Topic})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	enginetest.Await(t, "the flag to be taken back", func() bool {
		rebuilding, err := store.Rebuilding(t.Context())
		return err == nil && !rebuilding
	})
}

// A topic is created again with fewer partitions, and then the store restarts: what it holds of the others is of no meaning any more.
func TestQuota_PartitionsThatAreGoneAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	broker := enginetest.SharedKafka(t)
	f := newQuotaFixture(t, fixtureOptions{partitions: 2, broker: broker}, enginetest.Persist(engine.Snapshot))
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 100_000}
	messages := many("a", "u", 100, now)
	for i := range messages {
		messages[i].Key = []byte(strconv.Itoa(i)) // over all partitions
	}
	f.send(t, messages...)
	stop := f.count(t, quotaConsumer{})
	f.AwaitConsumed(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	enginetest.RecreateTopic(t, broker, f.Client, f.Topic, 1)
	f.Partitions = 1
	f.setOffsets(t, 0)
	f.send(t, many("b", "u", 50, now)...)
	f.count(t, quotaConsumer{outside: kafka.OutOfRangeEarliest})
	f.eventuallyCalls(t, "u", now, 150)
	f.eventuallySettled(t)
	if err := errors.Join(f.client.Save(t.Context()).Err(), f.redis.Kill(), f.redis.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	f.send(t, many("c", "u", 5, now)...)
	f.eventuallyCalls(t, "u", now, 155)
	f.eventuallySettled(t)
}

// The log was taken as another one, and then the store restarts from a state of before.
func TestQuota_AStateOfTheOldLogIsNotCountedOn(t *testing.T) {
	t.Parallel()
	broker := enginetest.SharedKafka(t)
	f := newQuotaFixture(t, fixtureOptions{partitions: 1, broker: broker}, enginetest.Persist(engine.Snapshot))
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme", "v": "acme"}, Limit: 100_000}
	f.send(t, many("a", "u", 100, now)...)
	stop := f.count(t, quotaConsumer{})
	f.AwaitConsumed(t)
	if err := errors.Join(stop(), f.client.Save(t.Context()).Err()); err != nil {
		t.Fatal(err)
	}
	f.Recreate(t, broker, func() {})
	f.setOffsets(t, 0)
	f.send(t, many("b", "v", 150, now)...)
	stop = f.count(t, quotaConsumer{outside: kafka.OutOfRangeEarliest})
	f.eventuallyCalls(t, "v", now, 150)
	f.AwaitConsumed(t)
	if err := errors.Join(stop(), f.redis.Kill(), f.redis.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	f.count(t, quotaConsumer{})
	f.eventuallyCalls(t, "v", now, 150)
	f.eventuallyCalls(t, "u", now, 100)
	f.eventuallySettled(t)
}

// The store is emptied under living connections, and a late event comes before the next look that is due.
func TestQuota_ALateEventAfterAFlushMakesNoPartOfItsDay(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now().UTC()
	yesterday := now.Truncate(24 * time.Hour).Add(-3 * time.Hour)
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 1000}
	early := many("y", "u", 50, yesterday)
	for i := range early {
		early[i].Time = yesterday
	}
	f.send(t, early...)
	f.send(t, used("today", "acme", "u", now))
	noted := make(chan struct{}, 100)
	f.count(t, quotaConsumer{onStep: func(s consumers.QuotaStep) {
		if s == consumers.QuotaNoted {
			select {
			case noted <- struct{}{}:
			default:
			}
		}
	}})
	f.eventuallyCalls(t, "u", yesterday, 50)
	f.AwaitConsumed(t)
	for range 2 { // when it opened, and then it has just looked
		kafkatest.Await(t, "a note", noted)
	}
	f.flush(t)
	f.send(t, used("later", "acme", "u", yesterday), used("today, too", "acme", "u", now))
	f.eventuallyCalls(t, "u", now, 2)
	f.AwaitConsumed(t)
	if got := f.calls(t, "u", yesterday); got != "<nil> <nil>" {
		t.Errorf("a part of yesterday's counter was made: %s of 51", got)
	}
}

// What lies behind the beginning of an open transaction can't be read, so it was never counted.
func TestQuota_AnOpenTransactionIsNoRebuild(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1}, enginetest.Persist(engine.Snapshot))
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 1000}
	f.send(t, many("a", "u", 10, now)...)
	f.count(t, quotaConsumer{})
	f.eventuallyCalls(t, "u", now, 10)
	f.AwaitConsumed(t)
	f.eventuallySettled(t)
	f.OpenTransaction(t)
	if err := errors.Join(f.client.Save(t.Context()).Err(), f.redis.Kill(), f.redis.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	f.eventuallySettled(t)
}

// A claim counts because it waited too long, and by the next count it is known to be wrong. The user has nothing else in the partition.
func TestQuota_WhatARecountRefusesIsNotInTheCounter(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	who := map[string]string{"u": "acme", "w": "acme", "x": "acme"}
	users := &changing{users: members{Company: who, Limit: 2, Applied: now.Add(time.Hour)}}
	f.count(t, quotaConsumer{users: users, deferFor: time.Millisecond})
	f.send(t, many("r", "u", 3, now)...)
	f.send(t, used("1", "rival", "w", now), used("2", "rival", "w", now), used("3", "rival", "u", now))
	f.eventuallyCalls(t, "w", now, 2)
	f.eventuallyCalls(t, "u", now, 4)
	users.set(members{Company: who, Limit: 2})
	f.AwaitConsumed(t)
	f.loseSentinel(t)
	f.send(t, used("4", "rival", "x", now))
	f.eventuallyCalls(t, "u", now, 3)
	f.eventuallyCalls(t, "w", now, 0)
	f.AwaitConsumed(t)
	f.eventuallySettled(t)
	if got := f.calls(t, "x", now); got != "<nil> <nil>" {
		t.Errorf("a user of whom nothing counts has a counter: %s", got)
	}
}
