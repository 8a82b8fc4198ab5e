package consumers_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
)

// directory opens a directory of the companies as the service does.
func (f *tenantFixture) directory(t testing.TB) *directory.Directory {
	t.Helper()
	store := openTables(t, f.dsn)
	companies := f.log(events.TopicCompany)
	reading := &kafka.TopicReading{Client: f.client, Topic: companies.Topic, Group: companies.Group}
	d := directory.New(directory.Config{Loader: store, Applied: reading.Through, Log: slog.New(slog.DiscardHandler), LoadTimeout: 30 * time.Second})
	stop := background(t, func(ctx context.Context) error { return d.Run(ctx) })
	t.Cleanup(func() {
		_ = stop()
		d.Close()
		store.Close()
	})
	return d
}

// A user moves while the service for companies is away: what the user did at the new company waits for it, and a recount says the same.
func TestQuota_AMoveIsAwaitedAndKeptInARecount(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	q := newQuotaFixture(t, fixtureOptions{partitions: 1})
	// In one partition, so that the user leaves one company before the other one takes the user.
	partition := func(company string) int {
		return (&kafkago.Hash{}).Balance(kafkago.Message{Key: []byte(company)}, 0, 1, 2)
	}
	from := unique()
	to := from + "x"
	for partition(to) != partition(from) {
		to += "x"
	}
	user, now := from+"-u1", sameDay(time.Minute)
	one := fmt.Sprintf(`"user_id":%q`, user)
	users := func(company string) bool {
		rows := f.query(t, "SELECT user_id FROM user_directory WHERE company_id = '"+company+"'")
		return len(rows) == 1 && rows[0] == "("+user+")"
	}

	stop := f.start(t, tenantService{})
	f.send(t, registration(from, now.Add(-time.Minute)), registration(to, now.Add(-time.Minute)),
		tenantEvent(to+"-empty", events.TypeUserRemoved, to, fmt.Sprintf(`"user_id":"%s-u1"`, to), now.Add(-time.Minute)))
	f.awaitConsumed(t)
	if !users(from) {
		t.Fatal("the company has not its user")
	}
	q.count(t, quotaConsumer{users: f.directory(t), deferFor: longAfter}) // nothing counts because a busy machine took long
	q.send(t, usedNow(user, from, 5, now.Add(-30*time.Second))...)
	q.eventuallyCalls(t, user, now, 5)
	// Until then it may be the user's first company that is not known yet.
	enginetest.Await(t, "the registration to be a second old", func() bool {
		return f.query(t, "SELECT max(recorded_at) < clock_timestamp() - interval '1 s' FROM user_memberships")[0] == "(t)"
	})
	q.send(t, usedNow(user, "rogue", 1, now)...)
	sent := time.Now()
	enginetest.Await(t, "the claim of another company to be refused", func() bool { return q.Letters(t)[events.TenantMismatch] == 1 })
	t.Logf("refused after %s", time.Since(sent).Round(10*time.Millisecond))

	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.send(t, tenantEvent(from+"-out", events.TypeUserRemoved, from, one, now.Add(-10*time.Second)),
		tenantEvent(to+"-in", events.TypeUserAdded, to, one+`,"email":"m@to.example"`, now.Add(-9*time.Second)))
	q.send(t, usedNow(user, to, 3, now)...)
	q.send(t, many("other", "stranger", 4, now)...)
	q.eventuallyCalls(t, "stranger", now, 4)
	q.AwaitConsumed(t)
	if got := q.calls(t, user, now); got != "5 15" {
		t.Errorf("counted %q before the move is applied, want 5 calls", got)
	}
	f.start(t, tenantService{})
	q.eventuallyCalls(t, user, now, 8)
	if !users(to) {
		t.Error("the user has not moved")
	}
	q.eventuallyProgress(t, 13)
	q.flush(t)
	q.eventuallyCalls(t, user, now, 8)
	q.eventuallyProgress(t, 13)
	q.expectLetters(t, 1, 2)
}

// usedNow is usedBy with the broker's times.
func usedNow(user, company string, n int, at time.Time) []kafkago.Message {
	messages := usedBy(user, company, n, at)
	for i := range messages {
		messages[i].Time = time.Time{}
	}
	return messages
}
