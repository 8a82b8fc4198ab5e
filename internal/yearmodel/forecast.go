package yearmodel

import "math/big"

type (
	// A forecastAnswer is what can be known of a forecast without making one.
	forecastAnswer struct {
		History  int             `json:"history_months"`
		Interval int             `json:"interval_percentage"`
		Months   []forecastMonth `json:"months"`
	}
	forecastMonth struct {
		Month string `json:"month"`
		// Value is the revenue and both ends of its interval, where all months were equal; empty: it is not known.
		Value decimal `json:"-"`
		// Least is what none of them is below.
		Least *big.Rat `json:"-"`
	}
)

// forecast is nil where there must be none.
func (c *Company) forecast(charged map[month]int64, present month) *forecastAnswer {
	first := present
	for m, minor := range charged {
		if minor != 0 {
			first = min(first, m)
		}
	}
	whole := int(present - first)
	if whole < 4 || c.pays() == 0 {
		return nil
	}
	f := &forecastAnswer{History: min(whole, 36), Interval: 80}
	equal := true
	for m := present - month(f.History); m < present; m++ {
		equal = equal && charged[m] == charged[present-1]
	}
	for n := range month(3) {
		least := int64(0)
		if n == 0 {
			least = charged[present]
		}
		next := forecastMonth{Month: (present + n).String(), Least: big.NewRat(least, 100)}
		if equal {
			next.Value = decimal(units(max(least, charged[present-1])))
		}
		f.Months = append(f.Months, next)
	}
	return f
}
