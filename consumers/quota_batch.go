package consumers

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"time"

	"tenantflow/events"
)

// quotaBatch is the range being read, by user, UTC day and company.
type quotaBatch struct {
	partition *quotaPartition
	groups    []quotaGroup
	entries   []quotaEntry
	index     map[string]int32 // of groups: the latest of a user and day, and with the company behind it, each of them
	held      int64            // bytes of the groups
	named     map[int64]string // reservations that events name, by the events' offsets; most name none

	usage events.Usage // scratch
	key   []byte       // scratch

	added       int
	undecodable int // dead letters of the usage consumer
	replayed    int // copies that a replay or redrive has published for other consumers
	resends     int // of the producer
	late        int // not counted: the day was over for good
	remembered  int // by the filter of resends
}

// A quotaGroup is the events of one user and day under one company. A user who sends under two has two groups, one of which
// is refused if the user is known. The first group of a user and day leads to the others.
type quotaGroup struct {
	user, company string
	day           int64 // since the Unix epoch
	newest        int64 // timestamp of an event, milliseconds since the Unix epoch
	oldest        int64 // likewise
	place         int32 // of this group
	sibling       int32 // the next group of the user and day; -1: none
	head          bool  // it is the first one
	first, last   int32 // of entries, chained
}

type quotaEntry struct {
	offset int64
	void   uint64 // identity of an event that takes usage back; 0: it is usage
	points uint32
	next   int32
	// Milliseconds since the day's beginning: of its timestamp, and of its record, which may be before and, at the most, 24 days after. Those
	// of a void are its usage's: what was not counted is not taken back.
	at, recorded int32
}

// over reports whether it was recorded after its day was over.
func (e *quotaEntry) over() bool { return int64(e.recorded) >= dayMillis }

const (
	dayMillis  = int64(24 * time.Hour / time.Millisecond)
	entryBytes = 32
	groupBytes = 200
)

// reset empties the batch.
func (b *quotaBatch) reset() {
	clear(b.index)
	clear(b.groups)   // their names are memory of their own
	const many = 4096 // that a map keeps room for
	if len(b.named) > many {
		b.named = nil
	}
	clear(b.named)
	*b = quotaBatch{groups: b.groups[:0], entries: b.entries[:0], index: b.index, named: b.named, key: b.key[:0]}
}

// Add decodes a record and puts it to its group. What can't be understood is left to the usage consumer, which writes it
// to the dead letters. All verdicts go by the record's own time, never by a clock: a recount, hours later, comes to the same.
func (b *quotaBatch) Add(r *events.Record) {
	p := b.partition
	b.added++
	hash, err := p.identify(r, &b.usage)
	if err != nil {
		var rejection *events.Rejection
		switch {
		case errors.Is(err, errReplayed):
			b.replayed++
		case errors.As(err, &rejection):
			b.undecodable++
		}
		return
	}
	again := p.remember(hash, r)
	b.remembered = p.seen.Len()
	day, recorded := b.usage.Timestamp/dayMillis, b.usage.RecordedAt(r.Time)
	switch {
	case again:
		b.resends++
		return
	case b.usage.TakesNothingOff():
		b.replayed++ // as its usage was
		return
	case recorded >= (day+1)*dayMillis+p.lateness:
		b.late++
		return
	}
	if b.usage.ReservationID != nil {
		b.name(r.Offset)
	}
	g := b.group(day)
	void := uint64(0)
	if b.usage.Voids != nil {
		void = max(1, hash)
	}
	at := int32(len(b.entries)) // #nosec G115 -- a batch holds far fewer than 2^31 events
	b.entries = append(b.entries, quotaEntry{offset: r.Offset, void: void, points: b.usage.DataPoints, next: -1,
		at:       int32(b.usage.Timestamp - day*dayMillis), // #nosec G115 -- less than a day
		recorded: int32(max(math.MinInt32, min(math.MaxInt32, recorded-day*dayMillis)))})
	if g.first < 0 {
		g.first, g.oldest = at, b.usage.Timestamp
	} else {
		b.entries[g.last].next = at
	}
	g.last = at
	g.newest, g.oldest = max(g.newest, b.usage.Timestamp), min(g.oldest, b.usage.Timestamp)
}

// name keeps which reservation the event at hand names.
func (b *quotaBatch) name(offset int64) {
	const each = 80 // of an entry of the map and a short text
	if b.named == nil {
		b.named = map[int64]string{}
	}
	b.named[offset] = string(b.usage.ReservationID)
	b.held += each
}

// remember adds a record to what is remembered of resends, and reports whether it is one.
func (p *quotaPartition) remember(hash uint64, r *events.Record) bool {
	again := p.seen.Add(hash, r.Offset, r.Time.Unix())
	if now := p.seen.Bytes(); now != p.reported {
		p.quota.cfg.Remembering(now - p.reported)
		p.reported = now
	}
	return again
}

// forget says that nothing is remembered any more.
func (p *quotaPartition) forget() {
	p.quota.cfg.Remembering(-p.reported)
	p.reported = 0
}

// identify decodes a record, and hashes the identity of its event, for the filter of resends. The error of a record that a replay has published
// for other consumers is errReplayed: it is neither counted nor remembered, so what is made of a later resend depends on the original alone.
func (p *quotaPartition) identify(r *events.Record, u *events.Usage) (uint64, error) {
	if err := p.decoder.Decode(r, r.Time, u); err != nil {
		return 0, err
	}
	hash := u.IdentityHash()
	if skipsReplayed(r, quotaEffect, p.quota.cfg.ReplayKey, u.Source, u.ID) {
		return hash, errReplayed
	}
	return hash, nil
}

// group finds or makes the group of the event at hand.
func (b *quotaBatch) group(day int64) *quotaGroup {
	u := &b.usage
	b.key = binary.LittleEndian.AppendUint64(b.key[:0], uint64(day)) // #nosec G115 -- bits
	b.key = append(append(b.key, u.UserID...), 0)
	user := len(b.key)
	b.key = append(b.key, u.CompanyID...)
	if i, ok := b.index[string(b.key)]; ok {
		return &b.groups[i]
	}
	key := string(b.key)
	i := int32(len(b.groups)) // #nosec G115 -- as above
	b.index[key] = i
	latest, more := b.index[key[:user]]
	b.index[key[:user]] = i
	if more {
		b.groups[latest].sibling = i
	}
	b.groups = append(b.groups, quotaGroup{user: key[8 : user-1], company: key[user:], day: day, place: i, sibling: -1, head: !more, first: -1})
	b.held += groupBytes + int64(len(key))
	return &b.groups[i]
}

func (b *quotaBatch) Close() {}

func (b *quotaBatch) Rows() int { return b.added }

func (b *quotaBatch) Bytes() int64 { return b.held + int64(len(b.entries))*entryBytes }

// label is the partition in metrics.
func (p *quotaPartition) label() string { return strconv.Itoa(p.ID()) }
