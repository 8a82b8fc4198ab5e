package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/sinks/dragonfly"
)

// many makes n events of a user with identities of their own.
func many(prefix, user string, n int, at time.Time) []kafkago.Message {
	messages := make([]kafkago.Message, n)
	for i := range messages {
		messages[i] = used(prefix+strconv.Itoa(i), "acme", user, at)
	}
	return messages
}

// eventuallyCalls waits until a user's counter is what it should be.
func (f *quotaFixture) eventuallyCalls(t testing.TB, user string, day time.Time, want int) {
	t.Helper()
	text := fmt.Sprintf("%d %d", want, 3*want)
	enginetest.Await(t, fmt.Sprintf("%s to have %d calls", user, want), func() bool { return f.calls(t, user, day) == text })
}

// loseSentinel makes a new epoch begin, and waits for that.
func (f *quotaFixture) loseSentinel(t testing.TB) {
	t.Helper()
	if err := f.client.Del(t.Context(), dragonfly.SentinelKey(3)).Err(); err != nil {
		t.Fatal(err)
	}
	enginetest.Await(t, "a new epoch", func() bool {
		n, err := f.client.HLen(t.Context(), dragonfly.SentinelKey(3)).Result()
		return err == nil && n == int64(f.Partitions)+1
	})
}

// total is the sum of a metric over all its labels.
func total(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestQuota_ALateEventAfterANewEpochAddsToItsDay(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now().UTC()
	yesterday := now.Truncate(24 * time.Hour).Add(-3 * time.Hour)
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 100}
	early := many("y", "u", 50, yesterday)
	for i := range early {
		early[i].Time = yesterday
	}
	f.send(t, early...)
	f.send(t, used("today", "acme", "u", now))
	f.count(t, quotaConsumer{})
	f.eventuallyCalls(t, "u", yesterday, 50)
	f.loseSentinel(t)
	f.send(t, used("late", "acme", "u", yesterday))
	f.eventuallyCalls(t, "u", yesterday, 51)
	f.eventuallyCalls(t, "u", now, 1)
	// Lost as a whole, yesterday is left out: one late event is no count of it.
	f.flush(t)
	f.send(t, used("later", "acme", "u", yesterday), used("today, too", "acme", "u", now))
	f.eventuallyCalls(t, "u", now, 2)
	if n, err := f.client.Exists(t.Context(), dragonfly.QuotaKey("u", yesterday)).Result(); err != nil || n != 0 {
		t.Errorf("there is a part of yesterday's counter: %d, %v", n, err)
	}
}

func TestQuota_VerdictsGoByTheRecordsTime(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := sameDay(time.Minute)
	// It came two hours ahead of its time, three hours ago.
	future := used("future", "acme", "u", now.Add(-time.Minute))
	future.Time = now.Add(-2 * time.Hour)
	// It came in time, and is counted after its day's counter was to be kept by the clock of its record alone.
	late := used("late", "acme", "u", now.Add(-80*time.Hour))
	late.Time = now
	f.send(t, future, late, used("good", "acme", "u", now))
	f.count(t, quotaConsumer{})
	f.AwaitConsumed(t)
	for range 2 {
		if got := f.calls(t, "u", now); got != "1 3" {
			t.Errorf("counted %q, want what came in time", got)
		}
		f.flush(t)
		f.eventuallyCalls(t, "u", now, 1)
	}
	if n := f.client.Exists(t.Context(), dragonfly.QuotaKey("u", now.Add(-80*time.Hour))).Val(); n != 0 {
		t.Error("what came too late is counted")
	}
}

func TestQuota_AResendAfterADowntimeIsRecognised(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	then := now.Add(-3 * time.Hour)
	first := used("1", "acme", "u", then)
	first.Time = then
	again := first
	again.Time = then.Add(time.Minute)
	f.send(t, first)
	stop := f.count(t, quotaConsumer{})
	f.AwaitConsumed(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.send(t, again, used("2", "acme", "v", now))
	f.count(t, quotaConsumer{})
	f.eventuallyCalls(t, "v", now, 1)
	if got := f.calls(t, "u", then); got != "1 3" {
		t.Errorf("counted %q, want it once", got)
	}
}

func TestQuota_ARecreatedTopicStopsAndCountsOnRequest(t *testing.T) {
	t.Parallel()
	broker := enginetest.SharedKafka(t)
	f := newQuotaFixture(t, fixtureOptions{partitions: 1, broker: broker})
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme", "v": "acme"}, Limit: 100_000}
	f.send(t, many("a", "u", 100, now)...)
	stop := f.count(t, quotaConsumer{})
	f.AwaitConsumed(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.Recreate(t, broker, func() {})
	f.setOffsets(t, 0) // as Apache Kafka does: the offsets of a deleted topic are gone
	f.send(t, many("b", "v", 100, now)...)
	f.send(t, many("c", "u", 50, now)...)
	log := &kafkatest.Transcript{}
	stop = f.count(t, quotaConsumer{log: log.Logger()})
	enginetest.Await(t, "the partition to stop", func() bool { return log.Has("topic_recreated") })
	if got := f.calls(t, "v", now); got != "<nil> <nil>" {
		t.Errorf("events of another log are counted: %s", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.count(t, quotaConsumer{outside: kafka.OutOfRangeEarliest})
	f.eventuallyCalls(t, "v", now, 100)
	f.eventuallyCalls(t, "u", now, 150)
}

func TestQuota_WhatTheLogNoLongerHoldsIsKept(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 100_000}
	f.send(t, many("a", "u", 100, now)...)
	log, reg := &kafkatest.Transcript{}, prometheus.NewRegistry()
	f.count(t, quotaConsumer{log: log.Logger(), registry: reg})
	f.AwaitConsumed(t)
	f.Truncate(t, 0, 60)
	f.loseSentinel(t)
	f.send(t, many("b", "u", 5, now)...)
	f.eventuallyCalls(t, "u", now, 105)
	if !log.Has("no longer in the log") || total(t, reg, "tenantflow_quota_events_gone_total") == 0 {
		t.Error("neither the log nor the metric says that events are gone")
	}
	f.flush(t) // then there is nothing to keep
	f.eventuallyCalls(t, "u", now, 45)
}

func TestQuota_AMoveToAnotherTopicLowersNothing(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 2})
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 100_000}
	f.send(t, many("a", "u", 300, now)...)
	stop := f.count(t, quotaConsumer{})
	f.eventuallyCalls(t, "u", now, 300)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	other := newQuotaFixtureOn(t, fixtureOptions{partitions: 3}, f.counterStore)
	other.members = f.members
	other.send(t, used("b", "acme", "u", now))
	other.count(t, quotaConsumer{})
	other.eventuallyCalls(t, "u", now, 301)
	// Both at once, and one of them counts its day again.
	f.count(t, quotaConsumer{})
	if err := f.client.Del(t.Context(), dragonfly.SentinelKey(3)).Err(); err != nil {
		t.Fatal(err)
	}
	f.send(t, used("c", "acme", "u", now))
	f.eventuallyCalls(t, "u", now, 302)
}

func TestQuota_AThresholdOfManyPartitionsIsPublishedOnce(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 12})
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 100}
	messages := many("e", "u", 3000, now)
	for i := range messages {
		messages[i].Key = []byte(strconv.Itoa(i)) // over all partitions
	}
	reg := prometheus.NewRegistry()
	f.count(t, quotaConsumer{rows: 20, registry: reg})
	f.send(t, messages...)
	f.eventuallyCalls(t, "u", now, 3000)
	f.AwaitConsumed(t)
	if n := len(f.thresholds(t)); n != 2 {
		t.Errorf("%d different threshold events, want 2", n)
	}
	if n := total(t, reg, "tenantflow_quota_threshold_events_total"); n != 2 {
		t.Errorf("%v were published, want 2", n)
	}
}

// The store restarts from the state of just before a batch was counted; what follows was counted on top of it.
func TestQuota_ASnapshotBeforeABatchLosesNothing(t *testing.T) {
	t.Parallel()
	for name, count := range map[string]int{"others follow": 1000, "nothing follows": 250} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{partitions: 1}, enginetest.Persist(engine.Snapshot))
			messages, want := recent(t, model.Config{Seed: 31, Count: count})
			f.know(want, 80)
			ctx := context.WithoutCancel(t.Context())
			failed := make(chan error, 1)
			save := nth(3, func() { failed <- f.client.Save(ctx).Err() })
			kill := nth(3, func() { failed <- errors.Join(<-failed, f.redis.Kill(), f.redis.Start(ctx)) })
			f.publish(t, messages)
			f.count(t, quotaConsumer{rows: 100, interval: 200 * time.Millisecond, onStep: func(s consumers.QuotaStep) {
				if s == consumers.QuotaFormed {
					save()
				}
				if s == consumers.QuotaCounted {
					kill()
				}
			}})
			f.check(t, want)
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Readers must not take an older state for the whole, however soon after the restart.
func TestQuota_AnOlderStateIsServedAsRebuilding(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1}, enginetest.Persist(engine.Snapshot))
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 1000}
	messages := many("e", "u", 2000, now)
	stop := f.count(t, quotaConsumer{})
	f.send(t, messages[:900]...)
	f.AwaitConsumed(t)
	store, err := dragonfly.Open(t.Context(), dragonfly.Config{Options: enginetest.RedisOptions(t, f.url), Topic: f.Topic})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	settled := func() bool {
		_, _, rebuilding, err := store.Read(t.Context(), []string{"u"}, now)
		return err == nil && !rebuilding
	}
	enginetest.Await(t, "the flag to be taken back", settled)
	if err := f.client.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	f.send(t, messages[900:]...)
	f.eventuallyCalls(t, "u", now, 2000)
	f.AwaitConsumed(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := f.redis.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := f.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	short := 0
	read := func() (calls int64) {
		c, _, rebuilding, err := store.Read(t.Context(), []string{"u"}, now)
		if err != nil {
			return 0
		}
		if c[0].APICalls < 2000 {
			if short++; !rebuilding {
				t.Errorf("%d of 2000 calls, and no word of rebuilding", c[0].APICalls)
			}
		}
		return c[0].APICalls
	}
	enginetest.Await(t, "the older state", func() bool { read(); return short > 0 })
	f.count(t, quotaConsumer{rows: 10})
	enginetest.Await(t, "all to be counted", func() bool { return read() == 2000 })
	enginetest.Await(t, "the flag to be taken back", settled)
}
