package consumers_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
	"tenantflow/internal/tier"
)

// catalogueOf is a catalogue in which tiers have other thresholds; the free one is in it.
func catalogueOf(t testing.TB, thresholds map[string][]int) *tier.Catalogue {
	t.Helper()
	var all []map[string]any
	for name, list := range thresholds {
		all = append(all, map[string]any{"name": name, "price_minor": 0, "daily_api_calls": 10, "thresholds": list, "storage_mb": 1, "retention_days": 1, "max_users": 1,
			"features_enabled": []string{}, "support_level": "none", "backup": map[string]any{"every": "daily", "keep": 1}, "statement_timeout": "1s", "p95_target": "1s"})
	}
	text, err := json.Marshal(map[string]any{"tiers": all})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tiers.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := tier.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// due are the ids of the events that are due for a user who has made so many calls today, with their percentage: exact arithmetic of its own.
func due(user, day string, calls, limit int64, percents []int) map[string]int {
	ids := map[string]int{}
	for _, percent := range percents {
		if calls > 0 && calls*100 >= limit*int64(percent) {
			ids[events.QuotaEventID(user, day, percent, limit)] = percent
		}
	}
	return ids
}

// Users of tiers with random lists: each threshold that is reached is published once in normal running, also when everything is read
// again, and a lost store gives the same ids.
func TestQuota_EveryTierHasThresholdsOfItsOwn(t *testing.T) {
	t.Parallel()
	for !judgeThresholds(t) { // the day was over before its end: once more, on the next
	}
}

// judgeThresholds reports whether it came to its end within one day.
func judgeThresholds(t *testing.T) bool {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	lists := map[string][]int{"free": {80, 100}, "none": {}, "above": {150, 1000}, "one": {1}, "steps": {100, 10, 20, 30, 40, 50, 60, 70, 90, 95, 99, 101, 110, 125, 300, 2, 3, 4, 5, 6}}
	for i := range 4 {
		list := r.Perm(tier.MaxThreshold)[:1+r.IntN(tier.MaxThresholds)]
		for k := range list {
			list[k]++
		}
		lists["random"+strconv.Itoa(i)] = list
	}
	tiers := slices.Sorted(func(yield func(string) bool) {
		for name := range lists {
			if !yield(name) {
				return
			}
		}
	})
	lists["gone"] = lists["free"] // of a tier that is not in the catalogue
	f := newQuotaFixture(t, fixtureOptions{partitions: 3})
	messages, want := recent(t, model.Config{Seed: seed, Count: 4000, Resends: 0.1, Companies: 6, UsersPerCompany: 8})
	f.know(want, 30)
	f.members.Tier, f.members.Limits = map[string]string{}, map[string]int64{}
	for user := range f.members.Company {
		f.members.Tier[user] = append(slices.Clone(tiers), "gone")[r.IntN(len(tiers)+1)]
		f.members.Limits[user] = []int64{0, 1, 3, 20, 50, 101, 1_000_000, int64(tier.Unlimited)}[r.IntN(8)]
	}
	delete(lists, "gone")
	catalogue := catalogueOf(t, lists)
	lists["gone"] = lists["free"]
	reg := prometheus.NewRegistry()
	f.publish(t, messages)
	stop := f.count(t, quotaConsumer{rows: 150, tiers: catalogue, registry: reg})
	f.await(t, expected(want))
	f.AwaitConsumed(t)
	today := time.Now().UTC().Format(time.DateOnly)
	if f.began.UTC().Format(time.DateOnly) != today {
		return false
	}
	ids := map[string]int{}
	for key, c := range expected(want) {
		user := key[:len(key)-len("|"+today)]
		if key != user+"|"+today || f.members.limit(user) < 0 {
			continue
		}
		for id, percent := range due(user, today, c.APICalls, f.members.limit(user), lists[f.members.tier(user)]) {
			ids[id] = percent
		}
	}
	compare := func(when string) {
		t.Helper()
		got := f.thresholds(t)
		for id, percent := range ids {
			if got[id] == nil {
				t.Errorf("%s: no event of %d %%", when, percent)
			}
		}
		for id, e := range got {
			var data struct {
				Percent int `json:"threshold_percentage"`
			}
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Fatal(err)
			}
			kind := events.TypeQuotaThresholdReached
			if data.Percent == 100 {
				kind = events.TypeQuotaExceeded
			}
			if percent, there := ids[id]; !there || percent != data.Percent || e.Type != kind {
				t.Errorf("%s: a %s that is not due: %s", when, e.Type, e.Data)
			}
		}
	}
	compare("after the first count")
	if n := total(t, reg, "tenantflow_quota_threshold_events_total"); int(n) != len(ids) || len(ids) < 20 {
		t.Errorf("%v were published, want each of %d once", n, len(ids))
	}
	if err := stop(); err != nil || t.Failed() {
		t.Fatal(err)
	}
	if time.Now().UTC().Format(time.DateOnly) != today {
		return false
	}
	again := prometheus.NewRegistry()
	f.count(t, quotaConsumer{rows: 70, tiers: catalogue, registry: again})
	f.flush(t)
	f.await(t, expected(want))
	f.AwaitConsumed(t)
	enginetest.Await(t, "the recount to publish", func() bool { return int(total(t, again, "tenantflow_quota_threshold_events_total")) >= len(ids) })
	compare("after a lost store")
	return true
}

// Another list takes effect with the user's next call: what it has and the old one had not is published then, what both have is not published
// again, and what only the old one had is not published any more.
func TestQuota_ACatalogueThatChangesPublishesOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	day := now.UTC().Format(time.DateOnly)
	f.members = members{Company: map[string]string{"u": "acme"}, Limit: 10}
	published := func() (n int) {
		f.ReadAll(t, f.quotas, func(*events.Record) { n++ })
		return n
	}
	sent := 0
	run := func(calls int, list []int, want int) {
		t.Helper()
		stop := f.count(t, quotaConsumer{tiers: catalogueOf(t, map[string][]int{"free": list})})
		var messages []kafkago.Message
		for range calls {
			sent++
			messages = append(messages, used(strconv.Itoa(sent), "acme", "u", now))
		}
		f.send(t, messages...)
		enginetest.Await(t, "the events to be counted", func() bool { return f.calls(t, "u", now) == fmt.Sprintf("%d %d", sent, 3*sent) })
		f.AwaitConsumed(t)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if n := published(); n != want {
			t.Errorf("after %d calls with %v, %d events were published, want %d", sent, list, n, want)
		}
	}
	run(6, []int{50, 90, 100}, 1)
	run(1, []int{90, 50, 100}, 1)
	run(1, []int{20, 50, 70, 90}, 3) // 20 and 70 are new, and reached
	run(3, []int{20, 110, 120}, 4)   // 90 and 100 are gone, 110 is reached
	run(1, []int{50, 90, 100}, 6)    // 90 and 100 are back, and were not published
	got := f.thresholds(t)
	for _, percent := range []int{20, 50, 70, 90, 100, 110} {
		if got[events.QuotaEventID("u", day, percent, 10)] == nil {
			t.Errorf("no event of %d %%", percent)
		}
	}
}

// A series that begins at its first event has no increase then.
func TestQuotaThresholdEvents_AreCountedFromZero(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	consumers.NewQuota(consumers.QuotaConfig{Registry: reg})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "tenantflow_quota_threshold_events_total" {
			for _, m := range f.GetMetric() {
				types[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if want := map[string]float64{events.TypeQuotaExceeded: 0, events.TypeQuotaThresholdReached: 0}; !maps.Equal(types, want) {
		t.Errorf("%v, want %v", types, want)
	}
}
