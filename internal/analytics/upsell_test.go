package analytics

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/internal/tier"
)

// tierTime is when upgrades are tried. Whether there is a path does not depend on it.
var tierTime = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// planOf is the plan of a company that has a tier of the catalogue as it is.
func planOf(tiers *tier.Catalogue, name string) Plan {
	t, _ := tiers.Tier(name)
	return Plan{Tier: name, PriceMinor: t.PriceMinor, DailyAPICalls: t.DailyAPICalls}
}

func TestUpsell_Rules(t *testing.T) {
	t.Parallel()
	tiers := tier.Default()
	own := func(name string, limit tier.Limit) Plan {
		p := planOf(tiers, name)
		p.DailyAPICalls = limit
		return p
	}
	for _, c := range []struct {
		name string
		plan Plan
		use  DailyUse
		want string // the JSON of what is found; empty: nothing
	}{
		{"exactly 80 %", planOf(tiers, "free"), DailyUse{"u", 30, 24_000, 0}, ""},
		{"one call more", planOf(tiers, "free"), DailyUse{"u", 30, 24_001, 100},
			`{"user_id":"u","current_tier":"free","recommended_tier":"pro","opportunity_score":92.00,"current_usage":{"avg_daily_calls":800.03,"avg_daily_data":3.33,"active_days":30},"potential_revenue_increase":49.00,"currency":"USD"}`},
		{"one active day", planOf(tiers, "free"), DailyUse{"u", 1, 801, 7},
			`{"user_id":"u","current_tier":"free","recommended_tier":"pro","opportunity_score":63.04,"current_usage":{"avg_daily_calls":801.00,"avg_daily_data":7.00,"active_days":1},"potential_revenue_increase":49.00,"currency":"USD"}`},
		{"both parts of the score at their most", planOf(tiers, "free"), DailyUse{"u", 30, 60_000, 0},
			`{"user_id":"u","current_tier":"free","recommended_tier":"pro","opportunity_score":100.00,"current_usage":{"avg_daily_calls":2000.00,"avg_daily_data":0.00,"active_days":30},"potential_revenue_increase":49.00,"currency":"USD"}`},
		{"pro has no room", planOf(tiers, "free"), DailyUse{"u", 10, 400_001, 0},
			`{"user_id":"u","current_tier":"free","recommended_tier":"enterprise","opportunity_score":80.00,"current_usage":{"avg_daily_calls":40000.10,"avg_daily_data":0.00,"active_days":10},"potential_revenue_increase":499.00,"currency":"USD"}`},
		{"pro has just room", planOf(tiers, "free"), DailyUse{"u", 10, 400_000, 0},
			`{"user_id":"u","current_tier":"free","recommended_tier":"pro","opportunity_score":80.00,"current_usage":{"avg_daily_calls":40000.00,"avg_daily_data":0.00,"active_days":10},"potential_revenue_increase":49.00,"currency":"USD"}`},
		{"of pro", planOf(tiers, "pro"), DailyUse{"u", 15, 600_001, 0},
			`{"user_id":"u","current_tier":"pro","recommended_tier":"enterprise","opportunity_score":75.00,"current_usage":{"avg_daily_calls":40000.07,"avg_daily_data":0.00,"active_days":15},"potential_revenue_increase":450.00,"currency":"USD"}`},
		{"of pro, 80 % of free", planOf(tiers, "pro"), DailyUse{"u", 30, 24_001, 0}, ""},
		{"of enterprise", planOf(tiers, "enterprise"), DailyUse{"u", 30, math.MaxInt64, 0}, ""},
		{"of enterprise with a limit of its own: there is nothing to offer", own("enterprise", 10), DailyUse{"u", 30, 3000, 0}, ""},
		{"an override that raises the limit", own("free", 2000), DailyUse{"u", 30, 24_001, 0}, ""},
		{"an override that lowers the limit", own("pro", 100), DailyUse{"u", 2, 161, 0},
			`{"user_id":"u","current_tier":"pro","recommended_tier":"enterprise","opportunity_score":25.22,"current_usage":{"avg_daily_calls":80.50,"avg_daily_data":0.00,"active_days":2},"potential_revenue_increase":450.00,"currency":"USD"}`},
		{"an override without limit", own("free", tier.Unlimited), DailyUse{"u", 30, 1e9, 0}, ""},
		{"an override of 0", own("free", 0), DailyUse{"u", 1, 1, 0},
			`{"user_id":"u","current_tier":"free","recommended_tier":"pro","opportunity_score":31.04,"current_usage":{"avg_daily_calls":1.00,"avg_daily_data":0.00,"active_days":1},"potential_revenue_increase":49.00,"currency":"USD"}`},
		{"never active", planOf(tiers, "free"), DailyUse{"u", 0, 0, 0}, ""},
		{"never active, with a limit of 0", own("free", 0), DailyUse{"u", 0, 0, 0}, ""},
		{"numbers that would overflow", own("free", tier.Limit(math.MaxInt64)), DailyUse{"u", 30, math.MaxInt64, math.MaxInt64}, ""},
		{"a tier that has left the catalogue has the score of free", Plan{Tier: "basic", PriceMinor: 900, DailyAPICalls: 100}, DailyUse{"u", 30, 30_000, 0},
			`{"user_id":"u","current_tier":"basic","recommended_tier":"pro","opportunity_score":100.00,"current_usage":{"avg_daily_calls":1000.00,"avg_daily_data":0.00,"active_days":30},"potential_revenue_increase":40.00,"currency":"USD"}`},
		{"a company that pays less than the catalogue asks", Plan{Tier: "pro", PriceMinor: 1900, DailyAPICalls: 50_000}, DailyUse{"u", 30, 1_200_030, 0},
			`{"user_id":"u","current_tier":"pro","recommended_tier":"enterprise","opportunity_score":90.00,"current_usage":{"avg_daily_calls":40001.00,"avg_daily_data":0.00,"active_days":30},"potential_revenue_increase":480.00,"currency":"USD"}`},
		{"a company that pays as much as the next tier costs", Plan{Tier: "free", PriceMinor: 4900, DailyAPICalls: 100}, DailyUse{"u", 30, 30_000, 0},
			`{"user_id":"u","current_tier":"free","recommended_tier":"pro","opportunity_score":100.00,"current_usage":{"avg_daily_calls":1000.00,"avg_daily_data":0.00,"active_days":30},"potential_revenue_increase":0.00,"currency":"USD"}`},
		{"a company that pays more than the next tier costs", Plan{Tier: "free", PriceMinor: 4901, DailyAPICalls: 100}, DailyUse{"u", 30, 30_000, 0},
			`{"user_id":"u","current_tier":"free","recommended_tier":"pro","opportunity_score":100.00,"current_usage":{"avg_daily_calls":1000.00,"avg_daily_data":0.00,"active_days":30},"potential_revenue_increase":0.00,"currency":"USD"}`},
		{"a company that pays more than any tier costs", Plan{Tier: "pro", PriceMinor: 99_900, DailyAPICalls: 100}, DailyUse{"u", 30, 30_000, 0},
			`{"user_id":"u","current_tier":"pro","recommended_tier":"enterprise","opportunity_score":90.00,"current_usage":{"avg_daily_calls":1000.00,"avg_daily_data":0.00,"active_days":30},"potential_revenue_increase":0.00,"currency":"USD"}`},
	} {
		text, err := json.Marshal(Upsell(tiers, c.plan, []DailyUse{c.use}))
		if err != nil {
			t.Fatal(err)
		}
		if want := "[" + c.want + "]"; string(text) != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, text, want)
		}
	}
}

func TestUpsell_HighestScoreFirstThenUserID(t *testing.T) {
	t.Parallel()
	tiers := tier.Default()
	found := Upsell(tiers, planOf(tiers, "free"), []DailyUse{{"b", 3, 3000, 0}, {"c", 30, 30_000, 0}, {"a", 3, 3000, 0}, {"d", 2, 2000, 0}})
	var got []string
	for _, o := range found {
		got = append(got, o.UserID)
	}
	if want := []string{"c", "a", "b", "d"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if found := Upsell(tiers, planOf(tiers, "free"), nil); found == nil || len(found) != 0 {
		t.Errorf("no users: %v, want an empty list", found)
	}
}

// oddTiers is a catalogue whose order is not that of its prices, and in which two tiers have the same price and no tier is unlimited.
func oddTiers(t testing.TB) *tier.Catalogue {
	t.Helper()
	one := func(name, price, calls string) string {
		return `{"name":"` + name + `","price_minor":` + price + `,"daily_api_calls":` + calls + `,"storage_mb":1,"retention_days":1,"max_users":1,"features_enabled":[],
			"support_level":"email","backup":{"every":"daily","keep":1},"statement_timeout":"1s","p95_target":"1s"}`
	}
	path := filepath.Join(t.TempDir(), "tiers.json")
	text := `{"tiers":[` + strings.Join([]string{one("free", "0", "100"), one("large", "5000", "10000"), one("small", "1000", "1000"), one("twin", "1000", "900"), one("top", "9000", "20000")}, ",") + `]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	tiers, err := tier.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return tiers
}

func TestUpsell_TheCheapestTierWithRoomThatIsAnUpgrade(t *testing.T) {
	t.Parallel()
	tiers := oddTiers(t)
	for _, c := range []struct {
		tier  string
		calls int64
		want  string // empty: nothing
	}{
		{"free", 80, ""}, {"free", 81, "small"}, {"free", 800, "small"}, {"free", 801, "large"}, {"free", 8001, "top"}, {"free", 16_000, "top"}, {"free", 16_001, ""},
		{"large", 8001, "top"}, {"small", 801, "top"}, // large comes earlier in the catalogue: going there is a downgrade
		{"twin", 721, "top"}, {"top", 16_001, ""},
	} {
		found := Upsell(tiers, planOf(tiers, c.tier), []DailyUse{{"u", 1, c.calls, 0}})
		got := ""
		if len(found) == 1 {
			got = found[0].RecommendedTier
		}
		if len(found) > 1 || got != c.want {
			t.Errorf("%d calls on %s: %+v, want %q", c.calls, c.tier, found, c.want)
		}
	}
}

// Every user is found or not as a reckoning in floats, which is good enough away from the borders, and by hand says.
func TestUpsell_FindsWhoIsOverAndHasWhereToGo(t *testing.T) {
	t.Parallel()
	catalogues := []*tier.Catalogue{tier.Default(), oddTiers(t)}
	rapid.Check(t, func(t *rapid.T) {
		tiers := rapid.SampledFrom(catalogues).Draw(t, "catalogue")
		plan := planOf(tiers, rapid.SampledFrom(append(tiers.Names(), "unheard-of")).Draw(t, "tier"))
		if rapid.Bool().Draw(t, "price of its own") {
			plan.PriceMinor = rapid.Int64Range(0, 100_000).Draw(t, "price")
		}
		if rapid.Bool().Draw(t, "override") {
			plan.DailyAPICalls = tier.Limit(rapid.Int64Range(-1, 100_000).Draw(t, "limit"))
		}
		var users []DailyUse
		for i := range rapid.IntRange(0, 8).Draw(t, "users") {
			days := rapid.Int64Range(0, 30).Draw(t, "days")
			users = append(users, DailyUse{string(rune('a' + i)), days, days * rapid.Int64Range(0, 60_000).Draw(t, "calls"), rapid.Int64Range(0, 1e12).Draw(t, "points")})
		}
		found := Upsell(tiers, plan, users)
		left := len(found)
		for _, u := range users {
			i := slices.IndexFunc(found, func(o Opportunity) bool { return o.UserID == u.UserID })
			average := float64(u.Calls) / max(float64(u.ActiveDays), 1)
			fits := func(limit tier.Limit) bool { return limit == tier.Unlimited || average <= float64(limit)*8/10 }
			var best *tier.Tier
			for _, name := range tiers.Names() {
				one, _ := tiers.Tier(name)
				_, err := tiers.Upgrade(tier.Current{Tier: plan.Tier, PriceMinor: plan.PriceMinor}, name, tierTime)
				if err == nil && fits(one.DailyAPICalls) && (best == nil || one.PriceMinor < best.PriceMinor) {
					best = &one
				}
			}
			if want := u.Calls > 0 && !fits(plan.DailyAPICalls) && best != nil; want != (i >= 0) {
				t.Fatalf("%+v on %+v: found %t, want %t", u, plan, i >= 0, want)
			}
			if i < 0 {
				continue
			}
			left--
			o := found[i]
			score := min(average/1000, 1)*40 + float64(min(u.ActiveDays, 30)) + map[string]float64{"free": 30, "pro": 20, "unheard-of": 30}[plan.Tier]
			if o.RecommendedTier != best.Name || int64(o.RevenueIncrease) != max(best.PriceMinor-plan.PriceMinor, 0) {
				t.Fatalf("%+v on %+v: %+v, want %s", u, plan, o, best.Name)
			}
			if math.Abs(float64(o.Score)/100-score) > 0.0051 || o.Score < 0 || o.Score > 100_00 {
				t.Fatalf("%+v on %+v: score %s, want %f", u, plan, o.Score, score)
			}
			if math.Abs(float64(o.CurrentUsage.Calls)/100-average) > 0.0051 || o.CurrentUsage.ActiveDays != u.ActiveDays {
				t.Fatalf("%+v: %+v", u, o.CurrentUsage)
			}
		}
		if left != 0 {
			t.Fatalf("%d of %+v are of no user", left, found)
		}
		for i := 1; i < len(found); i++ {
			if a, b := found[i-1], found[i]; a.Score < b.Score || a.Score == b.Score && a.UserID >= b.UserID {
				t.Fatalf("%+v is before %+v", a, b)
			}
		}
	})
}
