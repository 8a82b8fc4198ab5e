package analytics

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
)

// Hundredths is a number with two decimals, counted in hundredths: a score, a percentage, an average, or an amount in minor units of a
// currency that has a hundred of them. In JSON and as text it always has both decimals: 4900 is 49.00.
type Hundredths int64

// Round returns a number in hundredths, rounded half to even. What is too large or too small for Hundredths becomes the largest or the
// smallest one.
func Round(r *big.Rat) Hundredths {
	rest := new(big.Int)
	// Euclid's division rounds down with a rest from 0 on, for numbers below 0 as well; so one rule rounds both.
	n, _ := new(big.Int).DivMod(new(big.Int).Mul(r.Num(), big.NewInt(100)), r.Denom(), rest)
	switch rest.Lsh(rest, 1).Cmp(r.Denom()) {
	case 1:
		n.Add(n, big.NewInt(1))
	case 0:
		n.Add(n, big.NewInt(int64(n.Bit(0)))) // up, if that makes it even
	}
	switch {
	case n.IsInt64():
		return Hundredths(n.Int64())
	case n.Sign() < 0:
		return math.MinInt64
	}
	return math.MaxInt64
}

// String writes the number with its two decimals.
func (h Hundredths) String() string { return string(h.append(nil)) }

// MarshalJSON writes the number with its two decimals.
func (h Hundredths) MarshalJSON() ([]byte, error) { return h.append(nil), nil }

// UnmarshalJSON reads what MarshalJSON has written. More decimals than two are an error, and so is what is too large.
func (h *Hundredths) UnmarshalJSON(text []byte) error {
	r, ok := new(big.Rat).SetString(string(text))
	if !ok {
		return fmt.Errorf("%q is no number with two decimals", text)
	}
	if r.Mul(r, big.NewRat(100, 1)); !r.IsInt() || !r.Num().IsInt64() {
		return fmt.Errorf("%s is no number with two decimals", text)
	}
	*h = Hundredths(r.Num().Int64())
	return nil
}

func (h Hundredths) append(b []byte) []byte {
	n := uint64(h) // #nosec G115 -- of a number below 0 the next line makes its distance from 0
	if h < 0 {
		b, n = append(b, '-'), -n
	}
	b = append(strconv.AppendUint(b, n/100, 10), '.')
	if n%100 < 10 {
		b = append(b, '0')
	}
	return strconv.AppendUint(b, n%100, 10)
}
