package business

import (
	"math/big"

	"github.com/shopspring/decimal"

	"tenantflow/internal/analytics"
)

// each is an amount for each of n, rounded half to even; nil: there are none.
func each(amount Money, n int64) *Money {
	if n <= 0 {
		return nil
	}
	r := big.NewRat(int64(amount), 100)
	value := analytics.Round(r.Quo(r, big.NewRat(n, 1)))
	return &value
}

// percent is what part is of whole in percent, rounded half to even; nil: whole is not above 0.
func percent(part, whole int64) *analytics.Hundredths {
	if whole <= 0 {
		return nil
	}
	r := big.NewRat(part, whole)
	value := analytics.Round(r.Mul(r, big.NewRat(100, 1)))
	return &value
}

// exactly is a quotient with six decimals, rounded half to even; nil: b is not above 0.
func exactly(a, b *big.Int) *Ratio {
	if b.Sign() <= 0 {
		return nil
	}
	// Two decimals more by the same rule: Round has two, of the number times 10,000.
	scaled := analytics.Round(new(big.Rat).SetFrac(new(big.Int).Mul(a, big.NewInt(10_000)), b))
	return &Ratio{decimal.New(int64(scaled), -6)}
}

// meets is whether a condition holds, as a report has it.
func meets(yes bool) *bool { return &yes }
