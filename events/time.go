package events

import "time"

// parseTime reads an RFC 3339 timestamp.
//
// It takes what the date-time format of JSON Schema and Go's time.Parse agree on, and the lower-case t and z that
// RFC 3339 allows. It refuses leap seconds (second 60) as Go does: no store here could keep one apart from the second
// after it. Offsets reach from -23:59 to +23:59, and any number of fractional digits is taken.
func parseTime(s []byte) (time.Time, bool) {
	sec, nsec, ok := parseRFC3339(s)
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(sec, int64(nsec)).UTC(), true
}

// parseRFC3339 is parseTime without the type: seconds since the Unix epoch and nanoseconds in [0, 1e9). Digits beyond
// the ninth are cut off.
func parseRFC3339(s []byte) (sec int64, nsec uint32, ok bool) {
	// 2006-01-02T15:04:05Z is the shortest form.
	if len(s) < 20 || s[4] != '-' || s[7] != '-' || s[10]|0x20 != 't' || s[13] != ':' || s[16] != ':' {
		return 0, 0, false
	}
	year := digits2(s[0], s[1])*100 + digits2(s[2], s[3])
	month, day := digits2(s[5], s[6]), digits2(s[8], s[9])
	hour, minute, second := digits2(s[11], s[12]), digits2(s[14], s[15]), digits2(s[17], s[18])
	// A pair that holds anything but digits is notDigits or more, and so beyond every bound.
	if year > 9999 || month-1 > 11 || hour > 23 || minute > 59 || second > 59 || day-1 >= daysIn(year, month) {
		return 0, 0, false
	}

	rest := s[19:]
	if rest[0] == '.' {
		n, scale := 1, uint32(100_000_000)
		for n < len(rest) && rest[n]-'0' <= 9 {
			nsec += uint32(rest[n]-'0') * scale
			scale /= 10
			n++
		}
		if n == 1 || n == len(rest) {
			return 0, 0, false
		}
		rest = rest[n:]
	}

	sec = daysSinceEpoch(year, month, day)*86400 + int64(hour*3600+minute*60+second)
	switch {
	case len(rest) == 1 && rest[0]|0x20 == 'z':
		return sec, nsec, true
	case len(rest) == 6 && (rest[0] == '+' || rest[0] == '-') && rest[3] == ':':
		h, m := digits2(rest[1], rest[2]), digits2(rest[4], rest[5])
		if h > 23 || m > 59 {
			return 0, 0, false
		}
		offset := int64(h*3600 + m*60)
		if rest[0] == '+' {
			offset = -offset
		}
		return sec + offset, nsec, true
	}
	return 0, 0, false
}

// FirstYear and LastYear bound the time of every event and every time in the data of company and subscription events, in UTC. Offsets and a period's length added to a time
// between them give years of four digits, which is all that RFC 3339 can write.
const (
	FirstYear = 2000
	LastYear  = 9998

	firstSecond = 946_684_800     // of FirstYear, since the Unix epoch
	endSecond   = 253_370_764_800 // of the year after LastYear
)

// ValidTime reports whether a time may stand in an event: it lies in the years FirstYear to LastYear, in UTC.
func ValidTime(t time.Time) bool { return inRange(t) }

// inRange reports whether a time lies in the years that this service keeps.
func inRange(t time.Time) bool {
	sec := t.Unix()
	return sec >= firstSecond && sec < endSecond
}

// notDigits is what digits2 gives for anything but two digits: large enough to fail every bound, even as a century.
const notDigits = 1 << 20

func digits2(a, b byte) uint32 {
	a, b = a-'0', b-'0'
	if a > 9 || b > 9 {
		return notDigits
	}
	return uint32(a)*10 + uint32(b)
}

// daysIn gives the days of a month from 1 to 12.
func daysIn(year, month uint32) uint32 {
	if month == 2 {
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 30 + (month+month>>3)&1
}

// daysSinceEpoch counts from 1970-01-01 in the proleptic Gregorian calendar. Years run from March, so that the leap
// day is the last of its year (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
func daysSinceEpoch(year, month, day uint32) int64 {
	y := int64(year)
	if month <= 2 {
		y--
		month += 12
	}
	// One era of 400 years is added and taken off again, which keeps the divisions on positive numbers for year 0.
	y += 400
	dayOfYear := int64((153*(month-3)+2)/5 + day - 1)
	return 365*y + y/4 - y/100 + y/400 + dayOfYear - 719468 - 146097
}

// yearMonth gives the UTC year and month (1 to 12) of a time in milliseconds since the Unix epoch, the inverse of
// daysSinceEpoch. It is right from year 0 on.
func yearMonth(ms int64) (year, month int) {
	days := ms / 86_400_000
	if ms%86_400_000 < 0 {
		days--
	}
	z := days + 719468
	era := z / 146097
	if z < 0 {
		era = (z - 146096) / 146097
	}
	dayOfEra := z - era*146097
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36524 - dayOfEra/146096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	m := (5*dayOfYear + 2) / 153
	year = int(yearOfEra + era*400)
	if m < 10 {
		return year, int(m) + 3
	}
	return year + 1, int(m) - 9
}
