package analytics_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tenantflow/internal/analytics"
)

func TestForecast_NeedsFourWholeMonths(t *testing.T) {
	t.Parallel()
	next := month(t, "2026-11")
	for n := range analytics.ForecastMinimum {
		f, why := analytics.ForecastOf(make([]analytics.Money, n), next)
		if f != nil || !strings.Contains(why, "a forecast needs 4") {
			t.Errorf("%d months: got %v and %q", n, f, why)
		}
	}
	f, why := analytics.ForecastOf([]analytics.Money{4900, 4900, 4900, 4900}, next)
	if why != "" || f == nil {
		t.Fatalf("four months: %q", why)
	}
	want := `{"method":"mean of naive, drift and damped trend","history_months":4,"interval_percentage":80,"months":[` +
		`{"month":"2026-11","revenue":49.00,"low":49.00,"high":49.00},{"month":"2026-12","revenue":49.00,"low":49.00,"high":49.00},{"month":"2027-01","revenue":49.00,"low":49.00,"high":49.00}]}`
	if got := text(t, f); got != want {
		t.Errorf("of equal months: got\n%s\nwant\n%s", got, want)
	}
}

// Whatever the months were: three numbers from 0 on, each within its interval, which gets no narrower with the distance.
func TestForecast_IsAlwaysANumber(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		months := rapid.SliceOfN(rapid.Map(rapid.Int64Range(-1e6, 1e15), func(n int64) analytics.Money { return analytics.Money(n) }), 4, 60).Draw(t, "months")
		f, why := analytics.ForecastOf(months, analytics.MonthOf(now))
		if f == nil || why != "" || len(f.Months) != analytics.ForecastMonths || f.History != min(36, len(months)) {
			t.Fatalf("%v, %q", f, why)
		}
		for i, m := range f.Months {
			if m.Low < 0 || m.Low > m.Revenue || m.Revenue > m.High {
				t.Fatalf("%s is not within %s to %s", m.Revenue, m.Low, m.High)
			}
			if before := f.Months[max(0, i-1)]; before.Low > 0 && m.Low > 0 && m.High-m.Low < before.High-before.Low-2 {
				t.Fatalf("the interval narrows from %s to %s", before.High-before.Low, m.High-m.Low)
			}
		}
	})
}

// judged is how the forecast does on series that a step makes, against naive at the same distances, and how often its interval holds.
func judged(seed uint64, months int, step func(r *rand.Rand, last float64) float64) (error2naive, coverage float64) {
	r := rand.New(rand.NewPCG(seed, 16)) // #nosec G404 -- a test's own numbers, the same in every run
	own, naive, held, n := 0.0, 0.0, 0, 0
	for range 400 {
		series := make([]analytics.Money, months+analytics.ForecastMonths)
		value := 500_000.0
		for i := range series {
			series[i] = analytics.Money(math.Round(value))
			value = math.Max(0, step(r, value))
		}
		known := series[:months]
		f, _ := analytics.ForecastOf(known, 0)
		for h, m := range f.Months {
			actual := series[months+h]
			own += math.Abs(float64(m.Revenue - actual))
			naive += math.Abs(float64(known[months-1] - actual))
			if m.Low <= actual && actual <= m.High {
				held++
			}
			n++
		}
	}
	return own / naive, float64(held) / float64(n)
}

// The forecast is judged against naive at the same distance: clearly better where there is a trend, not worse on a random walk, of which
// nothing better is known. The worlds and seeds are fixed.
func TestForecast_IsJudgedAgainstNaive(t *testing.T) {
	t.Parallel()
	trend := func(by float64) func(*rand.Rand, float64) float64 {
		return func(r *rand.Rand, last float64) float64 { return last + by + 6_000*r.NormFloat64() }
	}
	walk := func(r *rand.Rand, last float64) float64 { return last + 12_000*r.NormFloat64() }
	for name, world := range map[string]struct {
		months int
		most   float64
		step   func(r *rand.Rand, last float64) float64
	}{
		"a trend": {24, 0.8, trend(12_000)}, "a decline": {24, 0.8, trend(-12_000)}, "a random walk": {24, 1.05, walk},
		"a trend of 8 months": {8, 0.8, trend(12_000)}, "a trend of 36 months": {36, 0.8, trend(12_000)}, "a random walk of 36 months": {36, 1.05, walk},
	} {
		for seed := uint64(100); seed < 103; seed++ { // others than those that the method was made with
			against, coverage := judged(seed, world.months, world.step)
			t.Logf("%s, seed %d: %.3f of the error of naive, coverage %.3f", name, seed, against, coverage)
			if against > world.most {
				t.Errorf("%s, seed %d: the error is %.3f of naive's, want at most %.2f", name, seed, against, world.most)
			}
			if coverage < 0.7 || coverage > 0.9 {
				t.Errorf("%s, seed %d: the 80 %% interval holds in %.3f, want 0.7 to 0.9", name, seed, coverage)
			}
		}
	}
}
