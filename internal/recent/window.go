package recent

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

	index  []uint32 // places in the ring, plus 1; open addressing with linear probing
	newest int64    // the largest time that was added, seconds
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
	return &Window{records: records, seconds: seconds, ring: make([]seen, least), index: make([]uint32, 2*least), newest: -1 << 62}
}

// Bytes is the memory it takes.
func (w *Window) Bytes() int64 { return int64(len(w.ring))*16 + int64(len(w.index))*4 }

// Len is how many records it remembers.
func (w *Window) Len() int { return int(w.tail - w.head) }

// Add remembers the record at an offset, and reports whether an equal one lies within the window before it. Offsets rise
// from call to call; second is the record's time since the Unix epoch.
func (w *Window) Add(hash uint64, offset, second int64) bool {
	w.newest = max(w.newest, second)
	w.forget(offset)
	mask := uint32(len(w.index) - 1) // #nosec G115 -- at most 2^32
	at := uint32(hash) & mask        // #nosec G115 -- the lower half on purpose
	again := false
	for ; w.index[at] != 0; at = (at + 1) & mask {
		if e := w.entry(w.index[at] - 1); e.hash == hash {
			apart := int64(int32(uint32(second) - e.second)) // #nosec G115 -- the difference of two times near each other
			again = max(apart, -apart) <= w.seconds          // how far back it lies was looked at by forget
			break
		}
	}
	place := w.tail & uint32(len(w.ring)-1)                    // #nosec G115 -- at most 2^31
	w.ring[place] = seen{hash, uint32(offset), uint32(second)} // #nosec G115 -- see seen
	w.index[at] = place + 1
	w.tail++
	if int(w.tail-w.head) == len(w.ring) {
		w.grow()
	}
	return again
}

func (w *Window) entry(place uint32) *seen { return &w.ring[place] }

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

// drop takes a place out of the index, unless the hash has a newer one.
func (w *Window) drop(hash uint64, place uint32) {
	mask := uint32(len(w.index) - 1) // #nosec G115 -- at most 2^32
	at := uint32(hash) & mask        // #nosec G115 -- the lower half on purpose
	for w.index[at] != place+1 {
		if w.index[at] == 0 {
			return
		}
		at = (at + 1) & mask
	}
	// What follows in the same run moves up, so that no search stops early.
	for next := (at + 1) & mask; w.index[next] != 0; next = (next + 1) & mask {
		home := uint32(w.entry(w.index[next]-1).hash) & mask // #nosec G115 -- as above
		if (next-home)&mask >= (next-at)&mask {
			w.index[at] = w.index[next]
			at = next
		}
	}
	w.index[at] = 0
}

// grow doubles ring and index.
func (w *Window) grow() {
	old, mask := w.ring, uint32(len(w.ring)-1) // #nosec G115 -- at most 2^31
	n := w.tail - w.head
	w.ring, w.index = make([]seen, 2*len(old)), make([]uint32, 4*len(old))
	wide := uint32(len(w.index) - 1) // #nosec G115 -- at most 2^32
	for i := range n {
		w.ring[i] = old[(w.head+i)&mask]
	}
	w.head, w.tail = 0, n
	for i := n; i > 0; i-- { // from the newest on: an older place of the same hash is not needed
		hash := w.ring[i-1].hash
		at := uint32(hash) & wide // #nosec G115 -- the lower half on purpose
		for w.index[at] != 0 && w.entry(w.index[at]-1).hash != hash {
			at = (at + 1) & wide
		}
		if w.index[at] == 0 {
			w.index[at] = i
		}
	}
}
