package httpapi

import (
	"encoding/json"
	"math"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/internal/tier"
	"tenantflow/sinks/dragonfly"
)

func TestASubscriptionIsToldWithItsLimits(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	a := f.ask("/v1/users/u-pro/subscription")
	const want = `{"valid":true,"user_id":"u-pro","company_id":"acme","tier":"pro","status":"active","billing_status":"active",` +
		`"limits":{"daily_api_calls":50000,"storage_mb":10240,"max_users":25,"retention_days":365,` +
		`"features_enabled":["basic_trading","advanced_analytics","email_notifications","sms_notifications","api_access"]},` +
		`"start_date":"2026-11-01T00:00:00Z","end_date":"2026-12-01T00:00:00Z"}` + "\n"
	if a.status != http.StatusOK || a.body != want || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %v %s", a.status, a.header, a.body)
	}
	// The limits are written by hand, and must equal what encoding/json writes.
	for id, s := range f.world.users {
		text, err := json.Marshal(s.Limits)
		if err != nil {
			t.Fatal(err)
		}
		var limits any
		if err := json.Unmarshal(text, &limits); err != nil {
			t.Fatal(err)
		}
		if s.BillingStatus == "" {
			continue // then there are no limits to tell
		}
		if a := f.ask("/v1/users/" + id + "/subscription"); !reflect.DeepEqual(a.json["limits"], limits) {
			t.Errorf("%s: %v, want %s", id, a.json["limits"], text)
		}
	}
}

func TestWhoMayNotUseTheServiceIsToldWhyByBothAnswers(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for user, reason := range map[string]any{
		"u-pro": nil, "u-free": nil,
		"u-enterprise": nil, // past_due
		"u-suspended":  "user_suspended",
		"u-cancelled":  "subscription_cancelled",
		"u-expired":    "subscription_expired",
		"u-freed":      nil, // the free tier is what an expiry leaves
		"u-left":       nil, // and a cancellation
		"u-beyond":     "user_suspended",
		"u-closed":     "subscription_cancelled",
		"u-bare":       "no_subscription",
		"u-odd":        "subscription_inactive",
		"u-nobody":     "no_subscription",
	} {
		s := f.ask("/v1/users/" + user + "/subscription")
		if s.status != http.StatusOK || s.json["valid"] != (reason == nil) || s.json["reason"] != reason {
			t.Errorf("%s: %d %s", user, s.status, s.body)
		}
		q := f.ask("/v1/users/" + user + "/quota")
		if q.status != http.StatusOK || q.json["reason"] != reason || reason != nil && q.json["exceeded"] != true {
			t.Errorf("%s: %d %s", user, q.status, q.body)
		}
	}
	for _, user := range []string{"u-nobody", "u-bare"} {
		if a := f.ask("/v1/users/" + user + "/subscription"); a.body != `{"valid":false,"reason":"no_subscription"}`+"\n" {
			t.Errorf("%s: %s", user, a.body)
		}
		if a := f.ask("/v1/users/" + user + "/quota"); a.body != `{"exceeded":true,"reason":"no_subscription"}`+"\n" {
			t.Errorf("%s: %s", user, a.body)
		}
	}
}

func TestAQuotaIsToldExactly(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for user, want := range map[string]string{
		"u-pro":        `{"exceeded":false,"current_usage":39950,"data_points":4811200,"daily_limit":50000,"usage_percentage":79.90,"user_id":"u-pro","company_id":"acme","tier":"pro","date":"2026-11-23","reset_time":"2026-11-24T00:00:00Z"}`,
		"u-free":       `{"exceeded":true,"current_usage":1012,"data_points":90310,"daily_limit":1000,"usage_percentage":101.20,"user_id":"u-free","company_id":"initech","tier":"free","date":"2026-11-23","reset_time":"2026-11-24T00:00:00Z"}`,
		"u-enterprise": `{"exceeded":false,"usage":"unlimited","current_usage":812345,"data_points":7,"user_id":"u-enterprise","company_id":"globex","tier":"enterprise","date":"2026-11-23","reset_time":"2026-11-24T00:00:00Z"}`,
	} {
		if a := f.ask("/v1/users/" + user + "/quota"); a.status != http.StatusOK || a.body != want+"\n" {
			t.Errorf("%s: %d %s", user, a.status, a.body)
		}
	}
	f.world.rebuilding = true
	for _, user := range []string{"u-pro", "u-enterprise"} {
		if a := f.ask("/v1/users/" + user + "/quota"); a.json["rebuilding"] != true {
			t.Errorf("while counters are rebuilt %s gets %s", user, a.body)
		}
	}
}

func TestALimitIsExceededByTheCallThatReachesIt(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for calls, want := range map[int64]bool{0: false, 1: false, 799: false, 999: false, 1000: true, 1001: true, math.MaxInt64: true} {
		f.world.counters["u-free 2026-11-23"] = dragonfly.Counters{APICalls: calls}
		a := f.ask("/v1/users/u-free/quota")
		if a.json["exceeded"] != want || (a.json["usage_percentage"].(float64) >= 100) != want {
			t.Errorf("%d of 1000 calls: %s", calls, a.body)
		}
	}
	f.world.users["u-free"].Limits.DailyAPICalls = 0
	f.world.counters["u-free 2026-11-23"] = dragonfly.Counters{}
	if a := f.ask("/v1/users/u-free/quota"); a.json["exceeded"] != true || a.json["usage_percentage"] != 100.0 || a.json["daily_limit"] != 0.0 {
		t.Errorf("a limit of 0: %s", a.body)
	}
}

func TestTheDayOfAQuotaChangesAtMidnightUTC(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	east, west := time.FixedZone("", 14*3600), time.FixedZone("", -12*3600)
	f.world.counters = map[string]dragonfly.Counters{"u-free 2026-12-31": {APICalls: 900}, "u-free 2027-01-01": {APICalls: 3}}
	for _, c := range []struct {
		now, date, reset string
		usage            float64
	}{
		{"2026-12-31T00:00:00Z", "2026-12-31", "2027-01-01T00:00:00Z", 900},
		{"2026-12-31T23:59:59.999999999Z", "2026-12-31", "2027-01-01T00:00:00Z", 900},
		{"2027-01-01T00:00:00Z", "2027-01-01", "2027-01-02T00:00:00Z", 3},
		{"2028-02-28T23:59:59Z", "2028-02-28", "2028-02-29T00:00:00Z", 0},
	} {
		for _, zone := range []*time.Location{time.UTC, east, west} { // the process' own zone changes nothing
			f.now = func() time.Time { return at(c.now).In(zone) }
			if a := f.ask("/v1/users/u-free/quota"); a.json["date"] != c.date || a.json["reset_time"] != c.reset || a.json["current_usage"] != c.usage {
				t.Errorf("at %s: %s", c.now, a.body)
			}
		}
	}
}

func TestAPercentageIsCutOffAndNeverRoundedUpToTheLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		used, limit int64
		want        string
	}{
		{0, 1000, "0.00"}, {1, 1000, "0.10"}, {799, 1000, "79.90"}, {800, 1000, "80.00"}, {999, 1000, "99.90"}, {1000, 1000, "100.00"},
		{1, 50000, "0.00"}, {5, 50000, "0.01"}, {39999, 50000, "79.99"}, {49999, 50000, "99.99"}, {50000, 50000, "100.00"},
		{1, 3, "33.33"}, {2, 3, "66.66"}, {3, 3, "100.00"}, {7, 3, "233.33"},
		{0, 0, "100.00"}, {5, 0, "100.00"}, {-1, 10, "0.00"},
		{math.MaxInt64 - 1, math.MaxInt64, "99.99"}, {math.MaxInt64, math.MaxInt64, "100.00"},
	} {
		if got := PercentText(c.used, c.limit); got != c.want {
			t.Errorf("%d of %d: %s, want %s", c.used, c.limit, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(1, math.MaxInt64).Draw(t, "limit")
		used := rapid.Int64Range(0, math.MaxInt64).Draw(t, "used")
		want := new(big.Int).Mul(big.NewInt(used), big.NewInt(100_00))
		want.Quo(want, big.NewInt(limit))
		if !want.IsUint64() {
			want.SetUint64(math.MaxUint64)
		}
		if got := hundredthsOfPercent(used, limit); got != want.Uint64() {
			t.Fatalf("%d of %d: %d hundredths, want %s", used, limit, got, want)
		}
		if reached := hundredthsOfPercent(used, limit) >= 100_00; reached != (used >= limit) {
			t.Fatalf("%d of %d: shown as reached: %t", used, limit, reached)
		}
	})
}

func TestWhatIsWrittenByHandIsJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		list := rapid.SliceOf(rapid.String()).Draw(t, "list")
		limit := tier.Limit(rapid.Int64Range(-1, math.MaxInt64).Draw(t, "limit"))
		o := newObject()
		o.text("text", text)
		o.open("inner")
		o.texts("list", list)
		o.limit("limit", limit)
		o.close()
		o.boolean("yes", true)
		o.b = append(o.b, '}')
		var got struct {
			Text  string
			Inner struct {
				List  []string
				Limit tier.Limit
			}
			Yes bool
		}
		if err := json.Unmarshal(o.b, &got); err != nil {
			t.Fatalf("%v: %s", err, o.b)
		}
		if got.Text != text || len(got.Inner.List) != len(list) || got.Inner.Limit != limit || !got.Yes {
			t.Fatalf("got %+v of %s", got, o.b)
		}
		for i := range list {
			if got.Inner.List[i] != list[i] {
				t.Fatalf("got %q, want %q", got.Inner.List[i], list[i])
			}
		}
	})
}

func BenchmarkQuotaAnswer(b *testing.B) {
	f := setupAPI(b)
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/v1/users/u-pro/quota", nil)
	r.Header.Set("Authorization", "Bearer "+everyToken)
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		w.Body.Reset()
		f.handler.ServeHTTP(w, r)
	}
}
