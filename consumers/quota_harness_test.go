package consumers_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/internal/tier"
	"tenantflow/internal/trace"
	"tenantflow/sinks/dragonfly"
)

// A quotaFixture is one installation for one test of counting: a topic with its dead letters, a topic for threshold events
// and a store of its own.
type quotaFixture struct {
	*fixture
	counterStore
	client  *redis.Client // of the store
	quotas  string        // the topic of threshold events
	members members
	began   time.Time
}

// A counterStore is what counters are kept in.
type counterStore struct {
	redis   *engine.Redis // nil: a Dragonfly that was there before the test
	url     string
	looking *redis.Client
}

// oneAtATime is held by the test that uses a Dragonfly that runs already: tests empty it.
var oneAtATime sync.Mutex

// newCounterStore gives a test a store of its own: a Redis, or the Dragonfly that TENANTFLOW_TEST_DRAGONFLY names. One that runs already is for
// tests without options, as it can't be restarted.
func newCounterStore(t testing.TB, options ...enginetest.Option) counterStore {
	t.Helper()
	var s counterStore
	address := enginetest.DragonflyAddress(t)
	if address != "" && len(options) == 0 {
		oneAtATime.Lock()
		t.Cleanup(oneAtATime.Unlock)
		s.url = "redis://" + address + "/0"
	} else {
		s.redis = enginetest.Counters(t, options...)
		s.url = s.redis.URL()
	}
	s.looking = redis.NewClient(enginetest.RedisOptions(t, s.url))
	t.Cleanup(func() { _ = s.looking.Close() })
	if s.redis == nil {
		if err := s.looking.FlushAll(t.Context()).Err(); err != nil {
			t.Fatalf("empty the Dragonfly at %s: %v", address, err)
		}
	}
	return s
}

func newQuotaFixture(t testing.TB, o fixtureOptions, options ...enginetest.Option) *quotaFixture {
	t.Helper()
	return newQuotaFixtureOn(t, o, newCounterStore(t, options...))
}

// newQuotaFixtureOn makes topics whose counters are in a store that other topics may use as well.
func newQuotaFixtureOn(t testing.TB, o fixtureOptions, store counterStore) *quotaFixture {
	t.Helper()
	if o.broker == nil {
		o.broker = enginetest.SharedKafka(t)
	}
	if o.partitions == 0 {
		o.partitions = 2
	}
	f := &quotaFixture{fixture: &fixture{Log: *kafkatest.NewLog(t, o.broker, o.partitions)}, counterStore: store, client: store.looking, began: time.Now()}
	f.quotas = f.Topic + ".quotas"
	enginetest.CreateTopic(t, o.broker, f.quotas, 1)
	f.Group = f.Topic + ".quota"
	return f
}

func redisOptions(t testing.TB, url string) *redis.Options {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// members says which company a user belongs to; all have the same limit and tier, but for those named. Who is not in it is unknown.
type members struct {
	Tier    map[string]string // of a user; free is that of the others
	Limits  map[string]int64  // of a user; Limit is that of the others
	Company map[string]string
	History map[string][]directory.Membership // the newest first; of a user who is not in it, Company was always the one
	Limit   int64
	Applied time.Time // when all company events are applied; until then none is known to be
}

// ResolveMembers implements consumers.QuotaUsers.
func (m members) ResolveMembers(_ context.Context, users []string, out []*directory.Subscription) error {
	for i, u := range users {
		out[i] = nil
		company, there := m.Company[u]
		history := m.History[u]
		switch {
		case there:
			if history == nil {
				history = []directory.Membership{{CompanyID: company}}
			}
			out[i] = &directory.Subscription{UserID: u, CompanyID: company, Tier: m.tier(u), Limits: tier.Limits{DailyAPICalls: tier.Limit(m.limit(u))}, Memberships: history}
		case history != nil:
			out[i] = &directory.Subscription{UserID: u, Memberships: history}
		}
	}
	return nil
}

func (m members) tier(user string) string { return cmp.Or(m.Tier[user], tier.Free) }

func (m members) limit(user string) int64 {
	if limit, own := m.Limits[user]; own {
		return limit
	}
	return m.Limit
}

// AppliedThrough implements consumers.QuotaUsers.
func (m members) AppliedThrough() time.Time {
	if time.Now().Before(m.Applied) {
		return time.Time{}
	}
	return time.Now().Add(time.Hour)
}

// know makes every user of the model known, with a limit.
func (f *quotaFixture) know(want model.Expected, limit int64) {
	f.members = members{Company: map[string]string{}, Limit: limit}
	for key := range want.Tables.Daily {
		part := strings.Split(key, "|")
		f.members.Company[part[1]] = part[0]
	}
}

// quotaConsumer is how a test wants its service.
type quotaConsumer struct {
	rows     int
	interval time.Duration
	session  time.Duration
	url      string        // of Redis; default: the fixture's
	window   time.Duration // of resends; default: the consumer's
	records  int           // likewise
	future   time.Duration // how far an event may be ahead of its record; default: an hour
	outside  kafka.OutOfRange
	onStep   func(consumers.QuotaStep)
	wrap     func(consumers.QuotaSession) consumers.QuotaSession
	users    consumers.QuotaUsers // default: the fixture's members
	tiers    *tier.Catalogue      // default: the built-in one
	deferFor time.Duration        // default: the consumer's
	deferred int                  // events, likewise
	memory   func(bytes int64)    // what is remembered of resends
	activity *consumers.Activity
	registry prometheus.Registerer
	health   *health.Tracker
	log      *slog.Logger
	tracer   *trace.Tracer
	dialer   func(ctx context.Context, network, addr string) (net.Conn, error) // to Redis

	replayKey events.ReplayKey
}

func (c quotaConsumer) run(ctx context.Context, f *quotaFixture, o *redis.Options) error {
	if c.rows == 0 {
		c.rows = 500
	}
	if c.interval == 0 {
		c.interval = 5 * time.Millisecond
	}
	if c.session == 0 {
		c.session = undisturbed // it publishes nothing a second time
	}
	if c.future == 0 {
		c.future = time.Hour
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
		if os.Getenv("TENANTFLOW_TEST_LOG") != "" {
			c.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
	}
	if c.users == nil {
		c.users = f.members
	}
	if c.dialer != nil {
		o.Dialer = c.dialer
	}
	var store *dragonfly.Store
	for {
		var err error
		if store, err = dragonfly.Open(ctx, dragonfly.Config{Options: o, Topic: f.Topic, Logger: c.log, Tracer: c.tracer}); err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil // stopped before it had begun
		}
	}
	defer func() { _ = store.Close() }()
	handler := consumers.NewQuota(consumers.QuotaConfig{
		Session: func(topic string, partition int) consumers.QuotaSession {
			var s consumers.QuotaSession = store.Session(topic, partition)
			if c.wrap != nil {
				s = c.wrap(s)
			}
			return s
		},
		Users: c.users, Tiers: c.tiers, Topic: f.quotas, OnStep: c.onStep, Activity: c.activity, ResendWindow: c.window, ResendRecords: c.records, Registry: c.registry,
		DeferFor: c.deferFor, DeferEvents: c.deferred, Remembering: c.memory, ReplayKey: c.replayKey,
		Limits: events.UsageLimits{FutureTolerance: c.future, MaxAge: 2 * 365 * 24 * time.Hour},
	})
	transport := &kafkago.Transport{}
	defer transport.CloseIdleConnections()
	return kafka.NewGroup(kafka.Config{
		Name: "quota", Brokers: strings.Split(f.Brokers, ","), Transport: transport, Group: f.Group, Topics: []string{f.Topic},
		SessionTimeout: c.session, RebalanceTimeout: 2 * c.session, Drain: min(c.session-c.session/4, 5*time.Second),
		BatchRows: c.rows, BatchInterval: c.interval, CommitIdle: 50 * time.Millisecond, OutOfRange: c.outside, Health: c.health, Logger: c.log, Tracer: c.tracer,
	}, handler).Run(ctx)
}

// count runs a consumer until the test ends or stop is called, which waits for it and returns what Run returned.
func (f *quotaFixture) count(t testing.TB, c quotaConsumer) (stop func() error) {
	t.Helper()
	url := c.url
	if url == "" {
		url = f.url
	}
	o := enginetest.RedisOptions(t, url) // what is sent again because an answer was late may be published a second time
	return background(t, func(ctx context.Context) error { return c.run(ctx, f, o) })
}

// usage is what was used: calls and data points by user and day.
type usage map[string]dragonfly.Counters

// expected is what the model says of the days whose counters are kept.
func expected(want model.Expected) usage {
	out := usage{}
	for key, sums := range want.Tables.Daily {
		part := strings.Split(key, "|")
		day, err := time.Parse(time.DateOnly, part[3])
		if err != nil || time.Now().After(day.Add(72*time.Hour)) {
			continue
		}
		c := out[part[1]+"|"+part[3]]
		c.APICalls += sums.Rows
		c.DataPoints += sums.DataPoints
		out[part[1]+"|"+part[3]] = c
	}
	return out
}

// used reads all counters.
func (f *quotaFixture) used(ctx context.Context) (usage, error) {
	out := usage{}
	keys := f.client.Scan(ctx, 0, "quota:{*", 1000).Iterator()
	for keys.Next(ctx) {
		user, day, _ := strings.Cut(strings.TrimPrefix(keys.Val(), "quota:{"), "}:")
		values, err := f.client.HMGet(ctx, keys.Val(), "api_calls", "data_points").Result()
		if err != nil {
			return nil, err
		}
		var c dragonfly.Counters
		for i, to := range []*int64{&c.APICalls, &c.DataPoints} {
			text, _ := values[i].(string)
			if *to, err = strconv.ParseInt(text, 10, 64); err != nil {
				return nil, fmt.Errorf("%s: %w", keys.Val(), err)
			}
		}
		out[user+"|"+day] = c
	}
	return out, keys.Err()
}

// differ lists up to ten differences.
func (u usage) differ(want usage) []string {
	var out []string
	add := func(format string, args ...any) {
		if len(out) < 10 {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	for key, w := range want {
		if u[key] != w {
			add("%s: %+v, want %+v", key, u[key], w)
		}
	}
	for key, g := range u {
		if _, ok := want[key]; !ok {
			add("%s: %+v, want none", key, g)
		}
	}
	return out
}

// check waits until the counters are as expected, and sees that they stay so when everything is consumed, that every key
// expires and that the threshold events are the right ones.
func (f *quotaFixture) check(t testing.TB, want model.Expected) {
	t.Helper()
	f.await(t, expected(want))
	f.AwaitConsumed(t)
	f.await(t, expected(want))
	f.checkExpiry(t)
	f.checkThresholds(t, want)
}

func (f *quotaFixture) await(t testing.TB, want usage) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	var last []string
	err := enginetest.Eventually(ctx, func() bool {
		got, err := f.used(ctx)
		if err != nil {
			if len(last) == 0 {
				last = []string{err.Error()}
			}
			return false
		}
		last = got.differ(want)
		return len(last) == 0
	})
	if err != nil {
		t.Fatalf("the counters are not as they should be within %s: %q; positions %+v", enginetest.Patience, last, f.Positions(t))
	}
}

func (f *quotaFixture) checkExpiry(t testing.TB) {
	t.Helper()
	keys := f.client.Scan(t.Context(), 0, "*", 1000).Iterator()
	for keys.Next(t.Context()) {
		left, err := f.client.TTL(t.Context(), keys.Val()).Result()
		if err != nil {
			t.Fatal(err)
		}
		if left == -1 {
			t.Errorf("key %s never expires", keys.Val())
		}
	}
	if err := keys.Err(); err != nil {
		t.Fatal(err)
	}
}

// checkThresholds compares the ids of the threshold events of today, each once however often it was published. Of the day that was over
// while the test ran, some may be there.
func (f *quotaFixture) checkThresholds(t testing.TB, want model.Expected) {
	t.Helper()
	if f.members.Limit <= 0 {
		return
	}
	today, over := time.Now().UTC().Format(time.DateOnly), f.began.UTC().Format(time.DateOnly)
	ids, may := map[string]string{}, map[string]bool{}
	for key, c := range expected(want) {
		user, day, _ := strings.Cut(key, "|")
		if day != today && day != over || f.members.Company[user] == "" {
			continue
		}
		for percent, least := range map[int]int64{80: (f.members.Limit*4 + 4) / 5, 100: f.members.Limit} {
			if c.APICalls < least {
				continue
			}
			if may[events.QuotaEventID(user, day, percent, f.members.Limit)] = true; day == today {
				ids[events.QuotaEventID(user, day, percent, f.members.Limit)] = fmt.Sprintf("%s %d %%", user, percent)
			}
		}
	}
	got := f.thresholds(t)
	for id, what := range ids {
		if _, ok := got[id]; !ok {
			t.Errorf("no threshold event for %s", what)
		}
	}
	for id, e := range got {
		if !may[id] {
			t.Errorf("a threshold event too many: %s", e.Data)
		}
		if e.CausationID == "" || e.CausationSource == "" {
			t.Errorf("a threshold event without its cause: %s", e.Data)
		}
	}
}

// thresholds reads the threshold events, by id.
func (f *quotaFixture) thresholds(t testing.TB) map[string]*events.Envelope {
	t.Helper()
	out := map[string]*events.Envelope{}
	f.ReadAll(t, f.quotas, func(r *events.Record) {
		record := kafka.CopyRecord(r)
		envelope, err := events.ParseEnvelope(&record)
		if err != nil {
			t.Fatalf("threshold event at offset %d: %v", r.Offset, err)
		}
		out[envelope.ID] = envelope
	})
	return out
}

// sameDay is about now. The given time before it is of the same day in UTC, also soon after midnight.
func sameDay(before time.Duration) time.Time {
	now := time.Now()
	if earliest := now.UTC().Truncate(24 * time.Hour).Add(before); now.Before(earliest) {
		return earliest
	}
	return now
}

// recent makes traffic of today, so that it touches the day that is open.
func recent(t testing.TB, c model.Config) ([]model.Message, model.Expected) {
	t.Helper()
	if c.Start.IsZero() {
		c.Start = sameDay(10 * time.Minute).Add(-10 * time.Minute)
	}
	if c.Step == 0 {
		c.Step = time.Millisecond
	}
	if c.Companies == 0 {
		c.Companies, c.UsersPerCompany = 10, 10
	}
	return traffic(t, c)
}

// nth calls do when something happens for the nth time.
func nth(n int32, do func()) func() {
	var count atomic.Int32
	return func() {
		if count.Add(1) == n {
			do()
		}
	}
}
