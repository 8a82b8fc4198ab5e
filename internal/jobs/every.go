package jobs

import "time"

// Every is what a slot stands for, in UTC.
type Every string

// The lengths of slots.
const (
	Hour  Every = "hour"
	Day   Every = "day"
	Week  Every = "week" // from Monday
	Month Every = "month"
)

// Floor is the slot that a time lies in.
func (e Every) Floor(t time.Time) time.Time {
	t = t.UTC()
	year, month, day := t.Date()
	switch e {
	case Hour:
		return time.Date(year, month, day, t.Hour(), 0, 0, 0, time.UTC)
	case Week:
		const daysOfAWeek = 7
		sinceMonday := (int(t.Weekday()) - int(time.Monday) + daysOfAWeek) % daysOfAWeek
		return time.Date(year, month, day-sinceMonday, 0, 0, 0, 0, time.UTC)
	case Month:
		return time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
	case Day:
	}
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// Next is the slot after the one that a time lies in.
func (e Every) Next(t time.Time) time.Time {
	slot := e.Floor(t)
	switch e {
	case Hour:
		return slot.Add(time.Hour)
	case Week:
		return slot.AddDate(0, 0, 7)
	case Month:
		return slot.AddDate(0, 1, 0)
	case Day:
	}
	return slot.AddDate(0, 0, 1)
}

// Before is the slot before the one that a time lies in.
func (e Every) Before(t time.Time) time.Time { return e.Floor(e.Floor(t).Add(-time.Nanosecond)) }
