package analytics

import (
	"fmt"
	"math"
)

const (
	// ForecastMonths is how far a forecast reaches.
	ForecastMonths = 3
	// ForecastMinimum is how many whole months of charged revenue it needs.
	ForecastMinimum = 4
	// forecastHistory is how many months it looks back at most: what is older says little.
	forecastHistory = 36
)

// A Forecast is an estimate of the charged revenue of the months behind the last whole one.
type Forecast struct {
	Method   string          `json:"method"`
	History  int             `json:"history_months"` // whole months that it is made from
	Interval int             `json:"interval_percentage"`
	Months   []ForecastMonth `json:"months"`
}

// A ForecastMonth is the forecast of one month. Low and High are the ends of the interval.
type ForecastMonth struct {
	Month   Month `json:"month"`
	Revenue Money `json:"revenue"`
	Low     Money `json:"low"`
	High    Money `json:"high"`
}

// charged takes in what was charged in the month already, which is not over: it will not be less.
func (m *ForecastMonth) charged(already Money) {
	m.Revenue, m.Low, m.High = max(m.Revenue, already), max(m.Low, already), max(m.High, already)
}

// ForecastOf forecasts from the charged revenue of whole months, one after the other, up to the one before next. Under ForecastMinimum of
// them there is no forecast, and the reason says so.
//
// It is the mean of three methods: naive (the last month again), drift (the line from the first month to the last) and a damped trend
// (Holt's exponential smoothing with the damping of Gardner and McKenzie). Such a mean is hard to beat by any of its parts (Makridakis and
// Hibon, 2000). The interval is symmetric about it, from the errors that the same method would have made in the past. Revenue is not below 0, and neither is what is forecast.
//
// These are estimates, so they are computed in floats; no sum of money is.
func ForecastOf(months []Money, next Month) (*Forecast, string) {
	if len(months) < ForecastMinimum {
		return nil, fmt.Sprintf("whole months since the first charge: %d; a forecast needs %d", len(months), ForecastMinimum)
	}
	if over := len(months) - forecastHistory; over > 0 {
		months = months[over:]
	}
	history := make([]float64, len(months))
	for i, m := range months {
		history[i] = float64(m)
	}
	f := &Forecast{Method: "mean of naive, drift and damped trend", History: len(history), Interval: 80}
	widths := halfWidths(history)
	for h, point := range combined(history) {
		half := widths[h]
		f.Months = append(f.Months, ForecastMonth{next + Month(h), toMoney(point), toMoney(point - half), toMoney(point + half)})
	}
	return f, ""
}

// toMoney rounds an estimate to minor units, half to even, and to 0 at least.
func toMoney(estimate float64) Money {
	const most = 1 << 62 // more than any revenue, and it fits
	return Money(math.RoundToEven(math.Max(0, math.Min(most, estimate))))
}

// combined forecasts the months behind at least two.
func combined(history []float64) [ForecastMonths]float64 {
	last, n := history[len(history)-1], len(history)
	perMonth := (last - history[0]) / float64(n-1)
	damped := fitDamped(history)
	var points [ForecastMonths]float64
	for h := range points {
		points[h] = (last + last + perMonth*float64(h+1) + damped[h]) / 3
	}
	return points
}

// What the damped trend tries. The damping stays: so few months don't tell it apart.
var (
	levelWeights = [...]float64{0.2, 0.4, 0.6, 0.8, 1}
	trendWeights = [...]float64{0, 0.1, 0.3}
)

const damping = 0.9

// fitDamped forecasts with the weights that would have had the smallest squared errors one month ahead.
func fitDamped(history []float64) (best [ForecastMonths]float64) {
	least := math.Inf(1)
	for _, alpha := range levelWeights {
		for _, beta := range trendWeights {
			if points, errors := damped(history, alpha, beta); errors < least {
				best, least = points, errors
			}
		}
	}
	return best
}

// damped is Holt's method with a damped trend. It begins with the mean step of the first months, so that one odd month does not decide.
func damped(history []float64, alpha, beta float64) (points [ForecastMonths]float64, squared float64) {
	begin := min(ForecastMinimum, len(history)) - 1
	level, trend := history[0], (history[begin]-history[0])/float64(begin)
	for _, value := range history[1:] {
		expected := level + damping*trend
		squared += (value - expected) * (value - expected)
		before := level
		level = alpha*value + (1-alpha)*expected
		trend = beta*(level-before) + (1-beta)*damping*trend
	}
	sum, weight := 0.0, 1.0
	for h := range points {
		weight *= damping
		sum += weight
		points[h] = level + sum*trend
	}
	return points, squared
}

// tenth is the value that Student's t exceeds once in ten, by degrees of freedom from 1; further ones are close to the last.
var tenth = [...]float64{3.078, 1.886, 1.638, 1.533, 1.476, 1.440, 1.415, 1.397, 1.383, 1.372, 1.363, 1.356, 1.350, 1.345, 1.341,
	1.337, 1.333, 1.330, 1.328, 1.325, 1.323, 1.321, 1.319, 1.318, 1.316, 1.315, 1.314, 1.313, 1.311, 1.310}

// halfWidths are half of the 80 % interval at each distance, from what the method, given the months before each, was wrong by. Errors of one
// month ahead grow with the square root of the distance where months are a random walk. Where there is a trend they grow faster, because
// the method follows it in part only: then what it was wrong by at the distance itself is more, and counts.
func halfWidths(history []float64) (widths [ForecastMonths]float64) {
	var squared [ForecastMonths]float64
	var n [ForecastMonths]int
	for known := 2; known < len(history); known++ { // two months are the least that drift needs
		points := combined(history[:known])
		for h := 0; h < ForecastMonths && known+h < len(history); h++ {
			off := history[known+h] - points[h]
			squared[h] += off * off
			n[h]++
		}
	}
	for h := range widths {
		widths[h] = interval(squared[0], n[0]) * math.Sqrt(float64(h+1))
		if n[h] >= ForecastMinimum {
			widths[h] = math.Max(widths[h], interval(squared[h], n[h]))
		}
		widths[h] = math.Max(widths[h], widths[max(0, h-1)])
	}
	return widths
}

// interval is half of the 80 % interval by the sum of n squared errors.
func interval(squared float64, n int) float64 {
	return tenth[min(n, len(tenth))-1] * math.Sqrt(squared/float64(n))
}
