package analytics

import (
	"math/big"

	"github.com/shopspring/decimal"
)

// Money is an amount in minor units of a currency, of which a hundred are one of its units.
type Money = Hundredths

// An Attributed is revenue that the senders of usage have attributed to it, exact to six decimals. In JSON and as text it always has all six.
type Attributed struct{ decimal.Decimal }

// String writes the amount with its six decimals.
func (a Attributed) String() string { return a.StringFixed(6) }

// MarshalJSON writes the amount as a number with its six decimals.
func (a Attributed) MarshalJSON() ([]byte, error) { return []byte(a.String()), nil }

// perHundred is a / b in hundredths, rounded half to even: amounts in minor units give an amount.
func perHundred(a, b *big.Int) Hundredths {
	return Round(new(big.Rat).SetFrac(a, new(big.Int).Mul(b, big.NewInt(100))))
}

// percentage is what part is of whole. Where whole is not above 0 it is 0.
func percentage(part, whole Money) Hundredths {
	if whole <= 0 {
		return 0
	}
	hundred := new(big.Int).Mul(big.NewInt(int64(part)), big.NewInt(100))
	return Round(new(big.Rat).SetFrac(hundred, big.NewInt(int64(whole))))
}
