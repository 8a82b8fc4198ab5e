package events

import "math"

// The members of a usage event's data, as bits of what has been seen.
const (
	hasCompany = 1 << iota
	hasUser
	hasTier
	hasService
	hasEndpoint
	hasDataPoints
	hasProcessingTime

	hasAllRequired = 1<<iota - 1
)

// noTimestamp stands in a Usage whose data has none, until the envelope is read.
const noTimestamp = math.MinInt64

// object reads the data at i: a JSON object, depth levels deep, members in any order, unknown ones skipped. It fills u,
// but for the attributes and the defaults that depend on them, and gives bad when something is not as the schema wants
// it, whatever that is.
func (d *UsageDecoder) object(text []byte, i, depth int, u *Usage) (next int) {
	u.Timestamp, u.BillingPeriod, u.Revenue = noTimestamp, nil, 0
	u.ReservationID = nil
	if i >= len(text) || text[i] != '{' {
		return bad
	}
	seen := 0
	at := outside
	for {
		if at, i = d.member(text, i+1, at); i == bad {
			return bad // also for {}, which lacks what is required
		}
		switch at {
		case companyID:
			u.CompanyID, i = d.text(text, i)
			if !isID(u.CompanyID) {
				return bad
			}
			seen |= hasCompany
		case userID:
			u.UserID, i = d.text(text, i)
			if !isID(u.UserID) {
				return bad
			}
			seen |= hasUser
		case subscriptionTier:
			u.Tier, i = d.text(text, i)
			if !isTier(u.Tier) {
				return bad
			}
			seen |= hasTier
		case serviceName:
			u.Service, i = d.text(text, i)
			seen |= hasService
		case apiEndpoint:
			u.Endpoint, i = d.text(text, i)
			seen |= hasEndpoint
		case dataPoints:
			var points int64
			var rest remainder
			points, rest, i = d.amount(text, i, 0)
			if points > maxDataPoints || rest != nothing {
				return bad
			}
			u.DataPoints = uint32(points)
			seen |= hasDataPoints
		case processingTime:
			var rest remainder
			u.ProcessingTime, rest, i = d.amount(text, i, 3)
			if rest != nothing && u.ProcessingTime == maxFixed {
				return bad
			}
			if rest == halfOrUp {
				u.ProcessingTime++
			}
			seen |= hasProcessingTime
		case timestamp:
			var stamp []byte
			stamp, i = d.text(text, i)
			sec, nsec, ok := parseRFC3339(stamp)
			if !ok {
				return bad
			}
			u.Timestamp = sec*1000 + int64(nsec/1_000_000)
		case billingPeriod:
			u.BillingPeriod, i = d.text(text, i)
			if !isMonth(u.BillingPeriod) {
				return bad
			}
		case revenueAttributed:
			var ok bool
			if u.Revenue, i, ok = d.revenue(text, i); !ok {
				return bad
			}
		case reservationID:
			u.ReservationID, i = d.reservation(text, i, depth)
		default:
			i = d.scan.skip(text, i, depth)
		}
		if i == bad {
			return bad
		}
		if i = skipSpace(text, i); i >= len(text) {
			return bad
		}
		if text[i] == '}' {
			break
		}
		if text[i] != ',' {
			return bad
		}
	}
	if seen != hasAllRequired {
		return bad
	}
	return i + 1
}

// defaults fills in what the data may leave out.
func (d *UsageDecoder) defaults(u *Usage, envelopeTime int64) {
	if u.Timestamp == noTimestamp {
		u.Timestamp = envelopeTime
	}
	if u.BillingPeriod == nil {
		u.BillingPeriod = appendBillingPeriod(d.period[:0], u.Timestamp)
	}
}

// text reads a value that has to be a string.
func (d *UsageDecoder) text(text []byte, i int) (value []byte, next int) {
	if text[i] != '"' {
		return nil, bad
	}
	return d.scan.str(text, i+1)
}

// maxDataPoints is the largest data_points_consumed, that of a ClickHouse UInt32.
const maxDataPoints = 1<<32 - 1

// amount reads a value that has to be a number of at least 0, in units of 10^-decimals.
func (d *UsageDecoder) amount(text []byte, i, decimals int) (value int64, rest remainder, next int) {
	// Nearly every number is a few digits, perhaps with a point: read it as it is checked.
	j := i
	for j < len(text) && text[j]-'0' <= 9 {
		value = value*10 + int64(text[j]-'0')
		j++
	}
	plain := j > i && j-i <= 12 && (text[i] != '0' || j == i+1)
	missing := decimals
	if plain && j < len(text) && text[j] == '.' && missing > 0 {
		j++
		first := j
		for j < len(text) && text[j]-'0' <= 9 && missing > 0 {
			value = value*10 + int64(text[j]-'0')
			missing--
			j++
		}
		plain = j > first
	}
	if plain && j < len(text) && (text[j] == ',' || text[j] == '}' || text[j] <= ' ') {
		for ; missing > 0; missing-- {
			value *= 10
		}
		return value, nothing, j
	}

	end := numberEnd(text, i)
	if end == bad {
		return 0, nothing, bad
	}
	value, rest, ok := fixedPoint(text[i:end], decimals)
	if !ok {
		return 0, nothing, bad
	}
	return value, rest, end
}

// revenue reads revenue_attributed: a decimal string of at most 12 digits, a point and 6 digits that may be followed by zeros, or a
// number that has an exact value in millionths.
func (d *UsageDecoder) revenue(text []byte, i int) (value int64, next int, ok bool) {
	if text[i] != '"' {
		value, rest, next := d.amount(text, i, 6)
		return value, next, next != bad && rest == nothing
	}
	s, next := d.scan.str(text, i+1)
	if next == bad {
		return 0, bad, false
	}
	whole := digitsEnd(s, 0)
	if whole < 1 || whole > 12 {
		return 0, bad, false
	}
	for _, c := range s[:whole] {
		value = value*10 + int64(c-'0')
	}
	missing := 6
	if whole < len(s) {
		end := digitsEnd(s, whole+1)
		if s[whole] != '.' || end != len(s) || end == whole+1 {
			return 0, bad, false
		}
		for end > whole+7 && s[end-1] == '0' {
			end--
		}
		decimals := end - whole - 1
		if decimals > 6 {
			return 0, bad, false
		}
		for _, c := range s[whole+1 : end] {
			value = value*10 + int64(c-'0')
		}
		missing -= decimals
	}
	return value * pow10(int64(missing)), next, true
}

// reservation reads reservation_id. What can't be one is left out: usage is not given up because of a hold that ends by itself.
func (d *UsageDecoder) reservation(text []byte, i, depth int) (id []byte, next int) {
	if text[i] != '"' {
		return nil, d.scan.skip(text, i, depth)
	}
	if id, next = d.scan.str(text, i+1); next == bad || !isReservationID(id) {
		id = nil
	}
	return id, next
}

// ValidReservationID reports whether s is a reservation_id: [A-Za-z0-9_-]{1,64}.
func ValidReservationID(s string) bool { return isReservationID([]byte(s)) }

func isReservationID(s []byte) bool { return len(s)-1 < 64 && len(s) > 0 && isName(s) }

// ValidID reports whether s is a company_id or user_id: [A-Za-z0-9_-]{1,50}.
func ValidID(s string) bool { return isID([]byte(s)) }

func isID(s []byte) bool {
	return len(s)-1 < 50 && len(s) > 0 && isName(s)
}

func isName(s []byte) bool {
	for _, c := range s {
		if c|0x20-'a' > 25 && c-'0' > 9 && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// ValidTier reports whether s is the name of a tier: [a-z0-9_-]{1,20}.
func ValidTier(s string) bool { return isTier([]byte(s)) }

// ValidMonth reports whether s is a billing_period: YYYY-MM.
func ValidMonth(s string) bool { return isMonth([]byte(s)) }

// isTier is the pattern [a-z0-9_-]{1,20} of subscription_tier.
func isTier(s []byte) bool {
	if len(s) > 20 || len(s) == 0 {
		return false
	}
	for _, c := range s {
		if c-'a' > 25 && c-'0' > 9 && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// isMonth is the pattern YYYY-MM of billing_period.
func isMonth(s []byte) bool {
	return len(s) == 7 && s[4] == '-' && digits2(s[0], s[1]) < 100 && digits2(s[2], s[3]) < 100 && digits2(s[5], s[6])-1 < 12
}
