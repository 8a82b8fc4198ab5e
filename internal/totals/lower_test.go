package totals

import (
	"testing"
	"time"

	"github.com/shopspring/decimal"
)

func TestLowering_NeedsAnExplanation(t *testing.T) {
	t.Parallel()
	daily := &aggregates()[1]
	begin := time.Date(2026, 10, 5, 0, 0, 0, 0, time.UTC)
	total := func(rows string, last [2]int64, diff ...string) *Total {
		return &Total{of: daily, key: []string{"acme", "u", "pro", "2026-10-05"}, rows: []string{rows, "1", "1"}, diff: diff, last: last, begin: begin}
	}
	higher := total("4", [2]int64{1, 1}, "-1", "-10", "-0.5")
	sums := func(n ...float64) Sums {
		var d []decimal.Decimal
		for _, f := range n {
			d = append(d, decimal.NewFromFloat(f))
		}
		return Sums{daily.view: {higher.Name(): d}}
	}
	for name, test := range map[string]struct {
		why   Lowering
		total *Total
		want  bool
	}{
		"raising needs none":             {Lowering{}, total("4", [2]int64{5, 1}, "1", "0", "0.5"), true},
		"a sum":                          {Lowering{}, higher, false},
		"one sum of several":             {Lowering{}, total("4", [2]int64{1, 1}, "1", "0", "-0.5"), false},
		"a largest timestamp":            {Lowering{}, total("4", [2]int64{1, 5}, "0", "0", "0"), false},
		"by an operator":                 {Lowering{All: true}, higher, true},
		"by all that was counted twice":  {Lowering{Explained: sums(1, 10, 0.5)}, higher, true},
		"by more than was counted twice": {Lowering{Explained: sums(1, 9, 0.5)}, higher, false},
		"of another key":                 {Lowering{Explained: Sums{daily.view: {"another": sums(1, 10, 0.5)[daily.view][higher.Name()]}}}, higher, false},
		"the log holds everything":       {Lowering{Held: true}, higher, true},
		"the log holds the day":          {Lowering{Held: true, Since: begin.Add(-time.Second)}, higher, true},
		"the log holds half of the day":  {Lowering{Held: true, Since: begin.Add(time.Second)}, higher, false},
		"the log holds nothing for sure": {Lowering{Since: begin.Add(-time.Second)}, higher, false},
	} {
		if got := test.why.allows(test.total); got != test.want {
			t.Errorf("%s: may be lowered: %t, want %t", name, got, test.want)
		}
	}
}
