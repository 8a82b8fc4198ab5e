package tier

import (
	"encoding/json"
	"math/big"
	"slices"
	"time"
)

// A Line is one part of an amount, in minor units of its currency. Below 0 it is a credit.
type Line struct {
	Description string `json:"description"`
	AmountMinor int64  `json:"amount_minor"`
}

// An Adjustment is the money of a change: the amount, which is the sum of the lines, and the period that holds after it. Its JSON
// is the billing_adjustment of events, with times in RFC 3339 and UTC.
type Adjustment struct {
	AmountMinor            int64
	Currency               string
	PeriodStart, PeriodEnd time.Time
	Lines                  []Line
}

// MarshalJSON writes a billing_adjustment. Lines are never null.
func (a Adjustment) MarshalJSON() ([]byte, error) {
	lines := a.Lines
	if lines == nil {
		lines = []Line{}
	}
	return json.Marshal(adjustmentJSON{a.AmountMinor, a.Currency, a.PeriodStart.UTC(), a.PeriodEnd.UTC(), lines})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (a *Adjustment) UnmarshalJSON(data []byte) error {
	var j adjustmentJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*a = Adjustment{j.AmountMinor, j.Currency, j.PeriodStart.UTC(), j.PeriodEnd.UTC(), j.Lines}
	return nil
}

type adjustmentJSON struct {
	AmountMinor int64     `json:"amount_minor"`
	Currency    string    `json:"currency"`
	PeriodStart time.Time `json:"period_start"`
	PeriodEnd   time.Time `json:"period_end"`
	Lines       []Line    `json:"lines"`
}

// NextPeriodEnd returns the end of the monthly period that starts at the given time: AddMonths of one.
func NextPeriodEnd(start time.Time, anchorDay int) time.Time { return AddMonths(start, 1, anchorDay) }

// AddMonths returns the end of the period of so many months that starts at the given time: at the same time of day in UTC, on the
// anchor day (1 to 31; 0: the day of start) or on the month's last where the month is shorter. The anchor is what brings a period
// that ended on 28 February back to the 31st of March.
func AddMonths(start time.Time, months, anchorDay int) time.Time {
	start = start.UTC()
	if anchorDay == 0 {
		anchorDay = start.Day()
	}
	year, month, _ := start.Date()
	month += time.Month(months)
	last := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day() // day 0 of a month is the last of the one before
	return time.Date(year, month, min(anchorDay, last), start.Hour(), start.Minute(), start.Second(), start.Nanosecond(), time.UTC)
}

// MaxMonths bounds the length of a period.
const MaxMonths = 36

// Months is how many whole months a period has by its anchor day; false: it has not 1 to MaxMonths whole ones.
func Months(start, end time.Time, anchorDay int) (int, bool) {
	start, end = start.UTC(), end.UTC()
	n := (end.Year()-start.Year())*12 + int(end.Month()) - int(start.Month())
	return n, n >= 1 && n <= MaxMonths && AddMonths(start, n, anchorDay).Equal(end)
}

// instant is a time as the stores keep it, so that what is computed before a change and after it are the same.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// Charge is the adjustment of a change that begins a period, and of its price.
func Charge(amount int64, start, end time.Time) Adjustment {
	return Adjustment{AmountMinor: amount, Currency: Currency, PeriodStart: start, PeriodEnd: end,
		Lines: []Line{{Description: "charge", AmountMinor: amount}}}
}

// NoCharge is the adjustment of a change that costs nothing.
func NoCharge(start, end time.Time) Adjustment {
	return Adjustment{Currency: Currency, PeriodStart: start, PeriodEnd: end, Lines: []Line{}}
}

// prorate returns the proration of a change within a period: its adjustment, by the prices of the whole period. The amount is
// rounded once, as a whole, and so is the credit; the charge is the difference, so that the lines always sum to the amount. Nothing is
// paid back, so the amount is 0 at least, and 0 for a tier that the period was charged for already.
func prorate(cur Current, to Tier, at time.Time) Adjustment {
	start, end := instant(cur.PeriodStart), instant(cur.PeriodEnd)
	if at.Before(start) {
		at = start
	}
	left, length := end.Sub(at), end.Sub(start)
	amount := max(0, share(cur.whole(to.PriceMinor)-cur.whole(cur.PriceMinor), left, length))
	if slices.Contains(cur.Charged, to.Name) {
		amount = 0
	}
	credit := -share(cur.whole(cur.PriceMinor), left, length)
	return Adjustment{AmountMinor: amount, Currency: Currency, PeriodStart: start, PeriodEnd: end, Lines: []Line{
		{Description: "credit", AmountMinor: credit}, {Description: "charge", AmountMinor: amount - credit}}}
}

// share is amount x left / whole, rounded half to even. The product of a price and a month's nanoseconds does not fit 64 bits.
// Nothing is left of a period of no length.
func share(amount int64, left, whole time.Duration) int64 {
	if left <= 0 || whole <= 0 {
		return 0
	}
	divisor := big.NewInt(int64(whole))
	rest := new(big.Int)
	// Euclid's division rounds down with a rest from 0 on, for amounts below 0 as well; so one rule rounds both.
	quotient, _ := new(big.Int).DivMod(new(big.Int).Mul(big.NewInt(amount), big.NewInt(int64(left))), divisor, rest)
	switch rest.Lsh(rest, 1).Cmp(divisor) {
	case 1:
		quotient.Add(quotient, big.NewInt(1))
	case 0:
		quotient.Add(quotient, big.NewInt(int64(quotient.Bit(0)))) // up, if that makes it even
	}
	return quotient.Int64()
}
