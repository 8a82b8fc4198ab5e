package bench

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
	"tenantflow/internal/tier"
	"tenantflow/sinks/dragonfly"
)

func TestTheMiddleOfTheRunsIsWhatIsReported(t *testing.T) {
	t.Parallel()
	var m Measurement
	for _, speed := range []float64{300, 100, 200} {
		m.add(Run{RowsPerSecond: speed, CPU: CPU{Tenantflow: speed / 100}, PeakRSS: speed})
	}
	if m.RowsPerSecond != 200 || m.Min != 100 || m.Max != 300 || m.CPU.Tenantflow != 2 {
		t.Errorf("got %+v", m)
	}
	if m.PeakRSS != 300 {
		t.Errorf("the peak is %v, want the highest of all runs", m.PeakRSS)
	}
	m.add(Run{RowsPerSecond: 400})
	if m.RowsPerSecond != 250 {
		t.Errorf("the median of four is %v, want the mean of the middle two", m.RowsPerSecond)
	}
}

// A ratio is taken within a round: what the machine did meanwhile met both.
func TestRatiosCompareRunsOfTheSameRound(t *testing.T) {
	t.Parallel()
	var service, engine Measurement
	service.Name, engine.Name = Tenantflow, KafkaEngine
	for _, round := range [][2]float64{{600, 100}, {300, 60}, {70, 10}} {
		service.add(Run{RowsPerSecond: round[0]})
		engine.add(Run{RowsPerSecond: round[1]})
	}
	var out bytes.Buffer
	report(&out, []string{"a machine"}, []Measurement{service, engine})
	if want := "6.00"; !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "5.00 .. 7.00") {
		t.Errorf("no ratio of %s:\n%s", want, out.String())
	}
}

func TestTheProcessorTimeOfAProcessIsRead(t *testing.T) {
	t.Parallel()
	began := time.Now()
	deadline := began.Add(enginetest.Patience)
	for n := 0; ; n++ {
		used, err := cpuTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if used >= 3*clockTick {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s after %d reads", used, n)
		}
	}
	for _, line := range []string{"VmHWM", "VmRSS"} {
		if mb, err := memory(os.Getpid(), line); err != nil || mb < 1 || mb > 100_000 {
			t.Errorf("%s is %v MB, %v", line, mb, err)
		}
	}
}

func generate(t *testing.T, n int) []model.Message {
	t.Helper()
	g, err := model.New(model.Config{Seed: 4, Count: n, Start: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	all := make([]model.Message, n)
	for i := range all {
		g.Next(&all[i])
	}
	return all
}

// The Kafka engine must be given the same events, or the comparison is none.
func TestAnEventAsARowHasWhatTheServiceReads(t *testing.T) {
	t.Parallel()
	shape := asRow()
	decoder := events.NewUsageDecoder(events.UsageLimits{})
	for _, m := range generate(t, 3000) {
		var u events.Usage
		if err := decoder.Decode(&events.Record{Key: m.Key, Headers: m.Headers, Value: m.Value}, time.Now(), &u); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"event_id": string(u.ID), "event_source": string(u.Source), "company_id": string(u.CompanyID),
			"user_id": string(u.UserID), "subscription_tier": string(u.Tier), "api_endpoint": string(u.Endpoint), "billing_period": string(u.BillingPeriod),
			"timestamp": time.UnixMilli(u.Timestamp).UTC().Format("2006-01-02 15:04:05.000")}
		if err := shape(&m); err != nil {
			t.Fatal(err)
		}
		var row map[string]any
		if err := json.Unmarshal(m.Value, &row); err != nil {
			t.Fatalf("%s: %v", m.Value, err)
		}
		for name, value := range want {
			if row[name] != value {
				t.Fatalf("%s is %v, want %q", name, row[name], value)
			}
		}
		if len(row) != 12 {
			t.Fatalf("%d columns in %s", len(row), m.Value)
		}
	}
}

func TestPaddingMakesAnEventLargerAndNothingElse(t *testing.T) {
	t.Parallel()
	decoder := events.NewUsageDecoder(events.UsageLimits{})
	decode := func(m *model.Message) events.Usage {
		var u events.Usage
		if err := decoder.Decode(&events.Record{Key: m.Key, Headers: m.Headers, Value: m.Value}, time.Now(), &u); err != nil {
			t.Fatalf("%s: %v", m.Value, err)
		}
		return u
	}
	shape := padded(1000)
	for _, m := range generate(t, 500) {
		before := decode(&m)
		id, revenue := string(before.ID), before.Revenue
		if err := shape(&m); err != nil {
			t.Fatal(err)
		}
		after := decode(&m)
		if string(after.ID) != id || after.Revenue != revenue || len(m.Value) < 1000 || len(m.Value) > 1200 {
			t.Fatalf("%d bytes: %s", len(m.Value), m.Value)
		}
	}
}

// What is counted wrongly must not pass for fast: every counter has a number that the model gives.
func TestTheModelSaysWhatEachCounterMustBe(t *testing.T) {
	t.Parallel()
	const n = 3000
	g, err := model.New(model.Config{Seed: 4, Count: n, Resends: 0.1, Start: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	decoder := events.NewUsageDecoder(events.UsageLimits{})
	seen, want, company := map[uint64]bool{}, map[string]int64{}, map[string]string{}
	var m model.Message
	for g.Next(&m) {
		var u events.Usage
		if err := decoder.Decode(&events.Record{Key: m.Key, Headers: m.Headers, Value: m.Value}, time.Now(), &u); err != nil {
			t.Fatal(err)
		}
		if id := u.IdentityHash(); !seen[id] {
			seen[id] = true
			want[dragonfly.QuotaKey(string(u.UserID), time.UnixMilli(u.Timestamp))]++
			company[string(u.UserID)] = string(u.CompanyID)
		}
	}
	expected := g.Expected()
	counts, who, err := counters(&expected)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(counts, want) {
		t.Errorf("%d counters that are not the %d of the events", len(counts), len(want))
	}
	if !maps.Equal(who.company, company) {
		t.Error("users are in other companies than their events say")
	}
	for _, c := range company {
		if _, ok := tier.Default().Tier(who.tier[c]); !ok {
			t.Fatalf("company %s has the tier %q", c, who.tier[c])
		}
	}
}

func TestTheReportComparesCountingWithPlainIncrements(t *testing.T) {
	t.Parallel()
	quota, plain := Measurement{Name: Quota}, Measurement{Name: QuotaBaseline}
	quota.add(Run{RowsPerSecond: 150, CPU: CPU{Redis: 7.25}})
	plain.add(Run{RowsPerSecond: 200})
	weighed := Measurement{Name: QuotaMemory, Weights: []Weight{{Users: 10, Partitions: 4, PerCounter: 180}}}
	asked := Measurement{Name: QuotaHTTP, Latency: &Latency{P50: 1.26, P99: 4.44, Max: 31.4, Probes: 9}}
	var out bytes.Buffer
	report(&out, []string{"a machine"}, []Measurement{quota, plain, asked, weighed})
	for _, want := range []string{Quota + " / " + QuotaBaseline + " | 0.75", "7.25", "| 1.3 | 4.4 | 31 "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

func TestWhatIsMeasuredDecidesWhichEnginesAreStarted(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][2]bool{ // counts, stores rows
		Tenantflow: {false, true}, Quota: {true, false}, QuotaHTTP: {true, false}, UsageAndQuota: {true, true}, InsertLimit: {false, true}, Tenants: {true, false}, Analytics: {true, true},
	} {
		if got := [2]bool{counts(name), stores(name)}; got != want {
			t.Errorf("%s: counts, stores is %v, want %v", name, got, want)
		}
	}
}

func TestARateIsTakenBetweenTwoSharesOfTheResults(t *testing.T) {
	t.Parallel()
	m := marks{total: 100, at: []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second}, count: []int{0, 10, 90, 100}}
	for _, one := range []struct{ from, to, want float64 }{{0, 1, 25}, {0, 0.1, 10}, {0.1, 0.9, 80}, {0.9, 1, 5}} {
		if got := m.rate(one.from, one.to); got != one.want {
			t.Errorf("from %v to %v the rate is %v, want %v", one.from, one.to, got, one.want)
		}
	}
}

func TestTheReportTellsWhatCompaniesCost(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	report(&out, []string{"a machine"}, []Measurement{{Name: Tenants, Tenants: &TenantCost{Companies: 10_000, First: 45.12, Last: 35.6, Payments: 1868.4, UpgradeMany: 492.4}}})
	for _, want := range []string{"| 10,000 companies", "45.1 ms, 35.6 ms", "| 1,868 ", "492 ms"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

func TestTheReportTellsWhatAnswersTake(t *testing.T) {
	t.Parallel()
	took := make([]time.Duration, 100)
	for i := range took {
		took[99-i] = time.Duration(i+1) * time.Millisecond
	}
	times := timesOf(took)
	if *times != (Times{P50: 51, P95: 96, Max: 100, Asked: 100}) || timesOf(nil) != nil {
		t.Errorf("got %+v", times)
	}
	var out bytes.Buffer
	report(&out, []string{"a machine"}, []Measurement{{Name: Analytics, Year: &YearCost{Companies: 200, Rows: 20_000_000, Members: 70_123,
		Asked: []AnswerTime{{Name: "upsell", Goal: 100, Cold: times, Warm: times, Live: times}}}}})
	for _, want := range []string{"| upsell ", "| 100 ", "| 51 ", "| 96 ", "100, 100, 100", "20,000,000 rows", "70,123 members"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

// Who asks counts each answer from when its request was due, and takes nothing but a 200 for one.
func TestTheAskerReadsAnswersAndRefusesErrors(t *testing.T) {
	t.Parallel()
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/users/u-1/quota" && r.URL.Path != "/v1/users/u-2/quota" {
			http.Error(w, "no such user", http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(strings.Repeat("x", 300)))
	}))
	defer served.Close()
	dir := t.TempDir()
	a := Asker{Addr: strings.TrimPrefix(served.URL, "http://"), Users: dir + "/users", Rate: 500, Connections: 2, Out: dir + "/took"}
	for users, good := range map[string]bool{"u-1\nu-2": true, "u-3": false} {
		if err := os.WriteFile(a.Users, []byte(users), 0o600); err != nil {
			t.Fatal(err)
		}
		// On a busy machine the time may be over before the first is asked.
		for window := 100 * time.Millisecond; ; window *= 4 {
			a.From, a.Until = time.Now(), time.Now().Add(window)
			err := a.Run(t.Context())
			if (err == nil) != good && window < enginetest.Patience && err == nil {
				continue
			}
			if (err == nil) != good {
				t.Errorf("asking about %q: %v", users, err)
			}
			if !good {
				break
			}
			var took []int64
			text, err := os.ReadFile(a.Out)
			if err == nil {
				err = json.Unmarshal(text, &took)
			}
			if err == nil && len(took) == 0 && window < enginetest.Patience {
				continue
			}
			if most := int(window.Seconds()*float64(a.Rate)) + 1; err != nil || len(took) < 1 || len(took) > most || slices.Min(took) < 0 {
				t.Errorf("%d answers, want some and %d at most, none before it was due: %v", len(took), most, err)
			}
			break
		}
	}
}
