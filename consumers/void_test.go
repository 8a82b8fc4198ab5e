package consumers_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
	"tenantflow/sinks/clickhouse"
)

// A spent is usage that a test publishes, and may take back.
type spent struct {
	id, company, user string
	at                time.Time // its timestamp, and the time of its record
	points            uint32
	partition         int32
}

func record(partition int32, key string, at time.Time, e *events.Envelope) *kgo.Record {
	value, headers := e.EncodeBinary()
	r := &kgo.Record{Partition: partition, Key: []byte(key), Value: value, Timestamp: at}
	for _, h := range headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return r
}

const voidedFrom = "/data-bridge/voids"

// record is the usage as it is published.
func (s *spent) record() *kgo.Record {
	return record(s.partition, s.user, s.at, &events.Envelope{ID: s.id, Source: voidedFrom, Type: events.TypeUsageRecorded, Time: s.at,
		Data: fmt.Appendf(nil, `{"company_id":%q,"user_id":%q,"subscription_tier":"pro","service_name":"s","api_endpoint":"/e","data_points_consumed":%d,`+
			`"processing_time_ms":1.5,"revenue_attributed":"0.25"}`, s.company, s.user, s.points)})
}

// void is what takes it back, as the company consumer publishes it: later, to the partition of the usage.
func (s *spent) void(t testing.TB, later time.Duration, change ...func(*events.UsageVoided)) *kgo.Record {
	t.Helper()
	v := events.UsageVoided{
		CompanyID: s.company, UserID: s.user, Tier: "pro", Service: "s", Endpoint: "/e", Timestamp: s.at, DataPoints: s.points, ProcessingTime: 1500,
		BillingPeriod: s.at.UTC().Format("2006-01"), Revenue: 250_000, VoidsSource: voidedFrom, VoidsID: s.id, VoidsRecordedAt: s.at, Reason: "it was wrong",
	}
	for _, f := range change {
		f(&v)
	}
	e, err := v.Event(&events.Envelope{ID: "request of " + s.id, Source: "/console"}, s.at.Add(later))
	if err != nil {
		t.Fatal(err)
	}
	return record(s.partition, s.company, s.at.Add(later), e)
}

// rowsBySign lists what is stored, by id of the usage, with a minus before what takes it back; sorted.
func (f *fixture) rowsBySign(t testing.TB) []string {
	t.Helper()
	rows, err := f.db.Query(t.Context(), "SELECT if(sign = 1, event_id, concat('-', voids_id)) FROM usage_tracking")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	all := []string{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		all = append(all, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// sumsAgree compares the totals with what the rows add up to by their signs.
func (f *fixture) sumsAgree(t testing.TB) {
	t.Helper()
	rows, err := model.ReadRows(t.Context(), f.sql)
	if err != nil {
		t.Fatal(err)
	}
	views, err := model.ReadViews(t.Context(), f.sql)
	if err != nil {
		t.Fatal(err)
	}
	if d := model.Compare(views, rows); len(d) > 0 {
		t.Errorf("totals, against the rows:\n%s", model.Describe(d))
	}
}

func (f *fixture) wantRows(t testing.TB, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := f.rowsBySign(t); !slices.Equal(got, want) {
		t.Errorf("stored %q\nwant %q", got, want)
	}
	f.sumsAgree(t)
}

// wantLetters compares the dead letters by offset of the first partition.
func (f *fixture) wantLetters(t *testing.T, want map[int64]events.Reason) {
	t.Helper()
	got := map[int64]events.Reason{}
	for origin, letter := range f.LettersByOrigin(t) {
		got[origin.Offset] = letter.Reason
	}
	if !maps.Equal(got, want) {
		t.Errorf("dead letters %v, want %v", got, want)
	}
}

// What stands together in a batch, and what comes apart, must come to the same.
func TestVoid_IsARowOnlyBehindItsUsage(t *testing.T) {
	t.Parallel()
	at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	use := func(id string) *spent { return &spent{id: id, company: "acme", user: "u", at: at, points: 5} }
	a, b, refused := use("a"), use("b"), &spent{id: "c", company: "refused-1", user: "v", at: at, points: 1}
	otherPoints := func(v *events.UsageVoided) { v.DataPoints++ }
	otherUser := func(v *events.UsageVoided) { v.UserID = "w" }
	otherLimits := func(v *events.UsageVoided) { v.VoidsRecordedAt = at.Add(-48 * time.Hour) } // when such usage was stored
	ofVoid := func(v *events.UsageVoided) {
		v.VoidsSource, v.VoidsID = events.VoidSource(), events.VoidID(voidedFrom, "a", at)
	}
	malformed := func(offsets ...int64) map[int64]events.Reason {
		letters := map[int64]events.Reason{}
		for _, offset := range offsets {
			letters[offset] = events.MalformedEnvelope
		}
		return letters
	}
	for name, c := range map[string]struct {
		log     []*kgo.Record
		rows    []string
		letters map[int64]events.Reason
	}{
		"behind it":          {[]*kgo.Record{a.record(), b.record(), a.void(t, time.Minute)}, []string{"a", "b", "-a"}, nil},
		"twice":              {[]*kgo.Record{a.record(), a.void(t, time.Minute), a.void(t, time.Hour)}, []string{"a", "-a"}, nil},
		"and a resend":       {[]*kgo.Record{a.record(), a.void(t, time.Minute), a.record(), a.void(t, time.Hour), a.record()}, []string{"a", "-a"}, nil},
		"before it":          {[]*kgo.Record{a.void(t, time.Minute), a.record()}, []string{"a"}, malformed(0)},
		"before and behind":  {[]*kgo.Record{a.void(t, time.Minute), a.record(), a.void(t, time.Minute)}, []string{"a", "-a"}, malformed(0)},
		"without it":         {[]*kgo.Record{b.record(), a.void(t, time.Minute), a.void(t, time.Minute)}, []string{"b"}, malformed(1, 2)},
		"with other points":  {[]*kgo.Record{a.record(), a.void(t, time.Minute, otherPoints)}, []string{"a"}, malformed(1)},
		"with another user":  {[]*kgo.Record{a.record(), a.void(t, time.Minute, otherUser)}, []string{"a"}, malformed(1)},
		"of a void":          {[]*kgo.Record{a.record(), a.void(t, time.Minute), a.void(t, time.Minute, ofVoid)}, []string{"a", "-a"}, malformed(2)},
		"of refused usage":   {[]*kgo.Record{a.record(), refused.record(), refused.void(t, time.Minute), b.record()}, []string{"a", "b"}, map[int64]events.Reason{1: events.RejectedByStore, 2: events.MalformedEnvelope}},
		"years later":        {[]*kgo.Record{a.record(), a.void(t, 3*events.DefaultMaxAge)}, []string{"a", "-a"}, nil},
		"under other limits": {[]*kgo.Record{a.record(), a.void(t, time.Minute, otherLimits)}, []string{"a", "-a"}, nil},
		"with another after": {[]*kgo.Record{a.record(), a.void(t, time.Minute), a.void(t, time.Minute, otherPoints)}, []string{"a", "-a"}, map[int64]events.Reason{2: events.Conflict}},
	} {
		for how, rows := range map[string]int{"in one batch": 1000, "apart": 1} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, fixtureOptions{partitions: 1})
				if err := f.db.Exec(t.Context(), refuseSome); err != nil {
					t.Fatal(err)
				}
				f.Produce(t, copies(c.log)...)
				f.finish(t, f.start(t, consumer{rows: rows}))
				f.wantRows(t, c.rows...)
				f.wantLetters(t, c.letters)
				f.again(t)
				f.wantRows(t, c.rows...)
			})
		}
	}
}

// copies are for a topic of their own: what was produced names its topic.
func copies(log []*kgo.Record) []*kgo.Record {
	out := make([]*kgo.Record, len(log))
	for i, r := range log {
		out[i] = &kgo.Record{Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp}
	}
	return out
}

// again has another group read the log from its beginning, in other batches.
func (f *fixture) again(t *testing.T) {
	t.Helper()
	other := *f
	other.Group += ".again"
	other.finish(t, other.start(t, consumer{rows: 3, interval: time.Millisecond}))
}

// A void is found by its usage in another partition as well, where a producer's key or the number of partitions has changed since.
func TestVoid_ItsUsageMayStandElsewhere(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 2})
	a := &spent{id: "a", company: "acme", user: "u", at: time.Now().Add(-time.Hour).Truncate(time.Millisecond), points: 5}
	f.Produce(t, a.record())
	stop := f.start(t, consumer{})
	f.AwaitConsumed(t)
	void := a.void(t, time.Minute)
	void.Partition = 1
	f.Produce(t, void)
	f.finish(t, stop)
	f.wantRows(t, "a", "-a")
}

// spend makes usage of some users with voids among it, and what must be stored in the end.
func spend(t testing.TB, partitions int32, n int) (log []*kgo.Record, want []string) {
	t.Helper()
	at := time.Now().Add(-2 * time.Hour).Truncate(time.Millisecond)
	var open []*spent
	for i := range n {
		s := &spent{id: fmt.Sprintf("e-%04d", i), company: "acme", user: fmt.Sprintf("u-%d", i%7), at: at.Add(time.Duration(i) * time.Millisecond),
			points: uint32(i), partition: int32(i) % partitions}
		if i%5 == 0 { // another month has a part of its own
			s.at = s.at.AddDate(0, -1, -3)
		}
		log, want = append(log, s.record()), append(want, s.id)
		if open = append(open, s); i%3 == 0 {
			log = append(log, s.void(t, time.Minute))
			want = append(want, "-"+s.id)
		}
		if i%11 == 0 && i > 20 {
			s := open[i-20]
			log = append(log, s.record())
			if (i-20)%3 == 0 {
				log = append(log, s.void(t, time.Hour)) // once more
			}
		}
	}
	return log, want
}

func TestVoid_AKillAtAnyBorderChangesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range crashes() {
		t.Run(string(c.Step), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{partitions: 1})
			log, want := spend(t, 1, 400)
			f.Produce(t, log...)
			for _, nth := range []int32{1, 2, 4} { // of a batch with voids there are two inserts
				c.Nth = nth
				if !f.crashAt(t, c) {
					t.Fatalf("the child never came to %s a %d. time", c.Step, nth)
				}
			}
			f.finish(t, f.start(t, consumer{insertTimeout: crashInsert, session: crashSession, rows: 100}))
			f.wantRows(t, want...)
			f.wantLetters(t, map[int64]events.Reason{})
		})
	}
}

// Without the look at the table, a void without its usage is taken.
func TestVoid_WithoutTheLookUpAnyVoidIsTaken(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 1})
	a := &spent{id: "a", company: "acme", user: "u", at: time.Now().Add(-time.Hour).Truncate(time.Millisecond), points: 5}
	f.Produce(t, a.void(t, time.Minute))
	f.finish(t, f.start(t, consumer{store: func(s consumers.UsageStore) consumers.UsageStore { return gullible{s} }}))
	f.wantRows(t, "-a")
}

// gullible is a store that finds the usage of every void.
type gullible struct{ consumers.UsageStore }

func (gullible) FindVoided(_ context.Context, _ *clickhouse.Block, voids []int) ([]clickhouse.Match, error) {
	found := make([]clickhouse.Match, len(voids))
	for i, row := range voids {
		found[i] = clickhouse.Match{Row: row, Same: true}
	}
	return found, nil
}

func TestVoid_AKilledStoreCompletesItsTotals(t *testing.T) {
	t.Parallel()
	ch := enginetest.ClickHouse(t)
	f := newFixture(t, fixtureOptions{dsn: ch.DSN(), partitions: 1})
	log, want := spend(t, 1, 600)
	f.Produce(t, log...)
	var inserts int
	c := consumer{insertTimeout: crashInsert, rows: 100}
	c.onStep = func(s consumers.UsageStep) {
		if s == consumers.StepIntended {
			if inserts++; inserts == 3 || inserts == 6 {
				if err := ch.Kill(); err != nil {
					t.Error(err)
				}
				if err := ch.Start(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			}
		}
	}
	f.finish(t, f.start(t, c))
	f.wantRows(t, want...)
}
