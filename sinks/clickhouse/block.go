package clickhouse

import (
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"tenantflow/events"
)

// A Block holds usage rows of one contiguous offset range of a partition, column by column, in the order of their
// offsets. It copies what it is given, so a row may be appended from memory that is about to be reused, and Reset
// keeps the memory for the next range.
type Block struct {
	eventID text
	user    text
	company text

	source   dictionary
	tier     dictionary
	service  dictionary
	endpoint dictionary
	period   dictionary

	timestamp  []int64 // milliseconds since the epoch
	points     []uint32
	processing []int64 // thousandths of a millisecond
	revenue    []int64 // millionths
	offset     []int64
	identity   []uint64 // events.IdentityHash

	voids     map[int]voided // by row: those that take usage back
	voidBytes int64

	dropped []bool
	live    int
	months  months
}

// NewBlock returns an empty block.
func NewBlock() *Block { return &Block{} }

// Append copies one row into the block. Offsets must rise from row to row.
func (b *Block) Append(u *events.Usage, identity uint64, offset int64) {
	if len(b.offset) == cap(b.offset) {
		b.double()
	}
	b.eventID.append(u.ID)
	b.user.append(u.UserID)
	b.company.append(u.CompanyID)
	b.source.append(u.Source)
	b.tier.append(u.Tier)
	b.service.append(u.Service)
	b.endpoint.append(u.Endpoint)
	b.period.append(u.BillingPeriod)
	b.timestamp = append(b.timestamp, u.Timestamp)
	b.points = append(b.points, u.DataPoints)
	b.processing = append(b.processing, u.ProcessingTime)
	b.revenue = append(b.revenue, u.Revenue)
	b.offset = append(b.offset, offset)
	b.identity = append(b.identity, identity)
	b.dropped = append(b.dropped, false)
	b.live++
	if u.Voids != nil {
		b.appendVoid(u.Voids)
	}
}

// double makes room for as many rows again. Left to append, which adds a quarter at a time, a block that fills for the
// first time would be copied several times over.
func (b *Block) double() {
	n := max(1024, len(b.offset))
	for _, t := range []*text{&b.eventID, &b.user, &b.company} {
		t.bytes = slices.Grow(t.bytes, max(16*n, len(t.bytes)))
		t.ends = slices.Grow(t.ends, n)
	}
	for _, d := range []*dictionary{&b.source, &b.tier, &b.service, &b.endpoint, &b.period} {
		d.keys = slices.Grow(d.keys, n)
	}
	b.timestamp = slices.Grow(b.timestamp, n)
	b.points = slices.Grow(b.points, n)
	b.processing = slices.Grow(b.processing, n)
	b.revenue = slices.Grow(b.revenue, n)
	b.identity = slices.Grow(b.identity, n)
	b.dropped = slices.Grow(b.dropped, n)
	b.offset = slices.Grow(b.offset, n)
}

// Len is the number of rows appended, dropped ones included.
func (b *Block) Len() int { return len(b.offset) }

// Live is the number of rows not dropped.
func (b *Block) Live() int { return b.live }

// LiveIn is the number of the rows first..last-1 that are not dropped.
func (b *Block) LiveIn(first, last int) int {
	n := 0
	for _, dropped := range b.dropped[first:last] {
		if !dropped {
			n++
		}
	}
	return n
}

// Bytes is the memory the rows take, in bytes; the budget of held rows counts it.
func (b *Block) Bytes() int64 {
	const fixed = 8*5 + 4 + 1 + 3*4 + 5*4 // numbers, the drop mark, ends of texts, dictionary keys
	n := len(b.eventID.bytes) + len(b.user.bytes) + len(b.company.bytes) + len(b.offset)*fixed
	for _, d := range []*dictionary{&b.source, &b.tier, &b.service, &b.endpoint, &b.period} {
		n += len(d.values.bytes)
	}
	return int64(n) + b.voidBytes
}

// Reset empties the block and keeps its memory.
func (b *Block) Reset() {
	b.eventID.reset()
	b.user.reset()
	b.company.reset()
	b.source.reset()
	b.tier.reset()
	b.service.reset()
	b.endpoint.reset()
	b.period.reset()
	b.timestamp = b.timestamp[:0]
	b.points = b.points[:0]
	b.processing = b.processing[:0]
	b.revenue = b.revenue[:0]
	b.offset = b.offset[:0]
	b.identity = b.identity[:0]
	b.dropped = b.dropped[:0]
	b.live = 0
	clear(b.voids)
	b.voidBytes = 0
}

// Offset is the place of row i in its partition.
func (b *Block) Offset(i int) int64 { return b.offset[i] }

// Timestamp is the time of row i in milliseconds since the epoch.
func (b *Block) Timestamp(i int) int64 { return b.timestamp[i] }

// Identity is the identity hash of row i.
func (b *Block) Identity(i int) uint64 { return b.identity[i] }

// Drop takes row i out of what will be inserted: it is a duplicate, or it went to the dead letters.
func (b *Block) Drop(i int) {
	if !b.dropped[i] {
		b.dropped[i] = true
		b.live--
	}
}

// Dropped reports whether row i was taken out.
func (b *Block) Dropped(i int) bool { return b.dropped[i] }

// SameEvent reports whether two rows carry the same identity, compared in full and not by hash.
func (b *Block) SameEvent(i, j int) bool {
	return b.identity[i] == b.identity[j] &&
		string(b.eventID.at(i)) == string(b.eventID.at(j)) &&
		string(b.source.at(i)) == string(b.source.at(j))
}

// SameContent reports whether two rows agree in everything that is stored but their place in the log.
func (b *Block) SameContent(i, j int) bool {
	return b.timestamp[i] == b.timestamp[j] &&
		b.points[i] == b.points[j] &&
		b.processing[i] == b.processing[j] &&
		b.revenue[i] == b.revenue[j] &&
		string(b.user.at(i)) == string(b.user.at(j)) &&
		string(b.company.at(i)) == string(b.company.at(j)) &&
		b.tier.keys[i] == b.tier.keys[j] &&
		b.service.keys[i] == b.service.keys[j] &&
		b.endpoint.keys[i] == b.endpoint.keys[j] &&
		b.period.keys[i] == b.period.keys[j] &&
		b.voids[i] == b.voids[j]
}

// A part is the rows of a block that go into one month partition, in one insert.
type part struct {
	Part
	rows []int32
}

// parts splits the live rows among first..last-1 by month. ClickHouse commits one block into one partition
// atomically; a block over two partitions would be two commits and could be cut in half by a crash.
func (b *Block) parts(first, last int) []part {
	var ps []part
	index := map[int]int{}
	digests := []*xxhash.Digest{}
	for i := first; i < last; i++ {
		if b.dropped[i] {
			continue
		}
		m := b.months.of(b.timestamp[i])
		k, ok := index[m]
		if !ok {
			k = len(ps)
			index[m] = k
			ps = append(ps, part{Part: Part{Month: m}})
			digests = append(digests, xxhash.New())
		}
		ps[k].rows = append(ps[k].rows, int32(i)) // #nosec G115 -- a block holds far fewer than 2^31 rows
		hashIdentity(digests[k], b.identity[i])
	}
	for k := range ps {
		ps[k].Hash = digests[k].Sum64()
	}
	return ps
}

func hashIdentity(d *xxhash.Digest, identity uint64) {
	var buf [8]byte
	for i := range buf {
		buf[i] = byte(identity >> (8 * i))
	}
	_, _ = d.Write(buf[:]) // never fails
}

// text is a column of byte strings in one buffer: value i ends at ends[i].
type text struct {
	bytes []byte
	ends  []uint32
}

func (t *text) append(v []byte) {
	t.bytes = append(t.bytes, v...)
	t.ends = append(t.ends, uint32(len(t.bytes))) // #nosec G115 -- the row budget keeps a block far below 4 GiB
}

func (t *text) at(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = t.ends[i-1]
	}
	return t.bytes[start:t.ends[i]]
}

func (t *text) reset() {
	t.bytes = t.bytes[:0]
	t.ends = t.ends[:0]
}

// dictionary is a column of few different values: each is kept once, a row is a key into them.
type dictionary struct {
	values text
	index  map[string]uint32
	keys   []uint32
	last   uint32 // key of the newest row: neighbours are often alike
}

func (d *dictionary) append(v []byte) {
	if len(d.keys) > 0 && string(d.values.at(int(d.last))) == string(v) {
		d.keys = append(d.keys, d.last)
		return
	}
	key, ok := d.index[string(v)]
	if !ok {
		if d.index == nil {
			d.index = make(map[string]uint32)
		}
		key = uint32(len(d.values.ends)) // #nosec G115 -- at most one per row
		d.values.append(v)
		d.index[string(v)] = key
	}
	d.last = key
	d.keys = append(d.keys, key)
}

func (d *dictionary) at(i int) []byte { return d.values.at(int(d.keys[i])) }

func (d *dictionary) reset() {
	d.values.reset()
	clear(d.index)
	d.keys = d.keys[:0]
	d.last = 0
}

// months finds the UTC month of a time, remembering the last one asked for: rows of a batch are mostly of one.
type months struct {
	from, to int64
	month    int
}

func (m *months) of(ms int64) int {
	if ms < m.from || ms >= m.to {
		t := time.UnixMilli(ms).UTC()
		first := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
		m.from, m.to = first.UnixMilli(), first.AddDate(0, 1, 0).UnixMilli()
		m.month = t.Year()*100 + int(t.Month())
	}
	return m.month
}
