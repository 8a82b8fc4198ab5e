package model

import (
	"strconv"
	"time"
)

const usageType = "usage.recorded.v1"

// appendData writes the event's data: a JSON object in the order of the schema.
func (e *event) appendData(b []byte) []byte {
	b = append(b, `{"company_id":"`...)
	b = appendCompanyID(b, e.company)
	b = append(b, `","user_id":"`...)
	b = appendUserID(b, e.company, e.user)
	b = append(b, `","subscription_tier":"`...)
	b = append(b, tiers[e.tier]...)
	b = append(b, `","service_name":"`...)
	b = append(b, services[e.service]...)
	b = append(b, `","api_endpoint":"`...)
	b = e.appendEndpoint(b)
	b = append(b, `","data_points_consumed":`...)
	if e.extraWhitespace {
		b = append(b, " \t "...)
	}
	b = strconv.AppendUint(b, uint64(e.dataPoints), 10)
	b = append(b, `,"processing_time_ms":`...)
	b = appendDecimal(b, e.processing, 3)
	if !e.omitTimestamp {
		b = append(b, `,"timestamp":"`...)
		if e.localTime {
			b = appendTime(b, e.timestamp+2*time.Hour.Milliseconds())
			b = append(b[:len(b)-1], "+02:00"...)
		} else {
			b = appendTime(b, e.timestamp)
		}
		b = append(b, '"')
	}
	if !e.omitPeriod {
		b = append(b, `,"billing_period":"`...)
		b = appendPeriod(b, e.period)
		b = append(b, '"')
	}
	switch {
	case e.omitRevenue:
	case e.numericRevenue:
		b = append(b, `,"revenue_attributed":`...)
		b = appendDecimal(b, e.revenue, 6)
	default:
		b = append(b, `,"revenue_attributed":"`...)
		b = appendDecimal(b, e.revenue, 6)
		b = append(b, '"')
	}
	if e.unknownField {
		b = append(b, `,"region":{"name":"eu-1","zones":[1,2]}`...)
	}
	return append(b, '}')
}

func (e *event) appendEndpoint(b []byte) []byte {
	b = append(b, paths[e.endpoint]...)
	return append(b, symbols[e.symbol]...)
}

func (e *event) appendKey(b []byte) []byte {
	if e.keyIsUser {
		return appendUserID(b, e.company, e.user)
	}
	return appendCompanyID(b, e.company)
}

func (e *event) appendTraceparent(b []byte) []byte {
	b = append(b, "00-"...)
	b = appendHex(b, e.number*0x9e3779b97f4a7c15|1, 16)
	b = appendHex(b, e.number, 16)
	b = append(b, '-')
	b = appendHex(b, e.number|1, 16)
	return append(b, "-01"...)
}

// appendStructured writes the whole event as one JSON object. With partitionKey it also carries the record's key, as
// the extension of that name: the form of the JSON lines that generate writes and produce reads.
func (e *event) appendStructured(b []byte, seed uint64, partitionKey bool) []byte {
	b = append(b, `{"specversion":"1.0","id":`...)
	b = appendString(b, e.appendID(nil, seed))
	b = append(b, `,"source":"`...)
	b = e.appendSource(b)
	b = append(b, `","type":"`...)
	b = append(b, usageType...)
	b = append(b, `","time":"`...)
	b = appendTime(b, e.time)
	b = append(b, `","datacontenttype":"application/json"`...)
	if e.traced {
		b = append(b, `,"traceparent":"`...)
		b = e.appendTraceparent(b)
		b = append(b, '"')
	}
	if partitionKey {
		b = append(b, `,"partitionkey":"`...)
		b = e.appendKey(b)
		b = append(b, '"')
	}
	b = append(b, `,"data":`...)
	b = e.appendData(b)
	return append(b, '}')
}

// appendString writes a JSON string. The ids made here have no control characters.
func appendString(b, s []byte) []byte {
	b = append(b, '"')
	for _, c := range s {
		if c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return append(b, '"')
}

// appendTime writes milliseconds since the epoch as RFC 3339 in UTC with three decimals.
func appendTime(b []byte, ms int64) []byte {
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

func appendPeriod(b []byte, period int32) []byte {
	b = appendPadded(b, int64(period/12), 4)
	b = append(b, '-')
	return appendPadded(b, int64(period%12+1), 2)
}

// appendDecimal writes n / 10^scale, without a fraction where it is zero.
func appendDecimal(b []byte, n int64, scale int) []byte {
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

func appendHex(b []byte, n uint64, width int) []byte {
	const digits = "0123456789abcdef"
	for shift := (width - 1) * 4; shift >= 0; shift -= 4 {
		b = append(b, digits[n>>shift&15])
	}
	return b
}
