package generate

import (
	"strconv"
	"time"

	"tenantflow/events"
)

// AppendData writes the event's data: a JSON object in the order of the schema.
func (e *Event) AppendData(b []byte) []byte {
	b = append(b, `{"company_id":"`...)
	b = AppendCompanyID(b, e.Company)
	b = append(b, `","user_id":"`...)
	b = AppendUserID(b, e.Company, e.User)
	b = append(b, `","subscription_tier":"`...)
	b = append(b, Tiers[e.Tier]...)
	b = append(b, `","service_name":"`...)
	b = append(b, Services[e.Service]...)
	b = append(b, `","api_endpoint":"`...)
	b = e.AppendEndpoint(b)
	b = append(b, `","data_points_consumed":`...)
	if e.extraWhitespace {
		b = append(b, " \t "...)
	}
	b = strconv.AppendUint(b, uint64(e.DataPoints), 10)
	b = append(b, `,"processing_time_ms":`...)
	b = AppendDecimal(b, e.Processing, 3)
	if !e.omitTimestamp {
		b = append(b, `,"timestamp":"`...)
		if e.localTime {
			b = AppendTime(b, e.Timestamp+2*time.Hour.Milliseconds())
			b = append(b[:len(b)-1], "+02:00"...)
		} else {
			b = AppendTime(b, e.Timestamp)
		}
		b = append(b, '"')
	}
	if !e.omitPeriod {
		b = append(b, `,"billing_period":"`...)
		b = AppendPeriod(b, e.Period)
		b = append(b, '"')
	}
	switch {
	case e.omitRevenue:
	case e.numericRevenue:
		b = append(b, `,"revenue_attributed":`...)
		b = AppendDecimal(b, e.Revenue, 6)
	default:
		b = append(b, `,"revenue_attributed":"`...)
		b = AppendDecimal(b, e.Revenue, 6)
		b = append(b, '"')
	}
	if e.unknownField {
		b = append(b, `,"region":{"name":"eu-1","zones":[1,2]}`...)
	}
	return append(b, '}')
}

// AppendEndpoint writes the api_endpoint.
func (e *Event) AppendEndpoint(b []byte) []byte {
	b = append(b, paths[e.endpoint]...)
	return append(b, symbols[e.symbol]...)
}

// AppendKey writes the key of the record.
func (e *Event) AppendKey(b []byte) []byte {
	if e.keyIsUser {
		return AppendUserID(b, e.Company, e.User)
	}
	return AppendCompanyID(b, e.Company)
}

// AppendTraceparent writes the extension of that name.
func (e *Event) AppendTraceparent(b []byte) []byte {
	b = append(b, "00-"...)
	b = AppendHex(b, e.Number*0x9e3779b97f4a7c15|1, 16)
	b = AppendHex(b, e.Number, 16)
	b = append(b, '-')
	b = AppendHex(b, e.Number|1, 16)
	return append(b, "-01"...)
}

// AppendStructured writes the whole event as one JSON object. With partitionKey it also carries the record's key, as
// the extension of that name: the form of the JSON lines that generate writes and produce reads.
func (e *Event) AppendStructured(b []byte, partitionKey bool) []byte {
	b = append(b, `{"specversion":"1.0","id":`...)
	b = AppendString(b, e.AppendID(nil))
	b = append(b, `,"source":"`...)
	b = e.AppendSource(b)
	b = append(b, `","type":"`...)
	b = append(b, events.TypeUsageRecorded...)
	b = append(b, `","time":"`...)
	b = AppendTime(b, e.Time)
	b = append(b, `","datacontenttype":"application/json"`...)
	if e.Traced {
		b = append(b, `,"traceparent":"`...)
		b = e.AppendTraceparent(b)
		b = append(b, '"')
	}
	if partitionKey {
		b = append(b, `,"partitionkey":"`...)
		b = e.AppendKey(b)
		b = append(b, '"')
	}
	b = append(b, `,"data":`...)
	b = e.AppendData(b)
	return append(b, '}')
}

// AppendString writes a JSON string. The ids made here have no control characters.
func AppendString(b, s []byte) []byte {
	b = append(b, '"')
	for _, c := range s {
		if c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return append(b, '"')
}

// AppendTime writes milliseconds since the epoch as RFC 3339 in UTC with three decimals.
func AppendTime(b []byte, ms int64) []byte {
	t := time.UnixMilli(ms).UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = appendPadded(b, int64(year), 4)
	b = append(b, '-')
	b = appendPadded(b, int64(month), 2)
	b = append(b, '-')
	b = appendPadded(b, int64(day), 2)
	b = append(b, 'T')
	b = appendPadded(b, int64(hour), 2)
	b = append(b, ':')
	b = appendPadded(b, int64(minute), 2)
	b = append(b, ':')
	b = appendPadded(b, int64(second), 2)
	b = append(b, '.')
	b = appendPadded(b, (ms%1000+1000)%1000, 3)
	return append(b, 'Z')
}

// AppendPeriod writes a month, given as year*12 + month-1.
func AppendPeriod(b []byte, period int32) []byte {
	b = appendPadded(b, int64(period/12), 4)
	b = append(b, '-')
	return appendPadded(b, int64(period%12+1), 2)
}

// AppendDecimal writes n / 10^scale, without a fraction where it is zero.
func AppendDecimal(b []byte, n int64, scale int) []byte {
	divisor := int64(1)
	for range scale {
		divisor *= 10
	}
	b = strconv.AppendInt(b, n/divisor, 10)
	if n%divisor == 0 {
		return b
	}
	b = append(b, '.')
	return appendPadded(b, n%divisor, scale)
}

// appendPadded writes n >= 0 with at least width digits.
func appendPadded(b []byte, n int64, width int) []byte {
	var digits [20]byte
	i := len(digits)
	for ; n > 0 || width > 0; width-- {
		i--
		digits[i] = byte('0' + n%10)
		n /= 10
	}
	return append(b, digits[i:]...)
}

// AppendHex writes the last digits of n.
func AppendHex(b []byte, n uint64, width int) []byte {
	const digits = "0123456789abcdef"
	for shift := (width - 1) * 4; shift >= 0; shift -= 4 {
		b = append(b, digits[n>>shift&15])
	}
	return b
}
