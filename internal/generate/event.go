package generate

import (
	"strconv"
	"time"
)

// An Event is one usage event as its sender means it: what the row must hold, and how it is written down.
type Event struct {
	Number uint64

	Company, User, Tier, Service, Source int // indexes; of the last three into Tiers, Services and Sources
	endpoint, symbol                     int

	Timestamp  int64 // ms since the epoch
	Time       int64 // ms since the epoch, the CloudEvents time
	DataPoints uint32
	Processing int64 // thousandths of a millisecond
	Revenue    int64 // millionths
	Period     int32 // year*12 + month-1

	seed uint64
	writing
}

// writing are the freedoms the contract leaves to a sender, none of which changes the row.
type writing struct {
	Structured      bool // in structured content mode, else in binary
	keyIsUser       bool // the record's key is the user_id, else the company_id
	oddID           bool // the id has quotes, backslashes, other scripts
	borrowedID      bool // the id is that of the event before it, with another source
	omitTimestamp   bool // it is the CloudEvents time
	omitPeriod      bool // it is the month of the timestamp
	omitRevenue     bool // it is 0
	numericRevenue  bool // a JSON number instead of a string
	localTime       bool // timestamp written with an offset of +02:00
	Traced          bool // has a traceparent
	unknownField    bool // has a field the schema does not know
	extraWhitespace bool
}

// The vocabulary of the traffic. Tiers are in the order of upgrades.
var (
	Tiers    = [...]string{"free", "pro", "enterprise"}
	Services = [...]string{"market-data", "signal-engine", "backtesting", "notification", "reporting", "data-bridge"}
	paths    = [...]string{"/v1/ticks/", "/v1/candles/", "/v1/orders/", "/v1/signals/"}
	symbols  = [...]string{"EURUSD", "GBPUSD", "USDJPY", "AUDUSD", "XAUUSD", "BTCUSD", "ETHUSD", "US500"}
	Sources  = [...]string{"/data-bridge/eu-1", "/data-bridge/us-1", "/data-bridge/ap-1", "urn:trading:gateway"}
	oddities = [...]string{"o'brien", `back\slash`, `"quoted"`, "größe", "事件", "a b", "🦉", "100%", "`tick`", "$1; --"}
)

// event makes the event with this number. It is a pure function of seed and number.
func (c *Usage) event(number uint64) Event {
	r := randomOf(c.Seed, number)
	e := Event{Number: number, seed: c.Seed}

	e.Company = r.skewed(c.Companies)
	e.User = r.skewed(c.UsersPerCompany)
	e.Source = e.Company % len(Sources)
	e.Service = r.skewed(len(Services))
	e.endpoint = r.below(len(paths))
	e.symbol = r.below(len(symbols))
	e.Tier = c.tierOf(e.Company, number)

	base := c.Start.UnixMilli() + int64(float64(number)*float64(c.Step)/float64(time.Millisecond))
	e.Time = base
	e.Timestamp = base - int64(r.below(2000)) // it happened shortly before it was reported
	if r.chance(c.Late) && c.LateSpan > 0 {
		e.Timestamp -= int64(r.unit() * float64(c.LateSpan.Milliseconds()))
	}

	e.DataPoints = uint32(r.heavyTailed(21))
	e.Processing = r.heavyTailed(26) // up to a minute
	e.writing = c.writing(&r, e.Company)
	e.borrowedID = e.borrowedID && !e.oddID && number > 0
	if e.borrowedID {
		before := randomOf(c.Seed, number-1)
		e.Source = (before.skewed(c.Companies) + 1) % len(Sources) // another than that event's
	}
	if !e.omitRevenue {
		e.Revenue = int64(e.DataPoints) * int64(10+e.Tier*5)
	}
	if e.omitTimestamp {
		e.Timestamp = e.Time
	}
	e.Period = monthOf(e.Timestamp)
	if !e.omitPeriod && r.chance(0.01) {
		e.Period-- // booked into the month before
	}
	return e
}

func (c *Usage) writing(r *random, company int) writing {
	bits := r.next()
	oneIn := func(n uint64) bool { // n is a power of two; takes its bits off
		hit := bits%n == 0
		bits /= n
		return hit
	}
	w := writing{keyIsUser: company%2 == 1}
	w.Structured = r.chance(c.Structured)
	w.oddID = oneIn(512)
	w.borrowedID = oneIn(512)
	w.omitTimestamp = oneIn(32)
	w.omitPeriod = oneIn(4)
	w.omitRevenue = oneIn(32)
	w.numericRevenue = oneIn(8)
	w.localTime = oneIn(64)
	w.Traced = oneIn(16)
	w.unknownField = oneIn(64)
	w.extraWhitespace = oneIn(128)
	return w
}

// tierOf says which tier a company has when the event with this number is made: a tenth of the companies rise by one
// at some point of the stream.
func (c *Usage) tierOf(company int, number uint64) int {
	r := randomOf(c.Seed^0x7469657273, uint64(company))
	tier := r.skewed(len(Tiers))
	if r.chance(0.1) && tier+1 < len(Tiers) && float64(number) > r.unit()*float64(c.Count) {
		tier++
	}
	return tier
}

// conflicting returns the event with its identity, key and timestamp unchanged and other data.
func (e Event) conflicting() Event {
	e.DataPoints ^= 1
	e.Revenue += 1_000_000
	e.omitRevenue = false
	return e
}

func monthOf(ms int64) int32 {
	year, month, _ := time.UnixMilli(ms).UTC().Date()
	return int32(year*12 + int(month) - 1)
}

// AppendCompanyID and the following write one attribute of an event. What they write for two different events differs
// exactly where the indexes differ.
//
// Companies and users are called as package tenantmodel calls them, so that the traffic of one is about companies of the other.
func AppendCompanyID(b []byte, company int) []byte {
	return appendPadded(append(b, 'c'), int64(company), 5)
}

// AppendUserID writes the id of a user.
func AppendUserID(b []byte, company, user int) []byte {
	b = append(AppendCompanyID(b, company), "-u"...)
	return appendPadded(b, int64(user)+1, 6)
}

// AppendSource writes the CloudEvents source.
func (e *Event) AppendSource(b []byte) []byte { return append(b, Sources[e.Source]...) }

// AppendID writes the CloudEvents id: a version 4 UUID made of seed and number, or one that is harder to carry.
func (e *Event) AppendID(b []byte) []byte {
	if e.oddID {
		b = append(b, oddities[e.Number%uint64(len(oddities))]...)
		b = append(b, '-')
		b = strconv.AppendUint(b, e.seed, 10)
		b = append(b, '-')
		return strconv.AppendUint(b, e.Number, 10)
	}
	number := e.Number
	if e.borrowedID {
		number--
	}
	r := randomOf(e.seed^0x6964656e74697479, number)
	high, low := r.next(), r.next()
	high = high&^0xf000 | 0x4000
	low = low&^(0xc0<<56) | 0x80<<56
	b = AppendHex(b, high>>32, 8)
	b = append(b, '-')
	b = AppendHex(b, high>>16&0xffff, 4)
	b = append(b, '-')
	b = AppendHex(b, high&0xffff, 4)
	b = append(b, '-')
	b = AppendHex(b, low>>48, 4)
	b = append(b, '-')
	return AppendHex(b, low&(1<<48-1), 12)
}
