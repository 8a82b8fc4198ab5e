package yearmodel

import (
	"fmt"
	"math/big"
	"time"
)

// A month is a calendar month in UTC, counted from January of the year 0.
type month int

func monthOf(t time.Time) month {
	t = t.UTC()
	return month(t.Year()*12) + month(t.Month()) - 1
}

func (m month) String() string { return fmt.Sprintf("%04d-%02d", m/12, m%12+1) }

func (m month) start() time.Time {
	return time.Date(int(m/12), time.Month(m%12+1), 1, 0, 0, 0, 0, time.UTC)
}

// A day is a day in UTC, counted from 1970-01-01.
type day int

const millisOfDay = 24 * 60 * 60 * 1000

func dayOf(t time.Time) day { return day(t.Unix() / (millisOfDay / 1000)) }

func (d day) start() time.Time { return time.UnixMilli(int64(d) * millisOfDay).UTC() }

func (d day) month() month { return monthOf(d.start()) }

// later is the end of a period of some months by the day of the month on which periods begin; shorter months end on their last day.
func later(start time.Time, months, anchor int) time.Time {
	end := start.AddDate(0, 0, 1-start.Day()).AddDate(0, months, 0) // the first of the month, at the same time of day
	last := end.AddDate(0, 1, -1).Day()
	return end.AddDate(0, 0, min(anchor, last)-1)
}

// rounded writes a number with decimals, the last of them rounded half to even.
func rounded(r *big.Rat, decimals int) string {
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(decimals)), nil)
	scaled := new(big.Rat).Mul(r, new(big.Rat).SetInt(scale))
	return placed(toInteger(scaled), decimals)
}

// toInteger rounds half to even.
func toInteger(r *big.Rat) *big.Int {
	below := new(big.Int)
	rest := new(big.Int)
	below.QuoRem(r.Num(), r.Denom(), rest)
	if rest.Sign() < 0 { // QuoRem rounds towards 0
		below.Sub(below, big.NewInt(1))
	}
	part := new(big.Rat).Sub(r, new(big.Rat).SetInt(below))
	half := part.Cmp(big.NewRat(1, 2))
	if half > 0 || half == 0 && below.Bit(0) == 1 {
		below.Add(below, big.NewInt(1))
	}
	return below
}

// placed writes an integer as one with a decimal point before its last digits.
func placed(n *big.Int, decimals int) string {
	sign, digits := "", new(big.Int).Abs(n).String()
	if n.Sign() < 0 {
		sign = "-"
	}
	for len(digits) <= decimals {
		digits = "0" + digits
	}
	return sign + digits[:len(digits)-decimals] + "." + digits[len(digits)-decimals:]
}

// units writes minor units as units.
func units(minor int64) string { return placed(big.NewInt(minor), 2) }
