package accuracy

import "math"

// A Forecast is what was forecast for one month, and what came of it, all in minor units of one currency.
type Forecast struct {
	Value, Low, High int64
	Naive            int64 // what the last whole month had: the baseline
	Actual           int64
	// Steps is the sum of the absolute differences between months of the history that are as far apart as this one and the last of it, and Pairs how
	// many there are.
	Steps int64
	Pairs int64
}

// Forecasts are how good forecasts were.
type Forecasts struct {
	N int64 `json:"forecasts"`
	// SMAPE is the mean of 200 % x |value - actual| / (|value| + |actual|), 0 where both are 0; nil: there are none.
	SMAPE *float64 `json:"smape_percentage"`
	// MASE is the mean of |value - actual| over what naive was wrong by in the history, at the same distance (Hyndman and Koehler, 2006, who take the
	// distance of one). Series that never changed have no such measure and are left out: Scaled says how many are in. nil: none.
	MASE   *float64 `json:"mase"`
	Scaled int64    `json:"mase_forecasts"`
	// Coverage is the share of the actual values within the interval, its ends included; nil: there are none.
	Coverage *float64 `json:"interval_coverage"`
	// What naive would have had.
	NaiveSMAPE *float64 `json:"naive_smape_percentage"`
	NaiveMASE  *float64 `json:"naive_mase"`
}

// ForecastsOf judges forecasts.
func ForecastsOf(all []Forecast) Forecasts {
	r := Forecasts{N: int64(len(all))}
	if len(all) == 0 {
		return r
	}
	var smape, naiveSMAPE, scaled, naiveScaled, held float64
	for _, f := range all {
		smape += relative(f.Value, f.Actual)
		naiveSMAPE += relative(f.Naive, f.Actual)
		if f.Low <= f.Actual && f.Actual <= f.High {
			held++
		}
		if f.Steps <= 0 || f.Pairs <= 0 {
			continue
		}
		r.Scaled++
		scale := float64(f.Steps) / float64(f.Pairs)
		scaled += apart(f.Value, f.Actual) / scale
		naiveScaled += apart(f.Naive, f.Actual) / scale
	}
	n := float64(len(all))
	r.SMAPE, r.NaiveSMAPE, r.Coverage = rounded(smape/n), rounded(naiveSMAPE/n), rounded(held/n)
	if r.Scaled > 0 {
		r.MASE, r.NaiveMASE = rounded(scaled/float64(r.Scaled)), rounded(naiveScaled/float64(r.Scaled))
	}
	return r
}

func apart(a, b int64) float64 { return math.Abs(float64(a) - float64(b)) }

// relative is the error in percent of the mean of both values.
func relative(value, actual int64) float64 {
	whole := math.Abs(float64(value)) + math.Abs(float64(actual))
	if whole == 0 {
		return 0
	}
	return 200 * apart(value, actual) / whole
}
