// Package recent remembers which identities were seen lately, in a fixed amount of memory.
package recent

import "math"

// A Set answers whether a 64-bit hash was added before. "No" is always right for what is still remembered. "Yes" is
// wrong for about one hash in a hundred million, because only 32 bits of each are kept, in one of two buckets that
// the hash chooses.
//
// It has two generations. When the newer one is full, the older one is dropped and the newer takes its place, so at
// least the last Capacity hashes are remembered. What is dropped leaves a trace: Forgotten, the largest time of all
// dropped hashes. A caller that needs an exact answer looks elsewhere for anything not newer than that.
//
// A Set is for one goroutine.
type Set struct {
	newer, older *generation
	forgotten    int64
}

// slots is how many fingerprints a bucket holds: one cache line of 64 bytes.
const slots = 16

type bucket [slots]uint32

type generation struct {
	buckets []bucket
	used    int
	largest int64 // time of the newest hash in it
}

// New returns a set that takes about bytes of memory, and at least 128 KiB.
func New(bytes int) *Set {
	n := 1 << 10 // buckets of one generation; a power of two, so that a mask picks one
	for n*2*2*slots*4 <= bytes {
		n *= 2
	}
	return &Set{newer: newGeneration(n), older: newGeneration(n), forgotten: math.MinInt64}
}

func newGeneration(buckets int) *generation {
	return &generation{buckets: make([]bucket, buckets), largest: math.MinInt64}
}

// Capacity is how many of the newest hashes are surely remembered.
func (s *Set) Capacity() int { return s.newer.capacity() }

// Forgotten is the largest time of the hashes no longer remembered; math.MinInt64 if there are none.
func (s *Set) Forgotten() int64 { return s.forgotten }

// Touch begins to load the places where Add will look for a hash, and does not wait for them: a set is larger than the
// caches. A caller that has something else to do before Add calls Touch first. The result means nothing; keep it
// somewhere, or the compiler may leave the loads out.
func (s *Set) Touch(hash uint64) uint32 {
	first, second := s.newer.pair(hash)
	touched := first[0] ^ second[0]
	if s.older.used > 0 {
		first, second = s.older.pair(hash)
		touched ^= first[0] ^ second[0]
	}
	return touched
}

// Add remembers a hash and the time of what it stands for, and reports whether it was there already.
func (s *Set) Add(hash uint64, at int64) bool {
	fingerprint := uint32(hash >> 32) // #nosec G115 -- the upper half on purpose
	if fingerprint == 0 {
		fingerprint = 1 // zero is an empty slot
	}
	for {
		in, full := s.newer.add(hash, fingerprint, at)
		switch {
		case in:
			return true
		case !full:
			// Until the newer one has been full once there is nothing in the older: spare its cache misses.
			return s.older.used > 0 && s.older.has(hash, fingerprint)
		}
		s.rotate()
	}
}

func (s *Set) rotate() {
	s.forgotten = max(s.forgotten, s.older.largest)
	old := s.older
	s.older = s.newer
	clear(old.buckets)
	old.used = 0
	old.largest = math.MinInt64
	s.newer = old
}

// pair returns the two buckets a hash may be in. Choosing the emptier of two keeps the fullest bucket close to the
// average, so a generation can be filled to two thirds before any bucket overflows. Both lie in one page of 4 KiB: a look
// into the set costs two misses of the cache and only one of the address translation.
func (g *generation) pair(hash uint64) (first, second *bucket) {
	const page = 4096/(slots*4) - 1
	one := hash & uint64(len(g.buckets)-1)
	other := hash * 0x9e3779b97f4a7c15 >> 40
	return &g.buckets[one], &g.buckets[one&^page|other&page]
}

// find returns the place of a fingerprint in a bucket, or how many the bucket holds: slots are filled in order.
func (b *bucket) find(fingerprint uint32) (at int, found bool) {
	for i, f := range b {
		if f == fingerprint {
			return i, true
		}
		if f == 0 {
			return i, false
		}
	}
	return slots, false
}

// add reports whether the fingerprint was there, or else whether there was no room for it.
func (g *generation) add(hash uint64, fingerprint uint32, at int64) (in, full bool) {
	first, second := g.pair(hash)
	i, found := first.find(fingerprint)
	j, foundToo := second.find(fingerprint)
	switch {
	case found || foundToo:
		g.largest = max(g.largest, at)
		return true, false
	case g.used >= g.capacity() || min(i, j) == slots:
		return false, true
	case i <= j:
		first[i] = fingerprint
	default:
		second[j] = fingerprint
	}
	g.used++
	g.largest = max(g.largest, at)
	return false, false
}

func (g *generation) has(hash uint64, fingerprint uint32) bool {
	first, second := g.pair(hash)
	if _, found := first.find(fingerprint); found {
		return true
	}
	_, found := second.find(fingerprint)
	return found
}

// capacity is how many hashes a generation takes.
func (g *generation) capacity() int { return len(g.buckets) * slots * 2 / 3 }
