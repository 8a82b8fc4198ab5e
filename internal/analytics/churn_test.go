package analytics

import (
	"encoding/json"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestChurn_Rules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		tier string
		use  MonthlyUse // two months ago, previous, current
		want string     // the JSON of what is found; empty: nothing
	}{
		{"falling", "pro", MonthlyUse{"u", 300, 200, 100},
			`{"user_id":"u","subscription_tier":"pro","churn_risk_score":66.67,"usage_trend":{"current_month":100,"previous_month":200,"two_months_ago":300,"decline_percentage":66.67},"retention_strategy":"training_offer"}`},
		{"to nothing", "free", MonthlyUse{"u", 2, 1, 0},
			`{"user_id":"u","subscription_tier":"free","churn_risk_score":100.00,"usage_trend":{"current_month":0,"previous_month":1,"two_months_ago":2,"decline_percentage":100.00},"retention_strategy":"win_back_mail"}`},
		{"with calls in two months only", "free", MonthlyUse{"u", 10, 9, 0},
			`{"user_id":"u","subscription_tier":"free","churn_risk_score":100.00,"usage_trend":{"current_month":0,"previous_month":9,"two_months_ago":10,"decline_percentage":100.00},"retention_strategy":"win_back_mail"}`},
		{"with calls in the first month only", "free", MonthlyUse{"u", 10, 0, 0}, ""},
		{"with calls in the last month only", "free", MonthlyUse{"u", 0, 0, 10}, ""},
		{"to less than nothing: voids of usage that is gone", "free", MonthlyUse{"u", 10, 9, -5},
			`{"user_id":"u","subscription_tier":"free","churn_risk_score":100.00,"usage_trend":{"current_month":0,"previous_month":9,"two_months_ago":10,"decline_percentage":100.00},"retention_strategy":"win_back_mail"}`},
		{"gone, and less than nothing", "free", MonthlyUse{"u", 10, 0, -5}, ""},
		{"less than nothing all the time", "free", MonthlyUse{"u", -1, -2, -3}, ""},
		{"by little", "enterprise", MonthlyUse{"u", 1_000_000, 999_999, 999_998},
			`{"user_id":"u","subscription_tier":"enterprise","churn_risk_score":0.00,"usage_trend":{"current_month":999998,"previous_month":999999,"two_months_ago":1000000,"decline_percentage":0.00},"retention_strategy":"usage_review"}`},
		{"the same as the month before", "pro", MonthlyUse{"u", 300, 100, 100}, ""},
		{"the same as two months ago", "pro", MonthlyUse{"u", 300, 300, 100}, ""},
		{"up and down", "pro", MonthlyUse{"u", 300, 400, 100}, ""},
		{"down and up", "pro", MonthlyUse{"u", 300, 100, 200}, ""},
		{"rising", "pro", MonthlyUse{"u", 100, 200, 300}, ""},
		{"gone for two months", "pro", MonthlyUse{"u", 300, 0, 0}, ""},
		{"never there", "pro", MonthlyUse{"u", 0, 0, 0}, ""},
		{"large numbers", "own", MonthlyUse{"u", math.MaxInt64, math.MaxInt64 - 1, 1},
			`{"user_id":"u","subscription_tier":"own","churn_risk_score":100.00,"usage_trend":{"current_month":1,"previous_month":9223372036854775806,"two_months_ago":9223372036854775807,"decline_percentage":100.00},"retention_strategy":"personal_call"}`},
	} {
		text, err := json.Marshal(ChurnRisks(c.tier, []MonthlyUse{c.use}))
		if err != nil {
			t.Fatal(err)
		}
		if want := "[" + c.want + "]"; string(text) != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, text, want)
		}
	}
}

func TestChurnScore_WithoutABaseIs50(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to int64
		want     Hundredths
	}{{0, 0, 50_00}, {0, 10, 50_00}, {10, 10, 0}, {10, 20, 0}, {10, 5, 50_00}, {800, 799, 12}, {10, 0, 100_00}, {10, -5, 100_00}} {
		if got := ChurnScore(c.from, c.to); got != c.want {
			t.Errorf("from %d to %d: %s, want %s", c.from, c.to, got, c.want)
		}
	}
}

func TestChurn_StrategyByTierAndRisk(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range []struct {
		tier  string
		score Hundredths
		want  string
	}{
		{"enterprise", 70_00, "executive_call"}, {"enterprise", 69_99, "success_plan"}, {"enterprise", 39_99, "usage_review"},
		{"pro", 100_00, "personal_call"}, {"pro", 40_00, "training_offer"}, {"pro", 39_99, "feature_tips"},
		{"free", 70_00, "win_back_mail"}, {"free", 69_99, "onboarding_mail"}, {"free", 0, "product_tips"},
		{"own", 70_00, "personal_call"}, {"own", 40_00, "training_offer"}, {"own", 0, "product_tips"},
	} {
		if got := strategy(c.tier, c.score); got != c.want {
			t.Errorf("%s at %s: %s, want %s", c.tier, c.score, got, c.want)
		}
		seen[c.want] = true
	}
	if len(seen) != 9 {
		t.Errorf("%d strategies, want 9", len(seen))
	}
}

func TestChurn_ActionsOfTheCompany(t *testing.T) {
	t.Parallel()
	risks := func(scores ...Hundredths) (all []ChurnRisk) {
		for _, s := range scores {
			all = append(all, ChurnRisk{Score: s})
		}
		return all
	}
	for _, c := range []struct {
		name  string
		risks []ChurnRisk
		had   int
		want  []string
	}{
		{"none", nil, 0, []string{}},
		{"none of many", nil, 9, []string{}},
		{"a high one of many", risks(70_00), 3, []string{ContactHighRisk}},
		{"all at once", risks(100_00, 69_99, 40_00, 39_99), 9, []string{ContactHighRisk, OfferTraining, SendTips}},
		{"a low one is half", risks(0), 2, []string{ReviewAccount, SendTips}},
		{"all of them", risks(50_00, 50_00), 2, []string{ReviewAccount, OfferTraining}},
	} {
		if got := Actions(c.risks, c.had); !slices.Equal(got, c.want) || got == nil {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestChurn_FindsThoseWhoFallTwice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var users []MonthlyUse
		calls := rapid.OneOf(rapid.Int64Range(-3, 5), rapid.Int64Range(0, 1e9))
		for i := range rapid.IntRange(0, 8).Draw(t, "users") {
			users = append(users, MonthlyUse{string(rune('a' + i)), calls.Draw(t, "two ago"), calls.Draw(t, "previous"), calls.Draw(t, "current")})
		}
		risks, left := ChurnRisks("pro", users), 0
		for _, u := range users {
			i := slices.IndexFunc(risks, func(r ChurnRisk) bool { return r.UserID == u.UserID })
			current, previous := max(u.CurrentMonth, 0), max(u.PreviousMonth, 0)
			falls := u.TwoMonthsAgo > previous && previous > current
			if falls != (i >= 0) {
				t.Fatalf("%+v: found %t", u, i >= 0)
			}
			if !falls {
				continue
			}
			left++
			if u.TwoMonthsAgo < 2 || previous < 1 {
				t.Fatalf("%+v is listed and had not the calls to fall twice", u)
			}
			want := float64(u.TwoMonthsAgo-current) / float64(u.TwoMonthsAgo) * 100
			if r := risks[i]; math.Abs(float64(r.Score)/100-want) > 0.0051 || r.Score != r.Trend.Decline || r.Score > 100_00 {
				t.Fatalf("%+v: %+v, want %f", u, r, want)
			}
		}
		if left != len(risks) {
			t.Fatalf("%d found, want %d", len(risks), left)
		}
		for i := 1; i < len(risks); i++ {
			if a, b := risks[i-1], risks[i]; a.Score < b.Score || a.Score == b.Score && a.UserID >= b.UserID {
				t.Fatalf("%+v is before %+v", a, b)
			}
		}
	})
}
