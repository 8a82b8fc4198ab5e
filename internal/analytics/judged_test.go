package analytics

import (
	"testing"
	"time"

	"tenantflow/internal/accuracy"
	"tenantflow/internal/analytics/seeded"
	"tenantflow/sinks/postgres"
)

// judgedWorld has the users of a world judged at the end of each month of which what they do next is known.
func judgedWorld(t *testing.T, users []seeded.User) ChurnAccuracy {
	t.Helper()
	start := seeded.Start()
	calls := func(u seeded.User, month int) (sum int64) {
		from, to := start.AddDate(0, month, 0), start.AddDate(0, month+1, 0)
		for day := from; day.Before(to); day = day.AddDate(0, 0, 1) {
			sum += u.Calls[int(day.Sub(start).Hours()/24)]
		}
		return sum
	}
	counts := map[postgres.ChurnOutcome]int64{}
	for month := 2; month < seeded.Months-1; month++ {
		end := start.AddDate(0, month+1, 0)
		var use []JudgedUse
		left := map[string]bool{}
		for _, u := range users {
			one := JudgedUse{MonthlyUse: MonthlyUse{u.ID, calls(u, month-2), calls(u, month-1), calls(u, month)}}
			for day := 0; start.AddDate(0, 0, day).Before(end); day++ {
				if u.Calls[day] > 0 {
					one.LastActivity = start.AddDate(0, 0, day).Add(12 * time.Hour)
				}
			}
			use = append(use, one)
			left[u.ID] = calls(u, month+1) == 0
		}
		for _, j := range JudgeChurn("pro", use, end) {
			counts[postgres.ChurnOutcome{Month: (MonthOf(end) - 1).String(), Score: int64(j.Score), Flagged: j.Listed, Idle: j.Idle, Outcome: left[j.UserID], Active: j.Trend.CurrentMonth > 0}]++
		}
	}
	var outcomes []postgres.ChurnOutcome
	for o, n := range counts {
		o.Users = n
		outcomes = append(outcomes, o)
	}
	r, err := churnAccuracy(outcomes, MonthOf(start))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestChurn_FindsPlantedDecliners(t *testing.T) {
	t.Parallel()
	for _, seed := range seeded.Seeds() {
		r := judgedWorld(t, seeded.Decliners(seed))
		own, idle, base := r.Score, r.ByIdle, r.ByBaseRate
		t.Logf("seed %d: %d users, base rate %.4f; AUC %.4f (%.4f to %.4f), idle %.4f; precision %.4f, idle %.4f; recall %.4f, idle %.4f; lift %.2f, idle %.2f; Brier %.4f, idle %.4f, base rate %.4f",
			seed, r.Users, *r.BaseRate, *own.AUC, *own.AUCLow, *own.AUCHigh, *idle.AUC, *own.Precision, *idle.Precision, *own.Recall, *idle.Recall, *own.Lift, *idle.Lift,
			*own.Brier, *idle.Brier, *base.Brier)
		t.Logf("seed %d: with a call in the last month: %d users, %d left; AUC %.4f (%.4f to %.4f), idle %.4f",
			seed, r.Active.Users, r.Active.Left, *r.Active.AUC, *r.Active.AUCLow, *r.Active.AUCHigh, *r.Active.IdleAUC)
		if *own.AUC < 0.75 || *own.AUC <= *idle.AUC || *own.AUC <= *base.AUC {
			t.Errorf("seed %d: an AUC of %v, want 0.75 and more than no call for 14 days, %v, and the base rate, %v", seed, *own.AUC, *idle.AUC, *base.AUC)
		}
	}
}

// On usage in which nothing foretells anything, the score must not look as if it did.
func TestChurn_IsNoBetterThanChanceOnRandomUse(t *testing.T) {
	t.Parallel()
	sum := 0.0
	for _, seed := range seeded.Seeds() {
		r := judgedWorld(t, seeded.Random(seed))
		t.Logf("seed %d: %d users, base rate %.4f, AUC %.4f (%.4f to %.4f)", seed, r.Users, *r.BaseRate, *r.Score.AUC, *r.Score.AUCLow, *r.Score.AUCHigh)
		sum += *r.Score.AUC
	}
	if mean := sum / float64(len(seeded.Seeds())); mean < 0.45 || mean > 0.55 {
		t.Errorf("a mean AUC of %.4f, want 0.45 to 0.55", mean)
	}
}

func TestForecast_OfSeededCompanies(t *testing.T) {
	t.Parallel()
	for _, seed := range seeded.Seeds() {
		var outcomes []postgres.ForecastOutcome
		for _, months := range seeded.Revenue(seed) {
			past := make([]Money, len(months))
			for i := range months {
				past[i] = Money(months[i])
			}
			for known := 12; known+ForecastMonths <= len(months); known++ {
				for h, f := range storedForecasts(past[:known], "USD", Month(known-1)) {
					outcomes = append(outcomes, postgres.ForecastOutcome{Distance: h + 1, ValueMinor: f.Value, LowMinor: f.Low, HighMinor: f.High,
						NaiveMinor: f.Naive, ActualMinor: months[known+h], StepsMinor: f.Steps, HistoryMonths: int64(f.History)})
				}
			}
		}
		r := forecastAccuracy(outcomes)
		t.Logf("seed %d: %d forecasts, MASE %.4f (naive %.4f), sMAPE %.2f %% (naive %.2f %%), coverage %.4f", seed, r.N, *r.MASE, *r.NaiveMASE, *r.SMAPE, *r.NaiveSMAPE, *r.Coverage)
		if *r.MASE >= 1 || *r.MASE >= *r.NaiveMASE {
			t.Errorf("seed %d: a MASE of %v, want less than 1 and than naive's, %v", seed, *r.MASE, *r.NaiveMASE)
		}
		if *r.Coverage < 0.7 || *r.Coverage > 0.9 {
			t.Errorf("seed %d: the interval held %v of the values, want 0.7 to 0.9", seed, *r.Coverage)
		}
	}
}

// A finding names each measure that is not better than its baseline.
func TestFindings_SayWhatIsNotBetter(t *testing.T) {
	t.Parallel()
	x := func(v float64) *float64 { return &v }
	none := findings(&AccuracyReport{})
	for i, want := range []string{"churn scores: no month is over of which users were judged", "upsell: no month is over in which a larger tier was recommended",
		"forecasts: no month is over for which there was one"} {
		if len(none) != 3 || none[i] != want {
			t.Errorf("of nothing: got %q, want %q", none, want)
		}
	}
	r := &AccuracyReport{
		Churn: ChurnAccuracy{Users: 9, Late: 2, Score: Predictor{AUC: x(0.6), AUCLow: x(0.4), AUCHigh: x(0.8), Precision: x(0.5), Lift: x(2)},
			Active: ActiveRank{AUC: x(0.55), AUCLow: x(0.45), AUCHigh: x(0.65), IdleAUC: x(0.7)},
			ByIdle: Predictor{AUC: x(0.6), Precision: x(0.4), Recall: x(0.7), Lift: x(3)}, ByBaseRate: Predictor{AUC: x(0.5), Precision: x(0.3), Lift: x(1), Brier: x(0.2)}},
		Upsell:   UpsellAccuracy{Companies: 3, Success: x(0.1), OtherRate: x(0.2)},
		Forecast: ForecastAccuracy{Forecasts: accuracy.Forecasts{N: 3, MASE: x(1.5), NaiveMASE: x(2), SMAPE: x(9), NaiveSMAPE: x(8), Coverage: x(0.6)}},
	}
	want := []string{
		"churn scores: AUC 0.6 is not better than that of no call for 14 days, 0.6",
		"churn scores: AUC 0.6 is better than that of the base rate, 0.5",
		"churn scores: an AUC of 0.6 can't be told from chance: 0.5 is in its interval, 0.4 to 0.8",
		"churn scores of users with a call in the last month: AUC 0.55 is not better than that of no call for 14 days, 0.7",
		"churn scores of users with a call in the last month: an AUC of 0.55 can't be told from chance: 0.5 is in its interval, 0.45 to 0.65",
		"churn scores: precision 0.5 is better than that of no call for 14 days, 0.4",
		"churn scores: precision 0.5 is better than that of the base rate, 0.3",
		"churn scores: there is no recall, where no call for 14 days has 0.7",
		"churn scores: lift at 10 % 2 is not better than that of no call for 14 days, 3",
		"churn scores: no Brier score, as there are too few earlier months to calibrate on",
		"churn scores: 2 of 9 users were judged when more than three days were over of the month that was to be predicted, and only those who had not left their company by then",
		"upsell: success rate 0.1 is not better than that of companies without a recommendation, 0.2",
		"forecasts: MASE 1.5 is better than that of naive, 2",
		"forecasts: sMAPE 9 is not better than that of naive, 8",
		"forecasts: the 80 % interval held 0.6 of the values, which is not near 0.8",
	}
	got := findings(r)
	if len(got) != len(want) {
		t.Fatalf("got %d findings, want %d: %q", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %q, want %q", got[i], want[i])
		}
	}
}
