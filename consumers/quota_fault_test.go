package consumers_test

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/sinks/dragonfly"
)

// used makes a usage event of a user, in binary mode.
func used(id, company, user string, at time.Time) kafkago.Message {
	h := func(k, v string) kafkago.Header { return kafkago.Header{Key: k, Value: []byte(v)} }
	stamp := at.UTC().Format(time.RFC3339Nano)
	return kafkago.Message{
		Key: []byte(company),
		Value: fmt.Appendf(nil, `{"company_id":%q,"user_id":%q,"subscription_tier":"pro","service_name":"s","api_endpoint":"/e",`+
			`"data_points_consumed":3,"processing_time_ms":1,"timestamp":%q}`, company, user, stamp),
		Headers: []kafkago.Header{h("ce_specversion", "1.0"), h("ce_id", id), h("ce_source", "/fault"), h("ce_type", events.TypeUsageRecorded),
			h("ce_time", stamp), h("content-type", "application/json")},
	}
}

// send publishes messages as they are, their times too.
func (f *quotaFixture) send(t testing.TB, messages ...kafkago.Message) {
	t.Helper()
	w := enginetest.Writer(f.Client)
	w.Topic, w.Balancer, w.BatchTimeout = f.Topic, &kafkago.Hash{}, time.Millisecond
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
	offsets := map[int]int64{}
	for p := range f.Partitions {
		offsets[p] = offset
	}
	f.CommitOutside(t, offsets)
}

func TestOffsetsThatAreSetBackChangeNoCounter(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 3})
	messages, want := recent(t, model.Config{Seed: 23, Count: 4000, Resends: 0.1, Late: 0.05})
	f.know(want, 50)
	f.publish(t, messages)
	stop := f.count(t, quotaConsumer{})
	f.check(t, want)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.setOffsets(t, 0)
	f.count(t, quotaConsumer{})
	f.check(t, want)
}

func TestACutAfterTheScriptsWereSentCountsOnce(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 2})
	proxy := enginetest.Proxy(t, redisOptions(t, f.url).Addr)
	messages, want := recent(t, model.Config{Seed: 29, Count: 3000, Resends: 0.05})
	f.know(want, 30)
	f.count(t, quotaConsumer{rows: 200, url: "redis://" + proxy.Addr() + "/0"})
	for part := range 3 {
		trap := proxy.SwallowResponse(func(request []byte) bool { return bytes.Contains(request, []byte("quota:{")) })
		f.publish(t, messages[part*1000:(part+1)*1000])
		kafkatest.Await(t, "a script to be sent", trap.Caught())
		proxy.Cut()
	}
	f.check(t, want)
}

func TestAnEventOfAnotherCompanysUserIsADeadLetterAndNotCounted(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 2}
	f.send(t, used("1", "acme", "u", now), used("2", "rival", "u", now), used("3", "acme", "u", now), used("4", "rival", "stranger", now))
	f.count(t, quotaConsumer{})
	f.AwaitConsumed(t)
	if got := f.calls(t, "u", now); got != "2 6" {
		t.Errorf("counted %q, want 2 calls", got)
	}
	if got := f.calls(t, "stranger", now); got != "1 3" {
		t.Errorf("counted %q of a user nobody knows, want 1", got)
	}
	if got := f.Letters(t); len(got) != 1 || got[events.TenantMismatch] != 1 {
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

func TestQuota_AResendCountsOnceWithinTheWindow(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	at := func(m kafkago.Message, published time.Time) kafkago.Message { m.Time = published; return m }
	window := 10 * time.Minute
	var messages []kafkago.Message
	for i, after := range []time.Duration{-20 * time.Millisecond, 0, window - time.Second, window + 2*time.Second} { // times may go back, too
		id, user := "id"+strconv.Itoa(i), "u"+strconv.Itoa(i)
		m := used(id, "acme", user, now)
		messages = append(messages, at(m, now), at(m, now.Add(after)))
	}
	f.send(t, messages...)
	// Every copy refreshes: the third is far from the first, and near the second.
	m := used("chain", "acme", "c", now)
	f.send(t, at(m, now), at(m, now.Add(window-time.Minute)), at(m, now.Add(2*window-2*time.Minute)))
	// Too many records lie between these two.
	f.send(t, at(used("far", "acme", "f", now), now))
	for i := range 30 {
		f.send(t, at(used("between"+strconv.Itoa(i), "acme", "b", now), now))
	}
	f.send(t, at(used("far", "acme", "f", now), now))
	f.count(t, quotaConsumer{window: window, records: 30})
	f.AwaitConsumed(t)
	for user, want := range map[string]string{"u0": "1 3", "u1": "1 3", "u2": "1 3", "u3": "2 6", "c": "1 3", "f": "2 6", "b": "30 90"} {
		if got := f.calls(t, user, now); got != want {
			t.Errorf("%s: counted %q, want %q", user, got, want)
		}
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
	f.AwaitConsumed(t)
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

// changing are users that a test changes.
type changing struct {
	mu    sync.Mutex
	users members
}

func (c *changing) set(m members) { c.mu.Lock(); defer c.mu.Unlock(); c.users = m }

func (c *changing) ResolveMembers(ctx context.Context, users []string, out []*directory.Subscription) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.users.ResolveMembers(ctx, users, out)
}

func (c *changing) AppliedThrough() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.users.AppliedThrough()
}

func TestEveryLimitHasThresholdEventsOfItsOwn(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	day := now.UTC().Format(time.DateOnly)
	who := map[string]string{"u": "acme"}
	users := &changing{users: members{Company: who, Limit: 10}}
	f.count(t, quotaConsumer{users: users})
	sent := 0
	use := func(n int) {
		for range n {
			sent++
			f.send(t, used(strconv.Itoa(sent), "acme", "u", now))
		}
		want := fmt.Sprintf("%d %d", sent, 3*sent)
		enginetest.Await(t, "the events to be counted", func() bool { return f.calls(t, "u", now) == want })
	}
	expect := func(ids ...string) {
		t.Helper()
		enginetest.Await(t, fmt.Sprintf("%d threshold events", len(ids)), func() bool { return len(f.thresholds(t)) == len(ids) })
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
	f.flush(t) // recounted: the same ids again, and for the limits in between none
	enginetest.Await(t, "the counters to be back", func() bool { return f.calls(t, "u", now) == fmt.Sprintf("%d %d", sent, 3*sent) })
	expect(id(80, 10), id(100, 10), id(80, 15), id(80, 5), id(100, 5))
}

func TestAThresholdIsPublishedOnceWhereNothingFails(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 10}
	messages := make([]kafkago.Message, 1500)
	for i := range messages {
		messages[i] = used(strconv.Itoa(i), "acme", "u", now)
	}
	f.send(t, messages...) // a batch of many calls for one user and day
	f.count(t, quotaConsumer{rows: 10_000, interval: 200 * time.Millisecond})
	f.AwaitConsumed(t)
	published := 0
	f.ReadAll(t, f.quotas, func(*events.Record) { published++ })
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
	var messages []kafkago.Message
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
	f.AwaitConsumed(t)
	if got := f.Letters(t)[events.TenantMismatch]; got != 12 {
		t.Errorf("%d dead letters of 12", got)
	}
	f.ReadAll(t, events.DeadLetterTopic(f.Topic), func(r *events.Record) {
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

// Everything was deleted, a count under way came after that, and the epoch of that was begun by a process that is gone.
func TestQuota_ALaterEpochThatWasLostIsOutranked(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 2})
	messages, want := recent(t, model.Config{Seed: 61, Count: 500})
	f.know(want, 80)
	f.count(t, quotaConsumer{rows: 100})
	f.publish(t, messages[:400])
	f.AwaitConsumed(t)
	keys, err := f.client.Keys(t.Context(), "quota:{*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		for field, text := range f.client.HGetAll(t.Context(), key).Val() {
			if part := strings.Fields(text); len(part) == 4 {
				epoch, _ := strconv.ParseInt(part[0], 10, 64)
				part[0] = strconv.FormatInt(epoch+1<<20, 10)
				f.client.HSet(t.Context(), key, field, strings.Join(part, " "))
			}
		}
	}
	f.publish(t, messages[400:])
	f.check(t, want)
}

// info is what the store says about itself.
func (f *quotaFixture) info(t testing.TB, section, name string) string {
	t.Helper()
	text, err := f.client.Info(t.Context(), section).Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			return value
		}
	}
	t.Fatalf("the store does not say %s", name)
	return ""
}

func TestAStateOfAnEarlierEpochThatComesBackIsGivenUp(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 3}, enginetest.Persist(engine.Snapshot))
	messages, want := recent(t, model.Config{Seed: 41, Count: 6000, Resends: 0.05})
	f.know(want, 60)
	f.count(t, quotaConsumer{rows: 100})
	f.publish(t, messages[:3000])
	f.AwaitConsumed(t)
	if err := f.client.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	f.flush(t)
	f.publish(t, messages[3000:])
	f.check(t, want)
	if err := f.redis.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := f.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.check(t, want)
}

// careless is a session without one of the mechanisms.
type careless struct {
	consumers.QuotaSession
	batch func(*dragonfly.Batch) // changes what is sent
}

func (c careless) Count(ctx context.Context, b dragonfly.Batch, calls []dragonfly.Call, into []dragonfly.Counted) ([]dragonfly.Counted, error) {
	c.batch(&b)
	return c.QuotaSession.Count(ctx, b, calls, into)
}

func TestQuota_WithoutWatermarksRecountsAddUp(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	messages, want := recent(t, model.Config{Seed: 43, Count: 2000})
	f.publish(t, messages)
	stop := f.count(t, quotaConsumer{rows: 50})
	f.check(t, want)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// The progress is lost, and what a call says of its range lies behind every watermark.
	f.forgetProgress(t)
	f.count(t, quotaConsumer{rows: 50, wrap: func(s consumers.QuotaSession) consumers.QuotaSession {
		return careless{QuotaSession: s, batch: func(b *dragonfly.Batch) { b.From, b.To = b.From+1<<30, b.To+1<<30 }}
	}})
	f.AwaitConsumed(t)
	enginetest.Await(t, "the counters to be wrong", func() bool {
		got, err := f.used(t.Context())
		return err == nil && len(got.differ(expected(want))) > 0
	})
}

// forgetProgress takes the progress out of the sentinels, but leaves the epoch.
func (f *quotaFixture) forgetProgress(t testing.TB) {
	t.Helper()
	for k := range 8 {
		for field := range f.client.HGetAll(t.Context(), dragonfly.SentinelKey(k)).Val() {
			if strings.Contains(field, ".") {
				f.client.HDel(t.Context(), dragonfly.SentinelKey(k), field)
			}
		}
	}
}

func TestQuota_ARecountInTheSameEpochAddsNothing(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 2})
	messages, want := recent(t, model.Config{Seed: 43, Count: 2000, Resends: 0.1})
	f.know(want, 50)
	f.publish(t, messages)
	stop := f.count(t, quotaConsumer{rows: 50})
	f.check(t, want)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.forgetProgress(t)
	f.count(t, quotaConsumer{rows: 70}) // cut otherwise
	f.check(t, want)
}
