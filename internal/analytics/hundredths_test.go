package analytics

import (
	"encoding/json"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestRound_HalvesGoToTheEvenHundredth(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ number, want string }{
		{"0", "0.00"}, {"1/3", "0.33"}, {"2/3", "0.67"}, {"0.005", "0.00"}, {"0.015", "0.02"}, {"0.025", "0.02"}, {"0.0250001", "0.03"},
		{"-0.005", "0.00"}, {"-0.015", "-0.02"}, {"-0.025", "-0.02"}, {"-1/3", "-0.33"}, {"-12.3", "-12.30"}, {"49", "49.00"}, {"99.995", "100.00"}, {"99.985", "99.98"},
		{"1e30", "92233720368547758.07"}, {"-1e30", "-92233720368547758.08"},
	} {
		r, ok := new(big.Rat).SetString(c.number)
		if !ok {
			t.Fatal(c.number)
		}
		if got := Round(r).String(); got != c.want {
			t.Errorf("%s is %s, want %s", c.number, got, c.want)
		}
	}
}

func TestRound_IsTheNearestAndReadsBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := big.NewRat(rapid.Int64Range(-1e15, 1e15).Draw(t, "numerator"), rapid.Int64Range(1, 5000).Draw(t, "denominator"))
		h := Round(r)
		off := new(big.Rat).Sub(r, big.NewRat(int64(h), 100))
		switch off.Abs(off).Cmp(big.NewRat(1, 200)) {
		case 1:
			t.Fatalf("%s is off %s by %s", h, r, off)
		case 0:
			if h%2 != 0 {
				t.Fatalf("%s of %s is a half rounded to an odd hundredth", h, r)
			}
		}
		text, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		back, ok := new(big.Rat).SetString(string(text))
		if !ok || back.Cmp(big.NewRat(int64(h), 100)) != 0 || text[len(text)-3] != '.' {
			t.Fatalf("%d is written as %s", int64(h), text)
		}
	})
	for h, want := range map[Hundredths]string{math.MaxInt64: "92233720368547758.07", math.MinInt64: "-92233720368547758.08", -5: "-0.05", 9: "0.09"} {
		if h.String() != want {
			t.Errorf("%d is %s, want %s", int64(h), h, want)
		}
	}
}
