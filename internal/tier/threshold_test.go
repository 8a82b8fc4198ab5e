package tier_test

import (
	"math"
	"testing"

	"tenantflow/internal/tier"
)

func TestAPercentageOfALimitIsRoundedUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit   tier.Limit
		percent int
		want    int64
	}{
		{0, 80, 0}, {1, 80, 1}, {2, 80, 2}, {4, 80, 4}, {5, 80, 4}, {6, 80, 5}, {1000, 80, 800}, {1001, 80, 801}, {1001, 100, 1001},
		{math.MaxInt64, 80, 7378697629483820646}, {math.MaxInt64, 100, math.MaxInt64},
	} {
		if got := c.limit.Reached(c.percent); got != c.want {
			t.Errorf("%d %% of %d: %d, want %d", c.percent, c.limit, got, c.want)
		}
	}
}
