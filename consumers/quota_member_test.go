package consumers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/sinks/dragonfly"
)

// usedBy makes n events of a user under a company, whose records are as old as they are.
func usedBy(user, company string, n int, at time.Time) []kafkago.Message {
	messages := make([]kafkago.Message, n)
	for i := range messages {
		messages[i] = used(fmt.Sprintf("%s %s %s %d", user, company, at, i), company, user, at)
		messages[i].Time = at
	}
	return messages
}

// eventuallyAll waits until each user's counter is what it should be.
func (f *quotaFixture) eventuallyAll(t testing.TB, day time.Time, want map[string]int) {
	t.Helper()
	for user, calls := range want {
		f.eventuallyCalls(t, user, day, calls)
	}
}

// expectLetters expects as many refused events, and as many dead letters with those that are written again.
func (f *quotaFixture) expectLetters(t testing.TB, refused, written int) {
	t.Helper()
	if got := f.Letters(t); got[events.TenantMismatch] != int64(refused) || len(got) > 1 {
		t.Errorf("refused: %v, want %d", got, refused)
	}
	got := 0
	f.ReadAll(t, events.DeadLetterTopic(f.Topic), func(*events.Record) { got++ })
	if got != written {
		t.Errorf("%d dead letters, want %d", got, written)
	}
}

// A day is recounted when users have moved, left, or been claimed by others meanwhile: the same counts.
func TestQuota_ARecountJudgesByTheUsagesOwnTime(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	evening := sameDay(90 * time.Second).Truncate(time.Millisecond)
	noon := evening.Add(-30 * time.Second)
	morning, applied := noon.Add(-time.Minute), noon.Add(10*time.Second) // the moves of noon were seen ten seconds later
	company := map[string]string{"mover": "a", "gone": "a", "racer": "a"}
	users := &changing{users: members{Company: company, Limit: 1000}}
	f.count(t, quotaConsumer{users: users})
	f.send(t, usedBy("mover", "a", 25, morning)...)
	f.send(t, usedBy("gone", "a", 7, morning)...)
	f.send(t, usedBy("mover", "rogue", 2, morning)...)
	f.send(t, usedBy("racer", "a", 3, noon.Add(5*time.Second))...) // the move is not known yet
	f.eventuallyAll(t, evening, map[string]int{"mover": 25, "gone": 7, "racer": 3})

	moved := []directory.Membership{{CompanyID: "b", Since: noon, RecordedAt: applied}, {CompanyID: "a", Until: noon, EndedAt: applied}}
	users.set(members{Company: map[string]string{"mover": "b", "racer": "b"}, Limit: 1000,
		History: map[string][]directory.Membership{"mover": moved, "racer": moved, "gone": {moved[1]}}})
	f.send(t, usedBy("mover", "b", 5, evening)...)
	f.send(t, usedBy("mover", "b", 4, morning)...)                            // a claim of what was before
	f.send(t, usedBy("racer", "a", 1, applied.Add(900*time.Millisecond))...)  // may have been counted before the move was visible
	f.send(t, usedBy("racer", "a", 2, applied.Add(1100*time.Millisecond))...) // can't have been
	f.send(t, usedBy("gone", "a", 1, evening)...)                             // belongs to none
	want := map[string]int{"mover": 30, "gone": 8, "racer": 4}
	f.eventuallyAll(t, evening, want)
	f.AwaitConsumed(t)
	f.expectLetters(t, 8, 8)
	f.flush(t)
	f.eventuallyAll(t, evening, want)
	f.eventuallyProgress(t, 50)
	f.expectLetters(t, 8, 16)
}

// progress is how far the partition is counted, as the sentinel says.
func (f *quotaFixture) progress(t testing.TB) (offset, until int64) {
	t.Helper()
	fields, err := f.client.HGetAll(t.Context(), dragonfly.SentinelKey(7)).Result()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range fields {
		if strings.HasSuffix(name, ".0") {
			var epoch, incarnation int64
			if _, err := fmt.Sscan(text, &epoch, &incarnation, &offset, &until); err != nil {
				t.Fatal(err)
			}
		}
	}
	return offset, until
}

func (f *quotaFixture) eventuallyProgress(t testing.TB, want int64) {
	t.Helper()
	enginetest.Await(t, fmt.Sprintf("the progress to be %d", want), func() bool {
		got, _ := f.progress(t)
		return got == want
	})
}

// deferring are users of whom one seems to belong to another company than the events say.
func deferring(company string, applied time.Time) members {
	m := members{Company: map[string]string{"late": company}, Limit: 1000, Applied: applied}
	for i := range 10 {
		m.Company[fmt.Sprintf("u%d", i)] = "acme"
	}
	return m
}

// mixed is the traffic of ten users, one of whose events from the fifth on is followed by one of the user that was added late.
func mixed(from int, at time.Time) []kafkago.Message {
	messages := many(fmt.Sprintf("first%d-", from), "u0", 5, at)
	for i := range 20 {
		messages = append(messages, used(fmt.Sprintf("m%d-%d", from, i), "acme", fmt.Sprintf("u%d", i%10), at), used(fmt.Sprintf("l%d-%d", from, i), "acme", "late", at))
	}
	return messages
}

const longAfter = time.Hour

func TestQuota_AMismatchWaitsForCompanyEvents(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	users := &changing{users: deferring("elsewhere", now.Add(longAfter))}
	f.count(t, quotaConsumer{users: users, rows: 7, deferFor: longAfter})
	f.send(t, mixed(0, now)...)
	f.eventuallyAll(t, now, map[string]int{"u0": 7, "u1": 2, "u9": 2})
	f.eventuallyProgress(t, 6) // before the first event that waits
	f.send(t, mixed(1, now)...)
	f.eventuallyAll(t, now, map[string]int{"u0": 14, "u1": 4, "u9": 4})
	f.AwaitConsumed(t)
	if got := f.calls(t, "late", now); got != "<nil> <nil>" {
		t.Errorf("counted %q of the user whose company is not known yet", got)
	}
	// That nothing is counted again is noted within a second after the last of it, where the partition began with events in its log.
	enginetest.Await(t, "the progress to stay 6, and nothing to be counted again", func() bool {
		offset, until := f.progress(t)
		return offset == 6 && until <= offset
	})
	// The event that gives the user to the company is applied, and no more traffic comes.
	users.set(deferring("acme", time.Time{}))
	f.eventuallyCalls(t, "late", now, 40)
	f.eventuallyProgress(t, 90)
	f.expectLetters(t, 0, 0)
}

func TestQuota_AMismatchIsRefusedOnceItIsFinal(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	users := &changing{users: deferring("elsewhere", now.Add(longAfter))}
	f.count(t, quotaConsumer{users: users, rows: 7, deferFor: longAfter})
	f.send(t, append(mixed(0, now), used("own", "elsewhere", "late", now))...)
	f.eventuallyProgress(t, 6)
	f.AwaitConsumed(t)
	users.set(deferring("elsewhere", time.Time{}))
	f.eventuallyCalls(t, "late", now, 1)
	f.eventuallyProgress(t, 46)
	f.expectLetters(t, 20, 20)
}

func TestQuota_AKillLosesNothingThatWaits(t *testing.T) {
	t.Parallel()
	for _, at := range []struct {
		step consumers.QuotaStep
		nth  int32
	}{{consumers.QuotaCounted, 1}, {consumers.QuotaCounted, 2}, {consumers.QuotaNoted, 2}} { // counted the second time: what waited
		t.Run(fmt.Sprint(at.step, at.nth), func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{partitions: 1})
			now := time.Now()
			messages := mixed(0, now)
			for i := range 5 {
				messages = slices.Insert(messages, 10+5*i, used(fmt.Sprintf("own%d", i), "elsewhere", "late", now))
			}
			f.send(t, messages...)
			f.members = deferring("elsewhere", now.Add(longAfter))
			f.crashAt(t, at.step, at.nth)
			f.members.Applied = time.Time{}
			f.count(t, quotaConsumer{session: crashSession})
			want := map[string]int{"late": 5, "u0": 7, "u1": 2, "u9": 2}
			f.eventuallyAll(t, now, want)
			f.eventuallyProgress(t, 50)
			f.eventuallyAll(t, now, want)
			if got := f.Letters(t)[events.TenantMismatch]; got != 20 {
				t.Errorf("%d events were refused, want 20", got)
			}
		})
	}
}

func TestQuota_WhatWaitsTooLongOrTooMuchCounts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]quotaConsumer{"long": {deferFor: time.Second}, "much": {deferFor: longAfter, deferred: 3}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{partitions: 1})
			now := time.Now()
			log, registry := &kafkatest.Transcript{}, prometheus.NewRegistry()
			c.interval, c.users, c.log, c.registry = 200*time.Millisecond, deferring("elsewhere", now.Add(longAfter)), log.Logger(), registry
			f.count(t, c)
			f.send(t, mixed(0, now)...)
			f.eventuallyAll(t, now, map[string]int{"late": 20, "u0": 7, "u9": 2})
			f.eventuallyProgress(t, 45)
			f.expectLetters(t, 0, 0)
			if got := total(t, registry, "tenantflow_quota_undecided_events_total"); got != 20 || !log.Has("company events are not applied up to them yet") {
				t.Errorf("%v events are said to be undecided, and logged: %s", got, log)
			}
		})
	}
}
