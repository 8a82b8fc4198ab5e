package verify_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/model"
	"tenantflow/internal/tenantmodel"
	"tenantflow/internal/verify"
)

// A plant is one corruption of a store or a topic.
type plant struct {
	name  string
	plant func(t *testing.T, e *planted) []expected
	mends bool // a repair mends it
}

// An expected finding is of a kind and names something.
type expected struct {
	kind  verify.Kind
	names string // in its place, event or detail
}

// planted is one installation with everything in it, for all corruptions together.
type planted struct {
	*counted
	y         *tenancy
	companies []string        // of usage: one for each corruption of rows and totals
	used      map[string]bool // companies of Postgres that have a corruption already
}

// usageCompany gives a company whose usage no other corruption is about.
func (e *planted) usageCompany(t *testing.T) string {
	t.Helper()
	if len(e.companies) == 0 {
		t.Fatal("there are more corruptions than companies")
	}
	c := e.companies[0]
	e.companies = e.companies[1:]
	return c
}

// row is the place of a row of a company.
func (e *planted) row(t *testing.T, company string) (partition int, offset int64) {
	t.Helper()
	var p uint16
	if err := e.db.QueryRow(t.Context(), "SELECT _partition, _offset FROM usage_tracking WHERE company_id = ? ORDER BY timestamp DESC, _offset LIMIT 1", company).Scan(&p, &offset); err != nil {
		t.Fatal(err)
	}
	return int(p), offset
}

// pick gives the company and another text that a query returns first for a company that no other corruption is about.
func (e *planted) pick(t *testing.T, sql string) (company, what string) {
	t.Helper()
	var used []string
	for c := range e.used {
		used = append(used, c)
	}
	err := e.y.conn.QueryRow(t.Context(), "SELECT company_id, what FROM ("+sql+
		") AS q (company_id, what) WHERE company_id <> ALL ($1) AND company_id IN (SELECT company_id FROM companies WHERE status = 'active') ORDER BY 1, 2 LIMIT 1",
		append([]string{}, used...)).Scan(&company, &what)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	e.used[company] = true
	return company, what
}

// rewrite deletes a topic and creates it again from its records, with changes.
func (e *planted) rewrite(t *testing.T, topic string, partitions int, change func(kafkago.Message) []kafkago.Message) {
	t.Helper()
	var all []kafkago.Message
	for p := range partitions {
		err := kafka.ReadLog(t.Context(), e.installation.client, topic, p, kafka.Range{To: 1 << 60}, func(r *events.Record) error {
			c := kafka.CopyRecord(r)
			m := kafkago.Message{Topic: topic, Key: c.Key, Value: c.Value}
			for _, h := range c.Headers {
				m.Headers = append(m.Headers, kafkago.Header{Key: h.Key, Value: h.Value})
			}
			all = append(all, change(m)...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	e.recreate(t, topic, partitions)
	e.y.send(t, all...)
}

// header reads a header of a message.
func header(m *kafkago.Message, key string) string {
	for _, h := range m.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// withHeader is a message with another value of a header.
func withHeader(m kafkago.Message, key, value string) kafkago.Message {
	m.Headers = slices.Clone(m.Headers)
	for i := range m.Headers {
		if m.Headers[i].Key == key {
			m.Headers[i].Value = []byte(value)
		}
	}
	return m
}

func (e *planted) report(t *testing.T, repair bool, change ...func(*verify.Config)) *verify.Report {
	t.Helper()
	return e.verify(t, repair, append([]func(*verify.Config){e.y.config, func(c *verify.Config) { c.Counting = &e.counting }}, change...)...)
}

// mustFind compares what was found with what must be.
func mustFind(t *testing.T, r *verify.Report, must map[string][]expected) {
	t.Helper()
	type open struct {
		plant string
		expected
	}
	var missing []open
	for name, all := range must {
		for _, x := range all {
			missing = append(missing, open{name, x})
		}
	}
	slices.SortFunc(missing, func(a, b open) int { return len(b.names) - len(a.names) }) // c-10 before c-1
	for _, g := range r.Findings {
		if g.Information {
			continue
		}
		for _, f := range g.Samples {
			text := f.Where + " " + f.Event + " " + f.Detail
			i := slices.IndexFunc(missing, func(o open) bool { return o.kind == f.Kind && strings.Contains(text, o.names) })
			if i < 0 {
				t.Errorf("nothing was planted that is %s: %s", f.Kind, text)
				continue
			}
			missing = slices.Delete(missing, i, i+1)
		}
	}
	for _, o := range missing {
		t.Errorf("%s: no finding %s names %q", o.plant, o.kind, o.names)
	}
}

// Every corruption is in one installation: each is named, by what it is about, and nothing else is. Then a repair mends what can be mended.
func TestPlanted_EachIsNamedAndNothingElse(t *testing.T) {
	t.Parallel()
	begun := time.Now().Add(-time.Minute)
	e := &planted{counted: installCounted(t, 2), used: map[string]bool{}}
	e.y = e.tenancy(t)
	g, err := model.New(model.Config{Seed: 5, Count: 2500, Start: time.Now().Add(-time.Minute), Step: time.Millisecond, Companies: 30, UsersPerCompany: 2, Malformed: 0.01})
	if err != nil {
		t.Fatal(err)
	}
	e.publish(t, g, 0)
	stopUsage, stopQuota, stopTenants := e.consume(t, 2000), e.count(t), e.y.apply(t, nil)
	e.y.produce(t, tenantmodel.Config{Seed: 12, Companies: 60, Events: 1800, Conflicts: 0.03, Lapsed: 0.2, Prefix: e.topic[len(e.topic)-8:] + "-"})
	e.y.await(t)
	e.awaitConsumed(t)
	e.settled(t)
	stopUsage()
	stopQuota()
	stopTenants()
	e.awaitQuiet(t)
	e.companies = e.texts(t, "SELECT company_id FROM usage_tracking GROUP BY company_id HAVING count() > 20 ORDER BY company_id")
	// What is old enough for its configuration to be on the topic for sure.
	y := e.y
	if _, err := y.conn.Exec(t.Context(), "ALTER TABLE company_config DISABLE TRIGGER USER; UPDATE company_config SET updated_at = now() - interval '1 hour'; ALTER TABLE company_config ENABLE TRIGGER USER"); err != nil {
		t.Fatal(err)
	}
	before := e.report(t, false)
	mustFind(t, before, nil)
	if len(before.Unproven) > 0 || len(before.Plan) > 0 {
		t.Fatalf("before anything was planted: %q, plan %+v", before.Unproven, before.Plan)
	}

	must, stays := map[string][]expected{}, map[string][]expected{}
	all := slices.Concat(plantsOfUsage(), plantsOfTenants())
	for _, p := range all {
		found := p.plant(t, e)
		must[p.name] = found
		if !p.mends {
			stays[p.name] = found
		}
	}
	if len(all) < 20 {
		t.Errorf("only %d corruptions are planted", len(all))
	}
	e.awaitQuiet(t)
	r := e.report(t, false)
	mustFind(t, r, must)
	// A run that begins before everything was published finds the same. One that begins now says what it does not look at.
	mustFind(t, e.report(t, false, func(c *verify.Config) { c.Since = begun }), must)
	late := e.report(t, false, func(c *verify.Config) { c.Since = time.Now() })
	for _, g := range late.Findings {
		switch g.Kind { // what is still looked at: results of some minutes before, all configurations, the counters of the whole day
		case verify.StaleConfig, verify.WrongCounter, verify.DoubledResult, verify.ForeignResult, verify.AlteredResult:
		default:
			if !g.Information {
				t.Errorf("a run since now finds %s: %+v", g.Kind, g.Samples)
			}
		}
	}
	if !strings.Contains(strings.Join(late.Notes, "\n"), "only what came since") || late.Sum().Judged != 0 {
		t.Errorf("a run since now judges %d offsets and notes %q", late.Sum().Judged, late.Notes)
	}
	var actions []verify.Action
	for _, s := range r.Plan {
		actions = append(actions, s.Action)
	}
	if want := []verify.Action{verify.RemoveRows, verify.CorrectTotals, verify.PublishConfigs, verify.PublishResults, verify.CorrectSums, verify.Recount}; !slices.Equal(actions, want) {
		t.Errorf("a repair would %q, want %q", actions, want)
	}
	// A repair that is declined changes nothing.
	asked := 0
	declined := e.report(t, true, func(c *verify.Config) { c.Approve = func(verify.Plan) (bool, error) { asked++; return false, nil } })
	if asked != 1 || declined.Repairs != (verify.Repairs{}) || declined.Differences() != r.Differences() {
		t.Errorf("asked %d times; a declined repair: %+v, %d differences", asked, declined.Repairs, declined.Differences())
	}
	repaired := e.report(t, true)
	if n := repaired.Repairs; n.RowsRemoved != 1 || n.Configs != 1 || n.Results != 1 || n.Recounts != 1 || n.Sums == 0 || n.TotalsMended < 3 {
		t.Errorf("repaired %+v", n)
	}
	e.count(t)
	e.settled(t)
	mustFind(t, e.report(t, false), stays)
}

// texts are the texts that a query gives.
func (in *installation) texts(t *testing.T, query string) (all []string) {
	t.Helper()
	rows, err := in.db.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func (e *planted) place(partition int, offset int64) string {
	return fmt.Sprintf("%s/%d/%d ", e.topic, partition, offset)
}

// records are the offsets of an event in a topic of companies or subscriptions, but for those that are dead letters.
func (e *planted) records(t *testing.T, topic, id string) []int64 {
	t.Helper()
	var found []int64
	var values []string
	for p := range 3 {
		err := kafka.ReadLog(t.Context(), e.installation.client, e.y.prefix+topic, p, kafka.Range{To: 1 << 60}, func(r *events.Record) error {
			if envelope, err := events.ParseEnvelope(r); err == nil && envelope.ID == id {
				found, values = append(found, r.Offset), append(values, string(r.Value))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range values {
		if v != values[0] {
			t.Fatalf("event %s has conflicts; choose another", id)
		}
	}
	return found
}
