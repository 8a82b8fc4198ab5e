package recent

import (
	"math/bits"
	"time"
)

// How far a window reaches where no setting says otherwise.
const (
	DefaultWindow  = time.Hour
	DefaultRecords = 1_000_000
)

// A Window remembers the identities of a log's records, each with its place and time, and answers exactly whether an equal
// one lies close before another: no more than a number of offsets, and no more than a number of seconds by the records'
// own times. So its answers are a function of the log, however a process has come to read it; all it needs is to have
// seen the records of the window before.
//
// Identities are 64-bit hashes. A record takes 24 bytes at most when the number of records is a power of two, and up to
// twice that otherwise. A Window is for one goroutine.
type Window struct {
	records int64 // offsets
	seconds int64

	// ring holds what was added, in the order of the offsets; head and tail count without end.
	ring       []seen
	head, tail uint32

	// buckets hold the places in the ring, by hash: the upper bits of an entry are some of the hash's, so that others need not be
	// looked up in the ring, which is not in the processor's cache; the lower ones are the place. An entry is in the bucket that its
	// hash names, or where that and all in between are full, in a later one. The slots of a bucket are filled in order.
	buckets []bucket
	bits    uint // of a place

	newest int64 // the largest time that was added, seconds
}

// seen is one record. Offset and time are cut to 32 bits: differences of up to 2^31 are still exact, and offsets further
// back than the window are dropped.
type seen struct {
	hash   uint64
	offset uint32
	second uint32
}

// NewWindow returns an empty window of so many offsets, from 1 to 2^30, and seconds.
func NewWindow(records, seconds int64) *Window {
	const least = 1 << 8
	w := &Window{records: records, seconds: seconds, newest: -1 << 62}
	w.make(least)
	return w
}

// make makes an empty ring of so many records, a power of two, with buckets for twice as many.
func (w *Window) make(records int) {
	w.ring, w.buckets = make([]seen, records), make([]bucket, 2*records/slots)
	w.bits = uint(bits.TrailingZeros(uint(records))) // #nosec G115 -- at most 2^31
}

// Bytes is the memory it takes.
func (w *Window) Bytes() int64 { return int64(len(w.ring))*16 + int64(len(w.buckets))*slots*4 }

// Len is how many records it remembers.
func (w *Window) Len() int { return int(w.tail - w.head) }

// Add remembers the record at an offset, and reports whether an equal one lies within the window before it. Offsets rise
// from call to call; second is the record's time since the Unix epoch.
func (w *Window) Add(hash uint64, offset, second int64) bool {
	w.newest = max(w.newest, second)
	w.forget(offset)
	again := false
	slot := w.find(hash)
	if *slot != 0 {
		apart := int64(int32(uint32(second) - w.at(*slot).second)) // #nosec G115 -- the difference of two times near each other
		again = max(apart, -apart) <= w.seconds                    // how far back it lies was looked at by forget
	}
	place := w.tail & uint32(len(w.ring)-1)                    // #nosec G115 -- at most 2^31
	w.ring[place] = seen{hash, uint32(offset), uint32(second)} // #nosec G115 -- see seen
	*slot = w.entry(hash, place)
	w.tail++
	if int(w.tail-w.head) == len(w.ring) {
		w.grow()
	}
	return again
}

// entry is what stands in a bucket for a record; never 0.
func (w *Window) entry(hash uint64, place uint32) uint32 { return w.tag(hash)<<w.bits | place }

// tag is some bits of a hash, others than those that choose the bucket.
func (w *Window) tag(hash uint64) uint32 { return max(1, uint32(hash>>32)>>w.bits) }

// at is the record that an entry stands for.
func (w *Window) at(entry uint32) *seen { return &w.ring[entry&uint32(len(w.ring)-1)] } // #nosec G115 -- at most 2^31

// home is the bucket of a hash.
func (w *Window) home(hash uint64) int { return int(hash & uint64(len(w.buckets)-1)) } // #nosec G115 -- fewer than 2^31

// next is the bucket after another.
func (w *Window) next(b int) int { return (b + 1) & (len(w.buckets) - 1) }

// find returns the slot of the hash's latest record, or the free one where it belongs.
func (w *Window) find(hash uint64) *uint32 {
	tag := w.tag(hash)
	for b := w.home(hash); ; b = w.next(b) {
		in := &w.buckets[b]
		for i, e := range in {
			if e == 0 || e>>w.bits == tag && w.at(e).hash == hash {
				return &in[i]
			}
		}
	}
}

// forget drops what lies too far back for the record at offset and for every later one. A later record may be a little
// older by its time, so twice the window is kept.
func (w *Window) forget(offset int64) {
	mask := uint32(len(w.ring) - 1) // #nosec G115 -- at most 2^31
	for w.head != w.tail {
		e := &w.ring[w.head&mask]
		back := int64(uint32(offset) - e.offset)         // #nosec G115 -- modulo 2^32
		old := int64(int32(uint32(w.newest) - e.second)) // #nosec G115 -- as above
		if back <= w.records && old <= 2*w.seconds {
			return
		}
		w.drop(e.hash, w.head&mask)
		w.head++
	}
}

// drop takes a record out of its bucket, unless the hash has a newer one.
func (w *Window) drop(hash uint64, place uint32) {
	entry := w.entry(hash, place)
	for b := w.home(hash); ; b = w.next(b) {
		at, n := w.buckets[b].look(entry)
		if at < n {
			w.remove(b, at, n)
			return
		}
		if n < slots {
			return
		}
	}
}

// look returns the slot of an entry, or how many the bucket holds, and how many it holds.
func (b *bucket) look(entry uint32) (at, n int) {
	at = slots
	for i, e := range b {
		if e == 0 {
			return min(at, i), i
		}
		if e == entry {
			at = i
		}
	}
	return at, slots
}

// remove empties a slot of a bucket that holds n. If it was full, an entry that had to pass it on its way to a later one takes the
// room, and so on from there: no search may stop too early.
func (w *Window) remove(b, at, n int) {
	for {
		in := &w.buckets[b]
		in[at], in[n-1] = in[n-1], 0
		if n < slots {
			return
		}
		hole := b
		for at = -1; at < 0; {
			if b = w.next(b); b == hole {
				return
			}
			at, n = w.passing(b, hole)
			if at < 0 && n < slots {
				return
			}
		}
		w.buckets[hole][slots-1] = w.buckets[b][at]
	}
}

// passing returns the slot of an entry of a bucket that belongs to another one before, or as far back; -1: there is none. n is how many
// the bucket holds.
func (w *Window) passing(b, before int) (at, n int) {
	mask := len(w.buckets) - 1
	at = -1
	for i, e := range w.buckets[b] {
		if e == 0 {
			return at, i
		}
		if (b-w.home(w.at(e).hash))&mask >= (b-before)&mask {
			at = i
		}
	}
	return at, slots
}

// grow doubles ring and buckets.
func (w *Window) grow() {
	old, mask := w.ring, uint32(len(w.ring)-1) // #nosec G115 -- at most 2^31
	n := w.tail - w.head
	w.make(2 * len(old))
	for i := range n {
		e := old[(w.head+i)&mask]
		w.ring[i] = e
		*w.find(e.hash) = w.entry(e.hash, i) // a newer one of the same hash takes the slot
	}
	w.head, w.tail = 0, n
}
