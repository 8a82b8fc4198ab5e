package consumers_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
	"tenantflow/sinks/dragonfly"
)

// used makes a usage event of a user, in binary mode.
func used(id, company, user string, at time.Time) kafka.Message {
	h := func(k, v string) kafka.Header { return kafka.Header{Key: k, Value: []byte(v)} }
	stamp := at.UTC().Format(time.RFC3339Nano)
	return kafka.Message{
		Key: []byte(company),
		Value: fmt.Appendf(nil, `{"company_id":%q,"user_id":%q,"subscription_tier":"pro","service_name":"s","api_endpoint":"/e",`+
			`"data_points_consumed":3,"processing_time_ms":1,"timestamp":%q}`, company, user, stamp),
		Headers: []kafka.Header{h("ce_specversion", "1.0"), h("ce_id", id), h("ce_source", "/fault"), h("ce_type", events.TypeUsageRecorded),
			h("ce_time", stamp), h("content-type", "application/json")},
	}
}

// send publishes messages as they are, their times too.
func (f *quotaFixture) send(t testing.TB, messages ...kafka.Message) {
	t.Helper()
	w := &kafka.Writer{Addr: f.fixture.client.Addr, Transport: f.fixture.client.Transport, Topic: f.topic, Balancer: &kafka.Hash{},
		RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond}
	defer func() { _ = w.Close() }()
	if err := w.WriteMessages(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
}

// calls reads how many calls of a user are counted for a day.
func (f *quotaFixture) calls(t testing.TB, user string, day time.Time) string {
	t.Helper()
	v, err := f.client.HMGet(t.Context(), dragonfly.QuotaKey(user, day), "api_calls", "data_points").Result()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%v %v", v[0], v[1])
}

func (f *quotaFixture) setOffsets(t testing.TB, offset int64) {
	t.Helper()
	var commits []kafka.OffsetCommit
	for p := range f.partitions {
		commits = append(commits, kafka.OffsetCommit{Partition: p, Offset: offset})
	}
	eventually(t, "the offsets to be set", time.Minute, func() bool { // while the group is emptying it refuses
		res, err := f.fixture.client.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{GroupID: f.group, GenerationID: -1,
			Topics: map[string][]kafka.OffsetCommit{f.topic: commits}})
		if err != nil {
			return false
		}
		for _, p := range res.Topics[f.topic] {
			if p.Error != nil {
				return false
			}
		}
		return true
	})
}

func TestOffsetsThatAreSetBackChangeNoCounter(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 3})
	messages, want := recent(t, model.Config{Seed: 23, Count: 4000, Resends: 0.1, Late: 0.05})
	f.know(want, 50)
	f.publish(t, messages)
	stop := f.count(t, quotaConsumer{})
	f.check(t, want, time.Minute)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// Whoever sets them back hours later can't rely on the identities any more.
	keys := f.client.Scan(t.Context(), 0, "quota_seen:*", 1000).Iterator()
	for keys.Next(t.Context()) {
		f.client.Del(t.Context(), keys.Val())
	}
	f.setOffsets(t, 0)
	f.count(t, quotaConsumer{})
	f.check(t, want, time.Minute)
}

func TestACutAfterTheScriptsWereSentCountsOnce(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 2})
	proxy := enginetest.Proxy(t, f.redis.Addr())
	messages, want := recent(t, model.Config{Seed: 29, Count: 3000, Resends: 0.05})
	f.know(want, 30)
	f.count(t, quotaConsumer{rows: 200, url: "redis://" + proxy.Addr() + "/0"})
	for part := range 3 {
		trap := proxy.SwallowResponse(func(request []byte) bool { return bytes.Contains(request, []byte("quota_seen:")) })
		f.publish(t, messages[part*1000:(part+1)*1000])
		select {
		case <-trap.Caught():
		case <-time.After(time.Minute):
			t.Fatal("no script was sent")
		}
		proxy.Cut()
	}
	f.check(t, want, time.Minute)
}

func TestAnEventOfAnotherCompanysUserIsADeadLetterAndNotCounted(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 2}
	f.send(t, used("1", "acme", "u", now), used("2", "rival", "u", now), used("3", "acme", "u", now), used("4", "rival", "stranger", now))
	f.count(t, quotaConsumer{})
	f.awaitConsumed(t, time.Minute)
	if got := f.calls(t, "u", now); got != "2 6" {
		t.Errorf("counted %q, want 2 calls", got)
	}
	if got := f.calls(t, "stranger", now); got != "1 3" {
		t.Errorf("counted %q of a user nobody knows, want 1", got)
	}
	if got := f.letters(t); len(got) != 1 || got[events.TenantMismatch] != 1 {
		t.Errorf("dead letters %v, want one for the event under another company", got)
	}
	for _, e := range f.thresholds(t) {
		if !bytes.Contains(e.Data, []byte(`"user_id":"u"`)) {
			t.Errorf("a threshold event of a user nobody knows: %s", e.Data)
		}
		if e.CausationID != "3" && e.CausationID != "1" {
			t.Errorf("the cause of a threshold event is %s", e.CausationID)
		}
	}
}

func TestAResendInTheNextBucketIsCountedOnceAndOneFarLaterIsNot(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	bucket := 10 * time.Minute
	now := time.Now()
	border := now.Truncate(bucket)
	at := func(m kafka.Message, published time.Time) kafka.Message { m.Time = published; return m }
	f.send(t,
		at(used("1", "acme", "u", now), border.Add(-time.Second)), at(used("1", "acme", "u", now), border.Add(time.Second)),
		at(used("2", "acme", "v", now), border.Add(-3*bucket)), at(used("2", "acme", "v", now), border.Add(time.Second)))
	f.count(t, quotaConsumer{bucket: bucket})
	f.awaitConsumed(t, time.Minute)
	if got := f.calls(t, "u", now); got != "1 3" {
		t.Errorf("counted %q, want the resend in the next bucket left out", got)
	}
	if got := f.calls(t, "v", now); got != "2 6" {
		t.Errorf("counted %q: beyond the window a resend is counted, as docs/quotas.md says", got)
	}
}

func TestLateEventsCountInTheirOwnDayWhileItsCounterLives(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	yesterday, past := now.AddDate(0, 0, -1), now.AddDate(0, 0, -5)
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 1}
	f.send(t, used("1", "acme", "u", yesterday), used("2", "acme", "u", past), used("3", "acme", "u", yesterday))
	f.count(t, quotaConsumer{})
	f.awaitConsumed(t, time.Minute)
	if got := f.calls(t, "u", yesterday); got != "2 6" {
		t.Errorf("yesterday: %q, want 2 calls", got)
	}
	if n, err := f.client.Exists(t.Context(), dragonfly.QuotaKey("u", past)).Result(); err != nil || n != 0 {
		t.Errorf("there is a counter of a day that is over for good: %d, %v", n, err)
	}
	f.checkExpiry(t)
	if got := f.thresholds(t); len(got) != 0 {
		t.Errorf("threshold events for a day that is over: %v", got)
	}
}

// changing are users whose limit a test changes.
type changing struct {
	mu    sync.Mutex
	limit members
}

func (c *changing) set(m members) { c.mu.Lock(); defer c.mu.Unlock(); c.limit = m }

func (c *changing) Resolve(ctx context.Context, users []string, out []*directory.Subscription) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limit.Resolve(ctx, users, out)
}

func TestEveryLimitHasThresholdEventsOfItsOwn(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	day := now.UTC().Format(time.DateOnly)
	who := map[string]string{"u": "acme"}
	users := &changing{limit: members{Company: who, Limit: 10}}
	f.count(t, quotaConsumer{users: users})
	sent := 0
	use := func(n int) {
		for range n {
			sent++
			f.send(t, used(strconv.Itoa(sent), "acme", "u", now))
		}
		want := fmt.Sprintf("%d %d", sent, 3*sent)
		eventually(t, "the events to be counted", time.Minute, func() bool { return f.calls(t, "u", now) == want })
	}
	expect := func(ids ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d threshold events", len(ids)), time.Minute, func() bool { return len(f.thresholds(t)) == len(ids) })
		got := f.thresholds(t)
		for _, id := range ids {
			if got[id] == nil {
				t.Errorf("no event %s", id)
			}
		}
	}
	id := func(percent int, limit int64) string { return events.QuotaEventID("u", day, percent, limit) }
	use(7)
	expect()
	use(1)
	expect(id(80, 10))
	use(4)
	expect(id(80, 10), id(100, 10))
	users.set(members{Company: who, Limit: 15}) // 12 of 15 are 80 %
	use(1)
	expect(id(80, 10), id(100, 10), id(80, 15))
	users.set(members{Company: who, Limit: 5})
	use(1)
	expect(id(80, 10), id(100, 10), id(80, 15), id(80, 5), id(100, 5))
	f.flush(t) // counted anew: the same ids again, and for the limits in between none
	eventually(t, "the counters to be back", time.Minute, func() bool { return f.calls(t, "u", now) == fmt.Sprintf("%d %d", sent, 3*sent) })
	expect(id(80, 10), id(100, 10), id(80, 15), id(80, 5), id(100, 5))
}

func TestAThresholdIsPublishedOnceWhereNothingFails(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 10}
	messages := make([]kafka.Message, 3*dragonfly.MaxEvents)
	for i := range messages {
		messages[i] = used(strconv.Itoa(i), "acme", "u", now)
	}
	f.send(t, messages...) // a batch of many calls for one user and day
	f.count(t, quotaConsumer{rows: 10_000, interval: 200 * time.Millisecond})
	f.awaitConsumed(t, time.Minute)
	published := 0
	f.readAll(t, f.quotas, func(*events.Record) { published++ })
	if published != 2 {
		t.Errorf("%d threshold events were published, want one for each of 80 %% and 100 %%", published)
	}
}

// The records behind dead letters and threshold events are read together, where they lie close and where they do not.
func TestEveryDeadLetterAndThresholdOfABatchHasItsOwnRecord(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 1}
	var messages []kafka.Message
	for i := range 1500 {
		user := fmt.Sprintf("u%d", i)
		switch {
		case i < 3 || i > 1490:
			f.members.Company[user] = "acme" // its first call reaches both thresholds
			messages = append(messages, used("limit of "+user, "acme", user, now), used("of a rival "+user, "rival", user, now))
		default:
			messages = append(messages, used(user, "acme", "stranger", now))
		}
	}
	f.send(t, messages...)
	f.count(t, quotaConsumer{rows: 10_000, interval: 200 * time.Millisecond})
	f.awaitConsumed(t, time.Minute)
	if got := f.letters(t)[events.TenantMismatch]; got != 12 {
		t.Errorf("%d dead letters of 12", got)
	}
	f.readAll(t, events.DeadLetterTopic(f.topic), func(r *events.Record) {
		if !bytes.Contains(r.Value, []byte(`"rival"`)) {
			t.Errorf("a dead letter holds %s", r.Value)
		}
	})
	got := f.thresholds(t)
	if len(got) != 24 {
		t.Errorf("%d threshold events of 24", len(got))
	}
	for _, e := range got {
		user := strings.TrimPrefix(e.CausationID, "limit of ")
		if !bytes.Contains(e.Data, []byte(`"user_id":"`+user+`"`)) {
			t.Errorf("%s is said to be caused by %q", e.Data, e.CausationID)
		}
	}
}

// The clock that named the last epoch was ahead: everything was deleted, a count under way came after that, and whoever began the new
// epoch has the right time.
func TestACounterOfAnEpochThatIsYetToComeIsCountedAnew(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 2})
	messages, want := recent(t, model.Config{Seed: 61, Count: 500})
	f.know(want, 80)
	ahead := time.Now().Add(time.Hour).UnixMilli()
	pipe := f.client.Pipeline()
	for key := range expected(want) {
		user, day, _ := strings.Cut(key, "|")
		name := "quota:{" + user + "}:" + day
		pipe.HSet(t.Context(), name, "epoch", ahead, "api_calls", 7, "data_points", 7)
		pipe.Expire(t.Context(), name, time.Hour)
		break
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.count(t, quotaConsumer{rows: 100})
	f.publish(t, messages)
	f.check(t, want, time.Minute)
}

func TestAStoreWithoutMemoryIsWaitedForAndCountsExactlyAfterwards(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 2})
	messages, want := recent(t, model.Config{Seed: 31, Count: 3000, Resends: 0.05})
	f.know(want, 30)
	var batches int
	var mu sync.Mutex
	f.count(t, quotaConsumer{rows: 200, onStep: func(s consumers.QuotaStep) {
		mu.Lock()
		defer mu.Unlock()
		if s == consumers.QuotaAnnounced {
			batches++
		}
	}})
	f.publish(t, messages[:1000])
	f.awaitConsumed(t, time.Minute)
	if err := f.client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	f.publish(t, messages[1000:])
	eventually(t, "an error for want of memory", time.Minute, func() bool {
		stats, err := f.client.Info(t.Context(), "errorstats").Result()
		return err == nil && strings.Contains(stats, "errorstat_OOM")
	})
	if err := f.client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	f.check(t, want, time.Minute)
}

func TestARangeHalfCountedLongAgoIsCountedAnew(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 2})
	messages, want := recent(t, model.Config{Seed: 37, Count: 1500, Resends: 0.05})
	f.know(want, 30)
	f.publish(t, messages)
	f.crashAt(t, consumers.QuotaCounted, 3)
	// The identities are forgotten, and the progress says how long ago that was.
	ctx := t.Context()
	keys := f.client.Scan(ctx, 0, "quota_seen:*", 1000).Iterator()
	for keys.Next(ctx) {
		f.client.Del(ctx, keys.Val())
	}
	key := "quota_progress:{" + f.topic + "}"
	fields, err := f.client.HGetAll(ctx, key).Result()
	if err != nil {
		t.Fatal(err)
	}
	half := 0
	for name, value := range fields {
		part := strings.Fields(value)
		if len(part) != 5 || part[0] == part[1] {
			continue
		}
		half++
		part[2] = strconv.FormatInt(time.Now().Add(-3*time.Hour).UnixMilli(), 10)
		f.client.HSet(ctx, key, name, strings.Join(part, " "))
	}
	if half == 0 {
		t.Fatalf("nothing is half counted: %v", fields)
	}
	f.count(t, quotaConsumer{rows: 100, session: crashSession})
	f.check(t, want, time.Minute)
}

func TestAStateOfAnEarlierEpochThatComesBackIsGivenUp(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 3}, enginetest.Persist(engine.Snapshot))
	messages, want := recent(t, model.Config{Seed: 41, Count: 6000, Resends: 0.05})
	f.know(want, 60)
	f.count(t, quotaConsumer{rows: 100})
	f.publish(t, messages[:3000])
	f.awaitConsumed(t, time.Minute)
	if err := f.client.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	f.flush(t)
	f.publish(t, messages[3000:])
	f.check(t, want, time.Minute)
	if err := f.redis.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := f.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.check(t, want, time.Minute)
}

// careless is a session without one of the mechanisms.
type careless struct {
	consumers.QuotaSession
	forgetsIdentities bool
	ignoresProgress   bool
	last              *dragonfly.Progress
}

func (c *careless) Count(ctx context.Context, epoch int64, calls []dragonfly.Call) ([]dragonfly.Counted, error) {
	if c.forgetsIdentities {
		for i := range calls {
			for k := range calls[i].Identities {
				calls[i].Identities[k] = rand.Uint64()
			}
		}
	}
	return c.QuotaSession.Count(ctx, epoch, calls)
}

func (c *careless) Move(ctx context.Context, from, to dragonfly.Progress) (dragonfly.Progress, error) {
	if !c.ignoresProgress || c.last == nil {
		moved, err := c.QuotaSession.Move(ctx, from, to)
		c.last = &moved
		return moved, err
	}
	to.Epoch = from.Epoch
	c.last = &to
	return to, nil
}

func (c *careless) Load(ctx context.Context) (dragonfly.Progress, error) {
	if c.ignoresProgress && c.last != nil {
		return *c.last, nil
	}
	return c.QuotaSession.Load(ctx)
}

func TestWithoutTheIdentitiesResendsAreCounted(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{})
	messages, want := recent(t, model.Config{Seed: 43, Count: 2000, Resends: 0.2})
	f.publish(t, messages)
	f.count(t, quotaConsumer{rows: 50, wrap: func(s consumers.QuotaSession) consumers.QuotaSession {
		return &careless{QuotaSession: s, forgetsIdentities: true}
	}})
	f.awaitConsumed(t, time.Minute)
	got, err := f.used(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.differ(expected(want))) == 0 {
		t.Error("the identities are forgotten and nothing is missed: the judge does not bite")
	}
}

func TestWithoutTheProgressALostStoreStaysLost(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{})
	messages, want := recent(t, model.Config{Seed: 47, Count: 2000})
	stop := f.count(t, quotaConsumer{rows: 50, wrap: func(s consumers.QuotaSession) consumers.QuotaSession {
		return &careless{QuotaSession: s, ignoresProgress: true}
	}})
	f.publish(t, messages[:1000])
	f.awaitConsumed(t, time.Minute)
	f.flush(t)
	f.publish(t, messages[1000:])
	f.awaitConsumed(t, time.Minute)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got, err := f.used(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.differ(expected(want))) == 0 {
		t.Error("the progress is ignored and nothing is missed: the judge does not bite")
	}
}
