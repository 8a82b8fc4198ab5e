package tenantmodel

import (
	"math/big"
	"time"

	"tenantflow/internal/generate"
)

// A plan holds the judge's own copy of a tier of the built-in catalogue.
type plan struct {
	name     string
	rank     int
	price    int64
	maxUsers int // 0: unlimited
	features []any
	support  string
}

func plans() map[string]plan {
	all := map[string]plan{}
	for i, p := range []plan{
		{name: "free", price: 0, maxUsers: 1, features: []any{"basic_trading", "email_notifications"}, support: "community"},
		{name: "pro", price: 4900, maxUsers: 25, support: "email",
			features: []any{"basic_trading", "advanced_analytics", "email_notifications", "sms_notifications", "api_access"}},
		{name: "enterprise", price: 49900, features: []any{"all_features"}, support: "phone"},
	} {
		p.rank = i
		all[p.name] = p
	}
	return all
}

func (p plan) maxUsersJSON() any {
	if p.maxUsers == 0 {
		return "unlimited"
	}
	return p.maxUsers
}

// wholeMonths is how many months there are from one time to another, on a day of the month; 0: they are not 1 to 36 whole ones.
func wholeMonths(start, end time.Time, day int) int {
	at := start
	for n := 1; n <= 36; n++ {
		if at = generate.MonthAfter(at, day); at.Equal(end) {
			return n
		}
	}
	return 0
}

// portion is price x what is left of a period, to the nearest whole number, halves to the even one.
func portion(price int64, start, end, at time.Time) int64 {
	switch {
	case at.Before(start):
		at = start
	case at.After(end):
		at = end
	}
	exact := new(big.Rat).Mul(big.NewRat(price, 1), big.NewRat(end.UnixMicro()-at.UnixMicro(), end.UnixMicro()-start.UnixMicro()))
	// Twice the number, cut off, shows on which side of the half it is.
	doubled := new(big.Int).Quo(new(big.Int).Mul(exact.Num(), big.NewInt(2)), exact.Denom())
	whole := new(big.Int).Quo(exact.Num(), exact.Denom())
	odd := new(big.Int).And(new(big.Int).Abs(doubled), big.NewInt(1)).Sign() != 0
	if odd { // a half or more is left over, away from zero
		half := new(big.Rat).SetFrac(doubled, big.NewInt(2)).Cmp(exact) == 0
		if !half || new(big.Int).And(new(big.Int).Abs(whole), big.NewInt(1)).Sign() != 0 {
			whole.Add(whole, big.NewInt(int64(exact.Sign())))
		}
	}
	return whole.Int64()
}
