package tier

import (
	"fmt"
	"math"
	"slices"
)

// What a list of thresholds may be at most.
const (
	MaxThreshold  = 1000 // percent
	MaxThresholds = 20   // of one tier
)

// Exceeded is the threshold at which a limit is used up, in percent.
const Exceeded = 100

// Reached is the number of calls, or of whatever the limit counts, at which a percentage of it is used: rounded up. It is for
// limits that are not Unlimited. A number that does not fit is the highest one that does.
func (l Limit) Reached(percent int) int64 {
	// Without a product that may not fit.
	p := int64(percent)
	whole, rest := int64(l)/100, (int64(l)%100*p+99)/100
	if p > 0 && whole > (math.MaxInt64-rest)/p {
		return math.MaxInt64
	}
	return whole*p + rest
}

// Threshold is the number of calls that reaches a threshold of the limit, in percent: Reached, but no threshold is reached before the
// first call. So a limit of 0 has all its thresholds at 1.
func (l Limit) Threshold(percent int) int64 { return max(1, l.Reached(percent)) }

// defaultThresholds are those of a tier that names none.
func defaultThresholds(calls Limit) []int {
	if calls == Unlimited {
		return []int{}
	}
	return []int{80, Exceeded}
}

// wrongThresholds says what is wrong with a list.
func wrongThresholds(list []int) (wrong []string) {
	if len(list) > MaxThresholds {
		wrong = append(wrong, fmt.Sprintf("there are %d; leave out all but %d", len(list), MaxThresholds))
	}
	seen := map[int]bool{}
	for _, percent := range list {
		switch {
		case percent < 1 || percent > MaxThreshold:
			wrong = append(wrong, fmt.Sprintf("%d is not between 1 and %d, percent of daily_api_calls", percent, MaxThreshold))
		case seen[percent]:
			wrong = append(wrong, fmt.Sprintf("%d is there twice; leave one out", percent))
		}
		seen[percent] = true
		if len(wrong) > 3 { // a list of thousands need not be told in full
			break
		}
	}
	return wrong
}

// sortedThresholds is a list in ascending order.
func sortedThresholds(list []int) []int {
	sorted := slices.Clone(list)
	slices.Sort(sorted)
	return sorted
}
