package httpapi

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/health"
	"tenantflow/internal/token"
)

// setupScopes is setupStores with tokens, and with users of a company that acme's token does not reach: g-0 and on, as many as asked for,
// all of them already cached.
func setupScopes(t *testing.T, outside int) storeFixture {
	t.Helper()
	f := setupStores(t)
	log := slog.New(slog.DiscardHandler)
	tokens, err := token.Open(tokensFile(t), log)
	if err != nil {
		t.Fatal(err)
	}
	from := f.stores.Load().Stores
	f.registry = prometheus.NewRegistry()
	f.API = NewAPI(tokens, log)
	f.Attach(from)
	f.handler = Handler(Options{Health: health.New(time.Minute, log), Metrics: f.registry, Log: log, API: f.API})
	f.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('globex', 'G', 'g@x')",
		"INSERT INTO subscriptions (company_id, tier) VALUES ('globex', 'pro')",
		fmt.Sprintf("INSERT INTO user_directory (user_id, company_id) SELECT 'g-' || n, 'globex' FROM generate_series(0, %d) AS n", outside-1))
	eventually(t, func() bool { return f.ask("/v1/users/g-0/subscription").json["valid"] == true })
	// Now they are in the process' memory and in Dragonfly, as those of whom there is traffic.
	for i := range outside {
		if a := f.ask(fmt.Sprintf("/v1/users/g-%d/subscription", i)); a.json["valid"] != true {
			t.Fatalf("g-%d is %s", i, a.body)
		}
	}
	return f
}

func TestScope_OutsideLooksUnknownWhateverIsAway(t *testing.T) {
	t.Parallel()
	f := setupScopes(t, 40)
	next := 0
	// Each state asks for users that were not asked for before, and for each twice.
	alike := func(state string, want int, reason any) {
		t.Helper()
		for _, resource := range []string{"subscription", "quota"} {
			for range 2 {
				outside, nobody := fmt.Sprint("/v1/users/g-", next, "/", resource), fmt.Sprint("/v1/users/n-", next, "/", resource)
				next++
				for range 2 {
					a, b := f.ask(outside, withToken(acmeToken)), f.ask(nobody, withToken(acmeToken))
					// A problem names its path.
					if a.json["instance"] == outside && b.json["instance"] == nobody {
						delete(a.json, "instance")
						delete(b.json, "instance")
						a.body, b.body = "", ""
					}
					if a.status != b.status || a.body != b.body || !reflect.DeepEqual(a.json, b.json) || !reflect.DeepEqual(a.header, b.header) {
						t.Errorf("%s: a user outside is %d %v %s %v\nand one who does not exist %d %v %s %v", state, a.status, a.header, a.body, a.json, b.status, b.header, b.body, b.json)
					}
					if a.status != want || a.json["reason"] != reason {
						t.Errorf("%s: a user outside is %d %v", state, a.status, a.json)
					}
				}
			}
		}
	}
	inside := func(state string) {
		t.Helper()
		for _, user := range []string{"u-1", "u-2"} {
			if a := f.ask("/v1/users/"+user+"/subscription", withToken(acmeToken)); a.json["valid"] != true {
				t.Errorf("%s: a user of the company is %d %s", state, a.status, a.body)
			}
		}
	}
	inside("all is well")
	alike("all is well", http.StatusOK, "no_subscription")
	f.proxy.Refuse(true)
	f.proxy.Cut()
	alike("Postgres is away", http.StatusServiceUnavailable, nil)
	inside("Postgres is away")
	if err := f.redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	alike("Postgres is away and Dragonfly hangs", http.StatusServiceUnavailable, nil)
	inside("Postgres is away and Dragonfly hangs")
	f.proxy.Refuse(false)
	eventually(t, func() bool { return f.ask("/v1/users/n-x/subscription", withToken(acmeToken)).status == http.StatusOK })
	alike("Dragonfly hangs", http.StatusOK, "no_subscription")
	if err := f.redis.Kill(); err != nil {
		t.Fatal(err)
	}
	alike("Dragonfly is gone", http.StatusOK, "no_subscription")
	inside("Dragonfly is gone")
}

// What is compared is how often one is slower than the other, not by how much or how slow: half of the time, if they look alike.
func TestScope_OutsideTakesAsLongAsUnknown(t *testing.T) {
	t.Parallel()
	const asks = 400
	f := setupScopes(t, asks)
	for n := range 20 { // the connections and plans are there
		f.ask(fmt.Sprint("/v1/users/w-", n, "/quota"), withToken(acmeToken))
	}
	var first, again [2][]time.Duration
	for n := range asks {
		kinds := []int{0, 1}
		rand.Shuffle(2, func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		for _, kind := range kinds {
			target := fmt.Sprint("/v1/users/", []string{"g-", "n-"}[kind], n, "/quota")
			for _, times := range []*[2][]time.Duration{&first, &again} {
				began := time.Now()
				f.ask(target, withToken(acmeToken))
				times[kind] = append(times[kind], time.Since(began))
			}
		}
	}
	for name, times := range map[string][2][]time.Duration{"first asked for": first, "asked for again": again} {
		// Of as many independent pairs, equal distributions give 0.5 with a standard deviation of 0.02.
		slower := slowerShare(times[0], times[1])
		t.Logf("%s: a user outside is slower %.1f times out of 100", name, 100*slower)
		if slower < 0.35 || slower > 0.65 {
			t.Errorf("%s, a user outside is slower than one who does not exist %.0f times out of 100", name, 100*slower)
		}
	}
}

// slowerShare is the share of all pairs in which the one of a is slower: the statistic of Mann and Whitney over its greatest value.
func slowerShare(a, b []time.Duration) float64 {
	u := 0.0
	for _, x := range a {
		for _, y := range b {
			switch {
			case x > y:
				u++
			case x == y:
				u += 0.5
			}
		}
	}
	return u / float64(len(a)*len(b))
}
