package analytics

import (
	"fmt"
	"time"
)

// A Month is a calendar month in UTC: the months since the year 0. Months are compared and subtracted as numbers.
type Month int

// MonthOf is the month that a time lies in.
func MonthOf(t time.Time) Month {
	year, month, _ := t.UTC().Date()
	return Month(year*12 + int(month) - 1)
}

// ParseMonth reads a month written as YYYY-MM.
func ParseMonth(text string) (Month, error) {
	t, err := time.Parse("2006-01", text)
	if err != nil {
		return 0, fmt.Errorf("%q is no month in the form YYYY-MM", text)
	}
	return MonthOf(t), nil
}

// Start is when the month begins.
func (m Month) Start() time.Time {
	return time.Date(int(m)/12, time.Month(int(m)%12+1), 1, 0, 0, 0, 0, time.UTC)
}

// String is the month as YYYY-MM.
func (m Month) String() string { return m.Start().Format("2006-01") }

// MarshalText writes it as YYYY-MM.
func (m Month) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText has written.
func (m *Month) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMonth(string(text))
	return err
}
