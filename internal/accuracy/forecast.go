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
	// MASE is the sum of |value - actual| over the sum of what naive was wrong by on average in the histories, at the same distance (Hyndman and Koehler,
	// 2006, who take the distance of one, and the ratio of each series). The ratio of the sums, and not the mean of ratios: a series that hardly ever changed
	// would outweigh all others in that, and one that never did would be left out. Scaled says how many forecasts are in: all with a history that is long
	// enough. nil: there are none, or no history ever changed.
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
	var smape, naiveSMAPE, errors, naiveErrors, scale, held float64
	for _, f := range all {
		smape += relative(f.Value, f.Actual)
		naiveSMAPE += relative(f.Naive, f.Actual)
		if f.Low <= f.Actual && f.Actual <= f.High {
			held++
		}
		if f.Pairs <= 0 {
			continue
		}
		r.Scaled++
		scale += float64(f.Steps) / float64(f.Pairs)
		errors += apart(f.Value, f.Actual)
		naiveErrors += apart(f.Naive, f.Actual)
	}
	n := float64(len(all))
	r.SMAPE, r.NaiveSMAPE, r.Coverage = rounded(smape/n), rounded(naiveSMAPE/n), rounded(held/n)
	if scale > 0 {
		r.MASE, r.NaiveMASE = rounded(errors/scale), rounded(naiveErrors/scale)
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
