package verify_test

import (
	"fmt"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/verify"
	"tenantflow/sinks/dragonfly"
)

// wrongUsage is usage of a user, five data points, and what takes it back.
type wrongUsage struct {
	id, user string
	at       time.Time
}

func (u *wrongUsage) recorded() *events.Envelope {
	return &events.Envelope{ID: u.id, Source: "/tests", Type: events.TypeUsageRecorded, Time: u.at,
		Data: fmt.Appendf(nil, `{"company_id":"acme","user_id":%q,"subscription_tier":"pro","service_name":"s","api_endpoint":"/e","data_points_consumed":5,"processing_time_ms":2}`, u.user)}
}

func (u *wrongUsage) voided(t testing.TB, change ...func(*events.UsageVoided)) *events.Envelope {
	t.Helper()
	v := events.UsageVoided{CompanyID: "acme", UserID: u.user, Tier: "pro", Service: "s", Endpoint: "/e", Timestamp: u.at, DataPoints: 5, ProcessingTime: 2000,
		BillingPeriod: u.at.UTC().Format("2006-01"), VoidsSource: "/tests", VoidsID: u.id, VoidsRecordedAt: u.at, Reason: "wrong"}
	for _, f := range change {
		f(&v)
	}
	e, err := v.Event(&events.Envelope{ID: "request", Source: "/console"}, u.at.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// send publishes events to the first partition.
func (in *installation) send(t testing.TB, all ...*events.Envelope) {
	t.Helper()
	w := enginetest.Writer(in.client)
	w.Topic, w.BatchTimeout = in.topic, time.Millisecond
	w.Balancer = kafkago.BalancerFunc(func(kafkago.Message, ...int) int { return 0 })
	defer func() { _ = w.Close() }()
	var messages []kafkago.Message
	for _, e := range all {
		value, headers := e.EncodeBinary()
		m := kafkago.Message{Key: []byte("k"), Value: value, Time: e.Time}
		for _, h := range headers {
			m.Headers = append(m.Headers, kafkago.Header{Key: h.Key, Value: h.Value})
		}
		messages = append(messages, m)
	}
	if err := w.WriteMessages(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
}

func wrongUsages(n int) []*wrongUsage {
	at := time.Now().UTC().Truncate(time.Second).Add(-2 * time.Minute)
	if today := time.Now().UTC().Truncate(24 * time.Hour); at.Before(today) {
		at = today
	}
	all := make([]*wrongUsage, n)
	for i := range all {
		all[i] = &wrongUsage{fmt.Sprintf("w-%d", i), fmt.Sprintf("u-%d", i%2), at.Add(time.Duration(i) * time.Millisecond)}
	}
	return all
}

func TestVoids_WithTheirUsageAreNoFinding(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	u := wrongUsages(4)
	in.send(t, u[0].recorded(), u[1].recorded(), u[2].recorded(), u[1].voided(t), u[1].voided(t), u[3].recorded(), u[1].recorded())
	stop := in.consume(t, 100)
	in.awaitConsumed(t)
	stop()
	in.awaitQuiet(t)
	r := in.verify(t, false)
	want(t, r, nil)
	if s := r.Sum(); s.Rows != 5 || s.Duplicates != 2 {
		t.Errorf("%d rows and %d duplicates, want 5 and 2", s.Rows, s.Duplicates)
	}
	since := func(c *verify.Config) { c.Since = time.Now().Add(-time.Hour) }
	want(t, in.verify(t, false, since), nil)

	// The usage is deleted: more is taken back than was added.
	in.exec(t, "ALTER TABLE usage_tracking DELETE WHERE event_id = 'w-1' SETTINGS mutations_sync = 2")
	for name, change := range map[string]func(*verify.Config){"all": func(*verify.Config) {}, "since": since} {
		t.Run(name, func(t *testing.T) {
			r := in.verify(t, false, change)
			want(t, r, map[verify.Kind]int64{verify.VoidWithoutUsage: 1, verify.Missing: 2, verify.WrongTotal: 3})
		})
	}

	// Its data were changed, and the totals are those of what is there.
	in.exec(t, "ALTER TABLE usage_tracking UPDATE api_endpoint = '/other' WHERE event_id = 'w-0' SETTINGS mutations_sync = 2")
	in.send(t, u[0].voided(t))
	in.consume(t, 100)
	in.awaitConsumed(t)
	if n := in.number(t, "SELECT count() FROM usage_tracking WHERE voids_id = 'w-0'"); n != 0 {
		t.Errorf("%d voids of usage with other data", n)
	}
}

// A void whose content was changed is an altered row, and takes back what is not there.
func TestVoids_AreComparedWithTheirEvents(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		update string
		want   map[verify.Kind]int64
	}{
		"what it takes back": {"voids_id = 'w-1'", map[verify.Kind]int64{verify.AlteredRow: 1, verify.VoidWithoutUsage: 1}},
		"its source":         {"voids_source = '/other'", map[verify.Kind]int64{verify.AlteredRow: 1, verify.VoidWithoutUsage: 1}},
		"its endpoint":       {"api_endpoint = '/other'", map[verify.Kind]int64{verify.AlteredRow: 1, verify.VoidWithoutUsage: 1}},
		"its sign":           {"sign = 1", map[verify.Kind]int64{verify.AlteredRow: 1, verify.WrongTotal: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := install(t, 1)
			u := wrongUsages(2)
			in.send(t, u[0].recorded(), u[1].recorded(), u[0].voided(t))
			stop := in.consume(t, 100)
			in.awaitConsumed(t)
			stop()
			in.awaitQuiet(t)
			in.exec(t, "ALTER TABLE usage_tracking UPDATE "+c.update+" WHERE sign = -1 SETTINGS mutations_sync = 2")
			want(t, in.verify(t, false), c.want)
		})
	}
}

func TestCounters_OfVoidedUsageAreJudgedByTheLog(t *testing.T) {
	t.Parallel()
	c := installCounted(t, 1)
	u := wrongUsages(8)
	c.count(t)
	c.send(t, u[0].recorded(), u[1].recorded(), u[2].recorded(), u[3].recorded(), u[0].voided(t), u[0].voided(t), u[4].recorded(), u[1].voided(t))
	r := c.settled(t)
	if w := wrong(r); len(w) > 0 || r.Counters.Shares != 2 || r.Counters.Events != 3 {
		t.Errorf("%q, %+v", w, r.Counters)
	}
	key := dragonfly.QuotaKey("u-0", u[0].at)
	if got := c.sums(t)[key]; got != "210" {
		t.Errorf("counted %s", got)
	}
	// Hours later the void comes again, when the filter of resends has forgotten it.
	again := u[0].voided(t)
	again.Time = again.Time.Add(90 * time.Second)
	c.send(t, again, u[6].recorded())
	r = c.settled(t)
	if w := wrong(r); len(w) > 0 || c.sums(t)[key] != "315" {
		t.Errorf("%q, counted %s", w, c.sums(t)[key])
	}
	// A void that took nothing off is found, and mended.
	c.client.HIncrBy(t.Context(), key, "api_calls", 1)
	fields := c.client.HGetAll(t.Context(), key).Val()
	for field, text := range fields {
		var epoch, watermark, calls, points int64
		if n, _ := fmt.Sscan(text, &epoch, &watermark, &calls, &points); n == 4 {
			c.client.HSet(t.Context(), key, field, fmt.Sprint(epoch, watermark, calls+1, points))
		}
	}
	if w := wrong(c.settled(t)); len(w) != 1 {
		t.Errorf("found %q", w)
	}
	c.report(t, true)
	if w := wrong(c.settled(t)); len(w) > 0 || c.sums(t)[key] != "315" {
		t.Errorf("%q, counted %s", w, c.sums(t)[key])
	}
}

// A void that says that its usage was not counted takes nothing off.
func TestCounters_OfUncountedUsageAreNotLowered(t *testing.T) {
	t.Parallel()
	c := installCounted(t, 1)
	u := wrongUsages(2)
	c.count(t)
	c.send(t, u[0].recorded(), u[1].recorded(), u[0].voided(t, func(v *events.UsageVoided) { v.Uncounted = true }), u[1].voided(t))
	r := c.settled(t)
	if w := wrong(r); len(w) > 0 || r.Counters.Events != 1 {
		t.Errorf("%q, %+v", w, r.Counters)
	}
	if got := c.sums(t)[dragonfly.QuotaKey("u-0", u[0].at)]; got != "15" {
		t.Errorf("counted %s", got)
	}
}
