package model

import (
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
)

// A tally adds new events up. Its keys are indexes packed into 64 bits; they become text when they are read.
type tally struct {
	rows       int64
	identities Fingerprint
	contents   Fingerprint
	total      Sums

	hourly, daily, monthly sumsByKey
	text                   []byte // scratch
}

// sumsByKey keeps the sums in one slice, so that the map holds no pointers for the garbage collector to follow.
type sumsByKey struct {
	index map[uint64]int32
	sums  []Sums
}

func (s *sumsByKey) at(key uint64) *Sums {
	i, ok := s.index[key]
	if !ok {
		i = int32(len(s.sums))
		s.index[key] = i
		s.sums = append(s.sums, Sums{})
	}
	return &s.sums[i]
}

func newTally() tally {
	empty := func() sumsByKey { return sumsByKey{index: map[uint64]int32{}} }
	return tally{hourly: empty(), daily: empty(), monthly: empty()}
}

// Widths of the parts of packed keys, from the right.
const (
	timeBits    = 22 // hours since the epoch reach the year 2448
	serviceBits = 4
	tierBits    = 2
	userBits    = 20
)

func hourKey(e *event) uint64 {
	key := uint64(e.company)
	key = key<<tierBits | uint64(e.tier)
	key = key<<serviceBits | uint64(e.service)
	return key<<timeBits | uint64(e.timestamp/time.Hour.Milliseconds())
}

// userKey packs company (20 bits), user, tier and a day or month number of at most 16 bits.
func userKey(e *event, period int64) uint64 {
	key := uint64(e.company)
	key = key<<userBits | uint64(e.user)
	key = key<<tierBits | uint64(e.tier)
	return key<<timeBits | uint64(period)
}

func (t *tally) add(e *event, seed uint64) {
	t.rows++
	b := e.appendSource(t.text[:0])
	b = append(b, '\n')
	b = e.appendID(b, seed)
	t.identities += Fingerprint(xxhash.Sum64(b))
	b = e.appendContent(b)
	t.contents += Fingerprint(xxhash.Sum64(b))
	t.text = b

	full := Sums{Rows: 1, DataPoints: int64(e.dataPoints), Processing: e.processing, Revenue: e.revenue, Last: e.timestamp}
	t.total.add(full)
	hour, day := full, full
	hour.Last, day.Processing = 0, 0
	t.hourly.at(hourKey(e)).add(hour)
	t.daily.at(userKey(e, e.timestamp/(24*time.Hour).Milliseconds())).add(day)
	t.monthly.at(userKey(e, int64(e.period))).add(day)
}

func (s *Sums) add(o Sums) {
	s.Rows += o.Rows
	s.DataPoints += o.DataPoints
	s.Processing += o.Processing
	s.Revenue += o.Revenue
	s.Last = max(s.Last, o.Last)
}

// tables renders the keys. The result shares nothing with the tally.
func (t *tally) tables() Tables {
	tables := Tables{
		Rows:       t.rows,
		Identities: t.identities,
		Contents:   t.contents,
		Total:      t.total,
		Hourly:     make(map[string]Sums, len(t.hourly.sums)),
		Daily:      make(map[string]Sums, len(t.daily.sums)),
		Monthly:    make(map[string]Sums, len(t.monthly.sums)),
	}
	const timeMask = 1<<timeBits - 1
	var b []byte
	for key, i := range t.hourly.index {
		b = appendCompanyID(b[:0], int(key>>(timeBits+serviceBits+tierBits)))
		b = append(b, '|')
		b = append(b, tiers[key>>(timeBits+serviceBits)&(1<<tierBits-1)]...)
		b = append(b, '|')
		b = append(b, services[key>>timeBits&(1<<serviceBits-1)]...)
		b = append(b, '|')
		b = appendTime(b, int64(key&timeMask)*time.Hour.Milliseconds())
		b = b[:len(b)-len(":00:00.000Z")]
		tables.Hourly[string(b)] = t.hourly.sums[i]
	}
	for key, i := range t.daily.index {
		b = appendUserKey(b[:0], key)
		b = appendTime(b, int64(key&timeMask)*(24*time.Hour).Milliseconds())
		b = b[:len(b)-len("T00:00:00.000Z")]
		tables.Daily[string(b)] = t.daily.sums[i]
	}
	for key, i := range t.monthly.index {
		b = appendUserKey(b[:0], key)
		b = appendPeriod(b, int32(key&timeMask))
		tables.Monthly[string(b)] = t.monthly.sums[i]
	}
	return tables
}

func appendUserKey(b []byte, key uint64) []byte {
	company := int(key >> (timeBits + tierBits + userBits))
	user := int(key >> (timeBits + tierBits) & (1<<userBits - 1))
	b = appendCompanyID(b, company)
	b = append(b, '|')
	b = appendUserID(b, company, user)
	b = append(b, '|')
	b = append(b, tiers[key>>timeBits&(1<<tierBits-1)]...)
	return append(b, '|')
}

// appendContent writes all that a row has from its event, behind the identity. rowText is the same in SQL.
func (e *event) appendContent(b []byte) []byte {
	b = append(b, '\n')
	b = appendUserID(b, e.company, e.user)
	b = append(b, '\n')
	b = appendCompanyID(b, e.company)
	b = append(b, '\n')
	b = appendInt(b, e.timestamp)
	b = append(b, '\n')
	b = append(b, tiers[e.tier]...)
	b = append(b, '\n')
	b = append(b, services[e.service]...)
	b = append(b, '\n')
	b = e.appendEndpoint(b)
	b = append(b, '\n')
	b = appendInt(b, int64(e.dataPoints))
	b = append(b, '\n')
	b = appendInt(b, e.processing)
	b = append(b, '\n')
	b = appendPeriod(b, e.period)
	b = append(b, '\n')
	return appendInt(b, e.revenue)
}

func appendInt(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }
