package consumers

import (
	"encoding/binary"
	"errors"
	"time"

	"tenantflow/events"
)

// quotaBatch is the range being read, by user and company, UTC day and bucket of the records' times.
type quotaBatch struct {
	partition *quotaPartition
	groups    []quotaGroup
	entries   []quotaEntry
	index     map[string]int32 // of groups, by their packed key
	held      int64            // bytes of the groups

	usage        events.Usage // scratch
	key          []byte       // scratch
	clock        Clock
	added        int
	undecodable  int // dead letters of the usage consumer
	late, before int // not counted: the day is over for good, or before what can be counted
}

// A quotaGroup is the events of one user for one call. All have one company: a user who sends under two is two groups, one
// of which is refused.
type quotaGroup struct {
	user, company string
	day           int64 // since the Unix epoch
	bucket        int64
	newest        int64 // timestamp of an event, milliseconds since the Unix epoch
	first, last   int32 // of entries, chained
	n             int
}

type quotaEntry struct {
	identity uint64
	offset   int64
	points   uint32
	next     int32
}

const (
	dayMillis  = int64(24 * time.Hour / time.Millisecond)
	entryBytes = 24
	groupBytes = 200
)

// Add decodes a record and puts it to its group. What can't be understood is left to the usage consumer, which writes it
// to the dead letters; what comes too late for its day is not counted.
func (b *quotaBatch) Add(r *events.Record) {
	p := b.partition
	b.added++
	now := b.clock.Now()
	if err := p.decoder.Decode(r, now, &b.usage); err != nil {
		var rejection *events.Rejection
		if errors.As(err, &rejection) {
			b.undecodable++
		}
		return
	}
	day := b.usage.Timestamp / dayMillis
	switch {
	case now.UnixMilli() >= (day+1)*dayMillis+p.lateness:
		b.late++
		return
	case day < p.floor:
		b.before++
		return
	}
	bucket := r.Time.UnixMilli() / p.bucket
	g := b.group(day, bucket)
	at := int32(len(b.entries)) // #nosec G115 -- a batch holds far fewer than 2^31 events
	b.entries = append(b.entries, quotaEntry{identity: b.usage.IdentityHash(), offset: r.Offset, points: b.usage.DataPoints, next: -1})
	if g.n == 0 {
		g.first = at
	} else {
		b.entries[g.last].next = at
	}
	g.last = at
	g.n++
	g.newest = max(g.newest, b.usage.Timestamp)
}

// group finds or makes the group of the event at hand.
func (b *quotaBatch) group(day, bucket int64) *quotaGroup {
	u := &b.usage
	b.key = binary.LittleEndian.AppendUint64(b.key[:0], uint64(day)) // #nosec G115 -- bits
	b.key = binary.LittleEndian.AppendUint64(b.key, uint64(bucket))  // #nosec G115 -- bits
	b.key = append(append(b.key, u.UserID...), 0)
	b.key = append(b.key, u.CompanyID...)
	i, ok := b.index[string(b.key)]
	if !ok {
		key := string(b.key)
		i = int32(len(b.groups)) // #nosec G115 -- as above
		b.index[key] = i
		user := 16 + len(u.UserID)
		b.groups = append(b.groups, quotaGroup{user: key[16:user], company: key[user+1:], day: day, bucket: bucket})
		b.held += groupBytes + int64(len(key))
	}
	return &b.groups[i]
}

func (b *quotaBatch) Close() {}

func (b *quotaBatch) Rows() int { return b.added }

func (b *quotaBatch) Bytes() int64 { return b.held + int64(len(b.entries))*entryBytes }

// of gives the entries of a group in the order of their offsets, each identity once.
func (b *quotaBatch) of(g *quotaGroup, into []quotaEntry) []quotaEntry {
	into = into[:0]
	const few = 16
	var seen map[uint64]struct{}
	if g.n > few {
		seen = make(map[uint64]struct{}, g.n)
	}
next:
	for at := g.first; at >= 0; at = b.entries[at].next {
		e := b.entries[at]
		if seen != nil {
			if _, twice := seen[e.identity]; twice {
				continue
			}
			seen[e.identity] = struct{}{}
		} else {
			for i := range into {
				if into[i].identity == e.identity {
					continue next
				}
			}
		}
		into = append(into, e)
	}
	return into
}
