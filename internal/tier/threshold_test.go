package tier_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
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
		{0, 1000, 0}, {1, 1, 1}, {1, 1000, 10}, {3, 33, 1}, {3, 34, 2}, {3, 150, 5}, {50000, 1000, 500000},
		{999_999_999_999_999_999, 1, 10_000_000_000_000_000}, {999_999_999_999_999_999, 1000, math.MaxInt64}, {math.MaxInt64 / 10, 1000, math.MaxInt64 - 7},
		{math.MaxInt64, 101, math.MaxInt64}, {math.MaxInt64, 1000, math.MaxInt64},
		{math.MaxInt64, 80, 7378697629483820646}, {math.MaxInt64, 100, math.MaxInt64},
	} {
		if got := c.limit.Reached(c.percent); got != c.want {
			t.Errorf("%d %% of %d: %d, want %d", c.percent, c.limit, got, c.want)
		}
	}
}

func TestReached_IsThatOfExactArithmetic(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for range 20_000 {
		limit, percent := random.Int64()>>random.IntN(63), 1+random.IntN(tier.MaxThreshold)
		want := new(big.Int).Mul(big.NewInt(limit), big.NewInt(int64(percent)))
		want.Add(want, big.NewInt(99)).Quo(want, big.NewInt(100))
		if !want.IsInt64() {
			want.SetInt64(math.MaxInt64)
		}
		if got := tier.Limit(limit).Reached(percent); got != want.Int64() {
			t.Fatalf("%d %% of %d: %d, want %d", percent, limit, got, want)
		}
	}
}

func TestThreshold_NeedsACall(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit   tier.Limit
		percent int
		want    int64
	}{{0, 1, 1}, {0, 100, 1}, {0, 1000, 1}, {1, 1, 1}, {1, 150, 2}, {3, 1, 1}, {3, 67, 3}, {1000, 80, 800}} {
		if got := c.limit.Threshold(c.percent); got != c.want {
			t.Errorf("%d %% of %d: %d, want %d", c.percent, c.limit, got, c.want)
		}
	}
}

func TestThresholds_AreSortedAndHaveDefaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		calls, list string
		want        []int
	}{
		{"10", "", []int{80, 100}}, {"10", "null", []int{80, 100}}, {"0", "", []int{80, 100}}, {`"unlimited"`, "", nil}, {`"unlimited"`, "null", nil},
		{"10", "[]", nil}, {"10", "[100, 1000, 1, 50]", []int{1, 50, 100, 1000}}, {`"unlimited"`, "[90, 80]", []int{80, 90}},
		{"10", "[20,19,18,17,16,15,14,13,12,11,10,9,8,7,6,5,4,3,2,1]", []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}},
	} {
		file, err := load(t, `{"tiers": [`+catalogue(t, map[string]string{"daily_api_calls": c.calls, "thresholds": c.list})+`]}`)
		if err != nil {
			t.Errorf("%s calls, thresholds %s: %v", c.calls, c.list, err)
			continue
		}
		if free, _ := file.Tier(tier.Free); !slices.Equal(free.Thresholds, c.want) {
			t.Errorf("%s calls, thresholds %s: %v, want %v", c.calls, c.list, free.Thresholds, c.want)
		}
	}
}
