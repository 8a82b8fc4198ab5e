package operations

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/health"
)

// noon is when the sample is seen.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant

// sample is a board on which everything has been gathered, with some of everything: for partitions in each topic, and users who reached
// a threshold.
func sample(t testing.TB, partitions, users int) *Board {
	t.Helper()
	h := health.New(5*time.Minute, slog.New(slog.DiscardHandler), "usage", "quota", "subscription", "company", "jobs", "api")
	for _, part := range []string{"usage", "quota", "subscription", "company", "jobs", "api"} {
		h.Set(part, health.Ready, "")
		h.Load(part, partitions, 0)
	}
	b := New(Config{Version: "v1.4.0", Health: h, Parts: []string{"usage", "quota", "subscription", "company", "jobs", "api"},
		Groups: []Group{{"usage", "tenantflow.usage", "usage.events"}, {"quota", "tenantflow.quota", "usage.events"},
			{"subscription", "tenantflow.subscription", "subscription.events"}, {"company", "tenantflow.company", "company.events"}},
		Stores: []Target{{Name: "Kafka"}, {Name: "ClickHouse"}, {Name: "Postgres"}, {Name: "Dragonfly"}},
	})
	for i, g := range b.lag {
		g.data, g.taken = sampleLag(b.cfg.Groups[i], partitions, i), noon.Add(-time.Duration(2+i)*time.Second)
	}
	for i, g := range b.stores {
		latency := []float64{1.1, 3.4, 0.7, 0.3}[i]
		g.data, g.taken = Store{Store: b.cfg.Stores[i].Name, State: Up, LatencyMS: &latency, Since: noon.Add(-26 * time.Hour)}, noon.Add(-time.Duration(1+i)*time.Second)
		for n := range pingHistory {
			v := latency * (1 + 0.5*math.Abs(math.Sin(float64(n*(i+3))/7)))
			g.data.History = append(g.data.History, &v)
		}
	}
	b.letters.data, b.letters.taken = Letters{Total: 5312, Depth: lettersDepth, Complete: true, Reasons: []LetterCount{
		{Topic: "usage.events", Reason: "invalid_data", Count: 4811, LastDay: 312, Newest: noon.Add(-3 * time.Minute), Error: `at "/data_points_consumed": minimum: got -4, want 0`,
			Command: "tenantflow dlq ls --topic usage.events --reason invalid_data --state open"},
		{Topic: "usage.events", Reason: "tenant_mismatch", Count: 12, LastDay: 4, Newest: noon.Add(-41 * time.Minute), Error: "the user belonged to another company than the event's at the time of the event, which was not counted",
			Command: "tenantflow dlq ls --topic usage.events --reason tenant_mismatch --state open"},
		{Topic: "subscription.events", Reason: "key_mismatch", Count: 489, Newest: noon.Add(-71 * time.Hour), Error: "the key (4 bytes) is not the data's company_id (6 bytes)",
			Command: "tenantflow dlq ls --topic subscription.events --reason key_mismatch --state open"},
	}}, noon.Add(-8*time.Second)
	b.handled.data, b.handled.taken = map[LetterKind]int64{{"usage.events", "invalid_data"}: 4499, {"subscription.events", "key_mismatch"}: 489}, noon.Add(-8*time.Second)
	b.tasks.data, b.tasks.taken = []Task{
		{ID: "01936a5e-0000-7000-8000-00000000abcd", Kind: "replay", Topic: "usage.events", State: "running", Counts: map[string]int64{"published": 1204, "stored": 88120}, CreatedAt: noon.Add(-time.Hour), UpdatedAt: noon.Add(-4 * time.Second), Command: "tenantflow task show 01936a5e-0000-7000-8000-00000000abcd"},
	}, noon.Add(-6*time.Second)
	b.drift.data, b.drift.taken = Drift{Interval: "15m0s", StartedAt: noon.Add(-11 * time.Minute), Seconds: 12.4, Offsets: 1_812_443, Differences: map[string]int64{}}, noon.Add(-6*time.Second)
	b.rejections.data, b.rejections.taken = Rejections{LastDay: 21, Codes: map[string]int64{"invalid_upgrade_path": 14, "user_limit_reached": 7}, Depth: resultsDepth, Complete: true, Newest: []Rejected{
		{At: noon.Add(-5 * time.Minute), CompanyID: "acme", RequestType: "subscription.upgrade_requested.v1", RequestID: "6f1d1c1e-7c0a-4b7e-9a53-2f6f0c0d7a11", Code: "invalid_upgrade_path", Message: "enterprise is not above enterprise"},
		{At: noon.Add(-35 * time.Minute), CompanyID: "initech", RequestType: "company.user_added.v1", RequestID: "0b54c7d9-55f4-4e07-8f21-9b8e04a7c1d2", Code: "user_limit_reached", Message: "free has 1 user, and it is there"},
	}}, noon.Add(-12*time.Second)
	b.business.data, b.business.taken = sampleBusiness(t), noon.Add(-20*time.Second)
	q := Quotas{Date: "2026-11-23", Complete: true}
	for n := range users {
		u := QuotaUser{CompanyID: fmt.Sprintf("company-%d", n%1000), UserID: fmt.Sprintf("u-%d", n), Percentage: 100, Usage: 1000, Limit: 1000, ReachedAt: noon.Add(-time.Duration(n) * time.Minute)}
		if n%3 > 0 {
			u.Percentage, u.Usage, u.Limit = 80, 40000, 50000
			q.Near++
		} else {
			q.Exceeded++
		}
		q.Users = append(q.Users, u)
	}
	q.Users = q.Users[:min(quotaShown, len(q.Users))]
	for i := range q.Users {
		q.Users[i].Command = "tenantflow quota show " + q.Users[i].UserID
	}
	b.quotas.data, b.quotas.taken = q, noon.Add(-9*time.Second)
	return b
}

func sampleLag(g Group, partitions, i int) Lag {
	l := Lag{Consumer: g.Part, Group: g.Group, Topic: g.Topic}
	for p := range partitions {
		one := PartitionLag{Partition: p, Committed: int64(1_000_000 + 731*p), End: int64(1_000_000 + 731*p)}
		if i == 0 {
			one.Records = int64(210 + 13*p)
			one.End += one.Records
			one.oldest = noon.Add(-time.Duration(600+10*p) * time.Millisecond)
		}
		l.Partitions = append(l.Partitions, one)
	}
	l.age(noon)
	for n := range lagHistory {
		s := LagSample{At: noon.Add(time.Duration(n-lagHistory) * lagEvery)}
		if i < 2 {
			s.Seconds = 0.8 + 0.4*math.Sin(float64(n)/5) + 30*math.Exp(-math.Pow(float64(n-160-60*i)/14, 2))
		}
		l.History = append(l.History, s)
	}
	return l
}

// down makes a store of the sample one that hangs, with what comes from it.
func (b *Board) down(name string) {
	for i, g := range b.stores {
		if b.cfg.Stores[i].Name == name {
			g.unanswered()
			g.data.State, g.data.LatencyMS, g.data.Since = Down, nil, noon.Add(-95*time.Second)
			for n := pingHistory - 19; n < pingHistory; n++ {
				g.data.History[n] = nil
			}
		}
	}
	if name != "Postgres" {
		return
	}
	late := noon.Add(-102 * time.Second)
	b.tasks.unanswered()
	b.drift.unanswered()
	b.handled.unanswered()
	b.tasks.taken, b.drift.taken, b.handled.taken = late, late, late
	for _, part := range []string{"quota", "subscription", "company"} {
		b.cfg.Health.Set(part, health.Failing, "look up companies in Postgres: no answer within 5s (trying again)")
	}
}

func page(t testing.TB, b *Board, v View) string {
	t.Helper()
	var out bytes.Buffer
	if err := WritePage(&out, b.Report(noon), v); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPage_ShowsEveryPanelAndItsAge(t *testing.T) {
	t.Parallel()
	got := page(t, sample(t, 4, 5), View{Refresh: 10})
	for _, want := range []string{
		"Nothing needs a look", "does its work", "answers</span>", "8 s old", "12 s old", "tenantflow dlq ls --topic usage.events --reason invalid_data --state open", "4,499",
		"tenantflow task show 01936a5e", "published 1,204", "no differences", "1,812,443 events", "invalid_upgrade_path 14, user_limit_reached 7", "80 %", "refreshes every 10 s", `href="/?refresh=0"`,
		`aria-label="Lag of usage in seconds over the last 30 min: at most 31 s"`, `<a href="/?open=usage&amp;refresh=10"`,
	} {
		if !strings.Contains(got, want) {
			if want == `<a href="/?open=usage&amp;refresh=10"` && strings.Contains(got, `<a href="/?open=usage"`) {
				continue // the default is left out
			}
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(got, "Lag of usage by partition") {
		t.Error("partitions are shown without being asked for")
	}
	if opened := page(t, sample(t, 4, 5), View{Open: "usage"}); !strings.Contains(opened, "Lag of usage by partition") || strings.Count(opened, ">hide 4<") != 1 || !strings.Contains(opened, "does not refresh itself") {
		t.Error("the partitions of usage are not shown")
	}
}

func TestPage_AStoreThatHangsIsNamedAndTheOthersStay(t *testing.T) {
	t.Parallel()
	b := sample(t, 4, 5)
	b.down("Postgres")
	got := page(t, b, View{})
	for _, want := range []string{"<li>Postgres does not answer.</li>", "Not newer, because: Postgres did not answer within 5s", "102 s old", "8 s old", "not known", "1 19 without an answer"} {
		if want == "1 19 without an answer" {
			want = ", 19 without an answer"
		}
		if !strings.Contains(got, want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

func TestPage_AStoreThatAnswersWithAnErrorIsNotSaidToBeSilent(t *testing.T) {
	t.Parallel()
	b := sample(t, 4, 5)
	b.down("Postgres")
	for i, g := range b.stores {
		if b.cfg.Stores[i].Name == "Postgres" {
			g.problem, g.silent = `ping in Postgres: FATAL: password authentication failed for user "t" (SQLSTATE 28P01)`, false
		}
	}
	got := page(t, b, View{})
	for _, want := range []string{"<li>Postgres can&#39;t be used: ping in Postgres: FATAL: password authentication failed", "can&#39;t be used</span>"} {
		if !strings.Contains(got, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(got, "does not answer") {
		t.Error("it is said not to answer")
	}
}

func TestPage_BeforeAnythingIsGathered(t *testing.T) {
	t.Parallel()
	h := health.New(time.Minute, slog.New(slog.DiscardHandler), "api")
	b := New(Config{Health: h, Parts: []string{"usage", "api"}, Groups: []Group{{"usage", "g", "usage.events"}}, Stores: []Target{{Name: "Kafka"}}})
	got := page(t, b, View{})
	for _, want := range []string{"no data yet", "not asked yet", "does not run in this process", "is starting"} {
		if !strings.Contains(got, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	text, err := json.MarshalIndent(b.Report(noon), "", "  ")
	if err != nil || strings.Contains(string(text), `"data": null`) || !strings.Contains(string(text), `"age_seconds": null`) {
		t.Errorf("%v: %s", err, text)
	}
}

// Ids, messages and errors come from events that any producer can write.
func TestPage_HostileTextIsEscaped(t *testing.T) {
	t.Parallel()
	const hostile = `<script>alert(1)</script>"'><img src=x onerror=alert(2)>` + "\u202e\x00"
	b := sample(t, 1, 0)
	b.rejections.data.Newest = []Rejected{{CompanyID: hostile, RequestType: hostile, RequestID: hostile, Code: hostile, Message: hostile}}
	b.rejections.data.Codes = map[string]int64{hostile: 3}
	b.letters.data.Reasons = []LetterCount{{Topic: hostile, Reason: hostile, Error: hostile, Command: "tenantflow dlq ls --reason " + quoted(hostile)}}
	b.quotas.data.Users = []QuotaUser{{UserID: hostile, CompanyID: hostile, Command: hostile}}
	b.tasks.data = []Task{{ID: hostile, Topic: hostile, Kind: hostile, Message: hostile, State: hostile, Counts: map[string]int64{hostile: 1}, Command: hostile}}
	b.drift.data.Unproven, b.drift.data.Differences = []string{hostile}, map[string]int64{hostile: 1}
	b.lag[0].data.Topic, b.lag[0].data.Consumer = hostile, hostile
	b.stores[0].data.Store, b.stores[0].problem = hostile, hostile
	b.cfg.Health.Set("usage", health.Failing, hostile)
	b.cfg.Health.Note("usage", hostile)
	got := page(t, b, View{Open: hostile})
	for _, tag := range []string{"<script", "<img", "onerror=alert(2)>"} {
		if strings.Contains(got, tag) {
			i := strings.Index(got, tag)
			t.Errorf("the page has %s: %s", tag, got[max(0, i-100):min(len(got), i+100)])
		}
	}
	var out bytes.Buffer
	if err := WriteSignIn(&out, hostile); err != nil || strings.Contains(out.String(), "<script") {
		t.Errorf("%v: %s", err, out.String())
	}
}

// The policy allows the style by its hash, so the hash must be that of what is in the page; and there is nothing else to allow.
func TestPage_TheStyleIsTheOneThatThePolicyAllows(t *testing.T) {
	t.Parallel()
	var signIn bytes.Buffer
	if err := WriteSignIn(&signIn, ""); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{"page": page(t, sample(t, 2, 1), View{Open: "usage"}), "sign-in": signIn.String()} {
		found := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindAllStringSubmatch(got, -1)
		if len(found) != 1 {
			t.Fatalf("%s: %d styles", name, len(found))
		}
		sum := sha256.Sum256([]byte(found[0][1]))
		if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(ContentSecurityPolicy(), want) {
			t.Errorf("%s: the policy %s does not have %s", name, ContentSecurityPolicy(), want)
		}
		if forbidden := regexp.MustCompile(`(?i)<script|<link|<img|\sstyle=|\son[a-z]+=|javascript:|https?://`).FindString(got); forbidden != "" {
			t.Errorf("%s has %q", name, forbidden)
		}
	}
}

// What a request for the page costs with 64 partitions in each topic, all of them shown, and a thousand tenants:
//
//	go test ./internal/operations -run '^$' -bench Page -benchtime 2000x
func BenchmarkPage(b *testing.B) {
	for _, state := range []string{"all well", "Postgres down"} {
		b.Run(state, func(b *testing.B) {
			board := sample(b, 64, 1000)
			if state != "all well" {
				board.down("Postgres")
			}
			b.ReportAllocs()
			took := make([]time.Duration, 0, b.N)
			for b.Loop() {
				began := time.Now()
				if err := WritePage(io.Discard, board.Report(noon), View{Refresh: 10, Open: "usage"}); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			b.ReportMetric(float64(percentile(took, 95).Microseconds())/1000, "p95-ms")
		})
	}
}

// A history is drawn by the clock: half an hour without an answer in the midst of it is as long as it was.
func TestSpark_LooksAreDrawnByTheirTime(t *testing.T) {
	t.Parallel()
	look := func(after int, seconds float64) LagSample {
		return LagSample{At: noon.Add(time.Duration(after) * time.Second), Seconds: seconds}
	}
	got := byTime([]LagSample{look(0, 1), look(6, 2), look(15, 3), look(40, 4), look(45, 0)})
	if want := []float64{1, 2, 2, 3, -1, -1, -1, -1, 4, 0}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if s := drawn(got, 10, ""); strings.Count(s.Line, "M") != 2 || strings.Count(s.Area, "Z") != 2 {
		t.Errorf("a gap is not drawn as one: %s", s.Line)
	}
	if s := drawn(byTime(nil), 10, ""); s.Line != "" {
		t.Errorf("of nothing: %+v", s)
	}
}
