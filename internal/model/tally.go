package model

import (
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"tenantflow/internal/generate"
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

func hourKey(e *generate.Event) uint64 {
	key := uint64(e.Company)
	key = key<<tierBits | uint64(e.Tier)
	key = key<<serviceBits | uint64(e.Service)
	return key<<timeBits | uint64(e.Timestamp/time.Hour.Milliseconds())
}

// userKey packs company (20 bits), user, tier and a day or month number of at most 16 bits.
func userKey(e *generate.Event, period int64) uint64 {
	key := uint64(e.Company)
	key = key<<userBits | uint64(e.User)
	key = key<<tierBits | uint64(e.Tier)
	return key<<timeBits | uint64(period)
}

func (t *tally) add(e *generate.Event) {
	t.rows++
	b := e.AppendSource(t.text[:0])
	b = append(b, '\n')
	b = e.AppendID(b)
	t.identities += Fingerprint(xxhash.Sum64(b))
	b = appendContent(b, e)
	t.contents += Fingerprint(xxhash.Sum64(b))
	t.text = b

	full := Sums{Rows: 1, DataPoints: int64(e.DataPoints), Processing: e.Processing, Revenue: e.Revenue, Last: e.Timestamp}
	t.total.add(full)
	hour, day := full, full
	hour.Last, day.Processing = 0, 0
	t.hourly.at(hourKey(e)).add(hour)
	t.daily.at(userKey(e, e.Timestamp/(24*time.Hour).Milliseconds())).add(day)
	t.monthly.at(userKey(e, int64(e.Period))).add(day)
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
		b = generate.AppendCompanyID(b[:0], int(key>>(timeBits+serviceBits+tierBits)))
		b = append(b, '|')
		b = append(b, generate.Tiers[key>>(timeBits+serviceBits)&(1<<tierBits-1)]...)
		b = append(b, '|')
		b = append(b, generate.Services[key>>timeBits&(1<<serviceBits-1)]...)
		b = append(b, '|')
		b = generate.AppendTime(b, int64(key&timeMask)*time.Hour.Milliseconds())
		b = b[:len(b)-len(":00:00.000Z")]
		tables.Hourly[string(b)] = t.hourly.sums[i]
	}
	for key, i := range t.daily.index {
		b = appendUserKey(b[:0], key)
		b = generate.AppendTime(b, int64(key&timeMask)*(24*time.Hour).Milliseconds())
		b = b[:len(b)-len("T00:00:00.000Z")]
		tables.Daily[string(b)] = t.daily.sums[i]
	}
	for key, i := range t.monthly.index {
		b = appendUserKey(b[:0], key)
		b = generate.AppendPeriod(b, int32(key&timeMask))
		tables.Monthly[string(b)] = t.monthly.sums[i]
	}
	return tables
}

func appendUserKey(b []byte, key uint64) []byte {
	company := int(key >> (timeBits + tierBits + userBits))
	user := int(key >> (timeBits + tierBits) & (1<<userBits - 1))
	b = generate.AppendCompanyID(b, company)
	b = append(b, '|')
	b = generate.AppendUserID(b, company, user)
	b = append(b, '|')
	b = append(b, generate.Tiers[key>>timeBits&(1<<tierBits-1)]...)
	return append(b, '|')
}

// appendContent writes all that a row has from its event, behind the identity. rowText is the same in SQL.
func appendContent(b []byte, e *generate.Event) []byte {
	b = append(b, '\n')
	b = generate.AppendUserID(b, e.Company, e.User)
	b = append(b, '\n')
	b = generate.AppendCompanyID(b, e.Company)
	b = append(b, '\n')
	b = appendInt(b, e.Timestamp)
	b = append(b, '\n')
	b = append(b, generate.Tiers[e.Tier]...)
	b = append(b, '\n')
	b = append(b, generate.Services[e.Service]...)
	b = append(b, '\n')
	b = e.AppendEndpoint(b)
	b = append(b, '\n')
	b = appendInt(b, int64(e.DataPoints))
	b = append(b, '\n')
	b = appendInt(b, e.Processing)
	b = append(b, '\n')
	b = generate.AppendPeriod(b, e.Period)
	b = append(b, '\n')
	return appendInt(b, e.Revenue)
}

func appendInt(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }
