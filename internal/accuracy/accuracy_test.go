package accuracy_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"tenantflow/internal/accuracy"
)

func text(t testing.TB, got *float64, want float64, what string) {
	t.Helper()
	switch {
	case math.IsNaN(want):
		if got != nil {
			t.Errorf("%s: got %v, want none", what, *got)
		}
	case got == nil:
		t.Errorf("%s: got none, want %v", what, want)
	case math.Abs(*got-want) > 5.1e-5 || math.IsNaN(*got):
		t.Errorf("%s: got %v, want %v", what, *got, want)
	}
}

// users are cases of one user each, by score: those for whom it happened, and the others.
func users(happened, otherwise []int64) (all []accuracy.Case) {
	for _, s := range happened {
		all = append(all, accuracy.Case{Score: s, Happened: true, Flagged: s >= 50, N: 1})
	}
	for _, s := range otherwise {
		all = append(all, accuracy.Case{Score: s, Flagged: s >= 50, N: 1})
	}
	return all
}

func TestScores_KnownAnswers(t *testing.T) {
	t.Parallel()
	none := math.NaN()
	for _, c := range []struct {
		name                                   string
		cases                                  []accuracy.Case
		base, precision, recall, auc, lift, lo float64
	}{
		{"no users", nil, none, none, none, none, none, none},
		{"users of weight 0", []accuracy.Case{{Score: 9, Happened: true}}, none, none, none, none, none, none},
		{"it happened for none", users(nil, []int64{10, 90}), 0, 0, none, none, none, none},
		{"it happened for all", users([]int64{10, 90}, nil), 1, 1, 0.5, none, 1, none},
		{"all scores equal", users([]int64{5, 5}, []int64{5, 5, 5}), 0.4, none, 0, 0.5, 1, 0},
		{"a perfect order", users([]int64{90, 80}, []int64{10, 20}), 0.5, 1, 1, 1, 2, 0.5929},
		{"the order turned round", users([]int64{10, 20}, []int64{90, 80}), 0.5, 0, 0, 0, 0, 0},
		// Pairs: 60 beats 50 and 10, 40 beats 10 and ties with none, of 4: 3.
		{"three pairs of four", users([]int64{60, 40}, []int64{50, 10}), 0.5, 0.5, 0.5, 0.75, 2, 0.2085},
	} {
		n := accuracy.Count(c.cases)
		text(t, n.BaseRate(), c.base, c.name+": base rate")
		text(t, n.Precision(), c.precision, c.name+": precision")
		text(t, n.Recall(), c.recall, c.name+": recall")
		text(t, accuracy.Lift(c.cases), c.lift, c.name+": lift")
		rank := accuracy.RankOf(c.cases)
		if (rank == nil) != math.IsNaN(c.auc) {
			t.Errorf("%s: rank %+v, want %v", c.name, rank, c.auc)
		}
		if rank != nil {
			text(t, &rank.AUC, c.auc, c.name+": AUC")
			text(t, &rank.Low, c.lo, c.name+": its low end")
		}
	}
}

// Hanley and McNeil's own example: an area of 0.893 for 51 abnormal and 58 normal images has a standard error of 0.0324.
func TestRank_IntervalIsHanleyAndMcNeils(t *testing.T) {
	t.Parallel()
	// Ratings 1 to 5 of their table I.
	normal, abnormal := [...]int64{33, 6, 6, 11, 2}, [...]int64{3, 2, 2, 11, 33}
	var cases []accuracy.Case
	for i := range normal {
		cases = append(cases, accuracy.Case{Score: int64(i), N: normal[i]}, accuracy.Case{Score: int64(i), Happened: true, N: abnormal[i]})
	}
	rank := accuracy.RankOf(cases)
	if rank == nil || math.Abs(rank.AUC-0.893) > 5e-4 {
		t.Fatalf("%+v, want an area of 0.893", rank)
	}
	if se := (rank.AUC - rank.Low) / 1.96; math.Abs(se-0.032) > 1e-3 {
		t.Errorf("standard error %.4f, want 0.032", se)
	}
}

func TestScores_AgreeWithBruteForce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cases := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) accuracy.Case {
			return accuracy.Case{Score: rapid.Int64Range(0, 6).Draw(t, "score"), Flagged: rapid.Bool().Draw(t, "flagged"),
				Happened: rapid.Bool().Draw(t, "happened"), N: rapid.Int64Range(0, 3).Draw(t, "n")}
		}), 0, 12).Draw(t, "cases")
		var yes, no []int64
		for _, c := range cases {
			for range c.N {
				if c.Happened {
					yes = append(yes, c.Score)
				} else {
					no = append(no, c.Score)
				}
			}
		}
		rank := accuracy.RankOf(cases)
		if len(yes) == 0 || len(no) == 0 {
			if rank != nil {
				t.Fatalf("%d and %d users have the rank %+v", len(yes), len(no), rank)
			}
		} else {
			won := 0.0
			for _, a := range yes {
				for _, b := range no {
					if a > b {
						won++
					} else if a == b {
						won += 0.5
					}
				}
			}
			if want := won / float64(len(yes)*len(no)); rank == nil || math.Abs(rank.AUC-want) > 5.1e-5 {
				t.Fatalf("%+v, want %v", rank, want)
			}
			if !(0 <= rank.Low && rank.Low <= rank.AUC && rank.AUC <= rank.High && rank.High <= 1) {
				t.Fatalf("the interval of %+v", rank)
			}
		}
		if lift := accuracy.Lift(cases); lift != nil && (math.IsNaN(*lift) || *lift < 0 || *lift > float64(len(yes)+len(no))/float64(len(yes))+1e-4) {
			t.Fatalf("lift %v of %d among %d", *lift, len(yes), len(yes)+len(no))
		}
	})
}

// The tenth is cut through users of equal scores by a share of them.
func TestLift_CutsTiesByTheirShare(t *testing.T) {
	t.Parallel()
	cases := []accuracy.Case{{Score: 9, Happened: true, N: 1}, {Score: 5, Happened: true, N: 2}, {Score: 5, N: 2}, {Score: 1, N: 15}}
	// Two of 20 users are the tenth: the one of 9, and one of those of 5, of whom a half counts: 1.5 of 2, against 3 of 20.
	text(t, accuracy.Lift(cases), 1.5/2/(3.0/20), "lift")
}

func TestFit_IsTheBestFunctionThatNeverFalls(t *testing.T) {
	t.Parallel()
	if accuracy.Fit([]accuracy.Case{{Score: 1, N: 29}}) != nil {
		t.Error("29 users are enough")
	}
	// 2 of 10, 5 of 10, 3 of 10 (which violates), 9 of 10.
	var cases []accuracy.Case
	for i, happened := range []int64{2, 5, 3, 9} {
		cases = append(cases, accuracy.Case{Score: int64(10 * i), Happened: true, N: happened}, accuracy.Case{Score: int64(10 * i), N: 10 - happened})
	}
	c := accuracy.Fit(cases)
	for score, want := range map[int64]float64{-5: 0.2, 0: 0.2, 9: 0.2, 10: 0.4, 15: 0.4, 20: 0.4, 29: 0.4, 30: 0.9, 99: 0.9} {
		if got := c.Of(score); math.Abs(got-want) > 1e-12 {
			t.Errorf("of %d: got %v, want %v", score, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var cases []accuracy.Case
		var happened, all int64
		for score := range int64(rapid.IntRange(1, 9).Draw(t, "scores")) {
			yes, no := rapid.Int64Range(0, 40).Draw(t, "yes"), rapid.Int64Range(30, 40).Draw(t, "no")
			cases = append(cases, accuracy.Case{Score: score, Happened: true, N: yes}, accuracy.Case{Score: score, N: no})
			happened, all = happened+yes, all+yes+no
		}
		c, before, sum := accuracy.Fit(cases), 0.0, 0.0
		for _, one := range cases {
			p := c.Of(one.Score)
			if p < before || p > 1 {
				t.Fatalf("%d has %v behind %v", one.Score, p, before)
			}
			before = p
			sum += p * float64(one.N)
		}
		if math.Abs(sum-float64(happened)) > 1e-6*float64(all) {
			t.Fatalf("it expects %v, and there were %d", sum, happened)
		}
	})
}

// A month is judged with what the months before it have shown, and with nothing of its own or of later ones.
func TestBrier_IsFittedOnEarlierMonthsOnly(t *testing.T) {
	t.Parallel()
	right := []accuracy.Case{{Score: 100, Happened: true, N: 20}, {Score: 0, N: 20}}
	wrong := []accuracy.Case{{Score: 100, N: 20}, {Score: 0, Happened: true, N: 20}}
	for _, c := range []struct {
		name   string
		months [][]accuracy.Case
		from   int
		want   float64
		users  int64
	}{
		{"nothing", nil, 0, math.NaN(), 0},
		{"the first month has none before it", [][]accuracy.Case{right}, 0, math.NaN(), 0},
		{"as before", [][]accuracy.Case{right, right}, 0, 0, 40},
		{"the other way round", [][]accuracy.Case{right, wrong}, 0, 1, 40},
		{"the later month changes nothing", [][]accuracy.Case{right, right, wrong}, 0, 0.5, 80},
		{"both ways before: a half", [][]accuracy.Case{right, wrong, right}, 2, 0.25, 40},
		{"too few before", [][]accuracy.Case{right[:1], right}, 0, math.NaN(), 0},
	} {
		got, n := accuracy.Brier(c.months, c.from)
		text(t, got, c.want, c.name)
		if n != c.users {
			t.Errorf("%s: %d users, want %d", c.name, n, c.users)
		}
	}
}

func TestForecasts_KnownAnswers(t *testing.T) {
	t.Parallel()
	none := math.NaN()
	for _, c := range []struct {
		name                                     string
		all                                      []accuracy.Forecast
		smape, mase, coverage, naive, naiveScale float64
		scaled                                   int64
	}{
		{"none", nil, none, none, none, none, none, 0},
		{"right", []accuracy.Forecast{{Value: 100, Low: 100, High: 100, Naive: 50, Actual: 100, Steps: 30, Pairs: 3}}, 0, 0, 1, 200.0 / 3, 5, 1},
		{"nothing and nothing", []accuracy.Forecast{{}}, 0, none, 1, 0, none, 0},
		{"nothing came", []accuracy.Forecast{{Value: 100, Low: 1, High: 200, Naive: 100, Actual: 0, Pairs: 9}}, 200, none, 0, 200, none, 1},
		{"no pair", []accuracy.Forecast{{Value: 1, Actual: 2, Steps: 5}}, 200.0 / 3, none, 0, 200, none, 0},
		{"two, of which one has no step", []accuracy.Forecast{{Value: 110, Low: 90, High: 110, Naive: 120, Actual: 90, Steps: 20, Pairs: 2},
			{Value: 100, Low: 100, High: 100, Naive: 100, Actual: 100, Pairs: 3}}, 10, 2, 1, 100 * 30.0 / 105 / 2 * 1, 3, 2},
		{"one that hardly ever changed, and did, among two", []accuracy.Forecast{{Value: 1000, Low: 900, High: 1000, Naive: 1000, Actual: 900, Steps: 1, Pairs: 4},
			{Value: 1000, Low: 1000, High: 1000, Naive: 1000, Actual: 1000, Steps: 400, Pairs: 4}}, 100 * 10.0 / 95 / 2, 100 / 100.25, 1, 100 * 10.0 / 95 / 2, 100 / 100.25, 2},
	} {
		r := accuracy.ForecastsOf(c.all)
		text(t, r.SMAPE, c.smape, c.name+": sMAPE")
		text(t, r.MASE, c.mase, c.name+": MASE")
		text(t, r.Coverage, c.coverage, c.name+": coverage")
		text(t, r.NaiveSMAPE, c.naive, c.name+": sMAPE of naive")
		text(t, r.NaiveMASE, c.naiveScale, c.name+": MASE of naive")
		if r.N != int64(len(c.all)) || r.Scaled != c.scaled {
			t.Errorf("%s: %d forecasts, %d scaled", c.name, r.N, r.Scaled)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, math.MaxInt64)
		r := accuracy.ForecastsOf(rapid.SliceOf(rapid.Custom(func(t *rapid.T) accuracy.Forecast {
			return accuracy.Forecast{Value: n.Draw(t, "value"), Low: n.Draw(t, "low"), High: n.Draw(t, "high"), Naive: n.Draw(t, "naive"), Actual: n.Draw(t, "actual"),
				Steps: rapid.Int64Range(0, 9).Draw(t, "steps"), Pairs: rapid.Int64Range(0, 40).Draw(t, "pairs")}
		})).Draw(t, "forecasts"))
		for _, x := range []*float64{r.SMAPE, r.MASE, r.Coverage, r.NaiveSMAPE, r.NaiveMASE} {
			if x != nil && (math.IsNaN(*x) || math.IsInf(*x, 0) || *x < 0) {
				t.Fatalf("%+v", r)
			}
		}
	})
}
