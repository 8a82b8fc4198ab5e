// Package accuracy measures how good scores and forecasts were, once it is known what happened. It knows no store and no clock.
//
// Measures are estimates, computed in floats and rounded to four decimals; none is a sum of money. One that can't be computed, because there are
// no users, or all of them did the same, is nil and never NaN.
package accuracy
