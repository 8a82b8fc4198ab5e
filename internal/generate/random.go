package generate

// A random is a splitmix64 sequence (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
// It needs no warming up, so every message can have a sequence of its own, started from its number.
type random struct{ state uint64 }

// randomOf starts the sequence of one message.
func randomOf(seed, number uint64) random {
	r := random{state: seed}
	r.state = r.next() ^ number*0xd1342543de82ef95
	return r
}

func (r *random) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below returns a number in [0, n). The bias is n/2^32 and of no concern here.
func (r *random) below(n int) int {
	return int(r.next() >> 32 * uint64(n) >> 32)
}

// unit returns a number in [0, 1).
func (r *random) unit() float64 {
	return float64(r.next()>>11) / (1 << 53)
}

// chance is true in the given share of cases.
func (r *random) chance(share float64) bool {
	return r.unit() < share
}

// skewed returns a number in [0, n) that is small more often than not: half of all are below n/4.
func (r *random) skewed(n int) int {
	u := r.unit()
	return min(int(u*u*float64(n)), n-1)
}

// heavyTailed returns a number in [1, 2^bits), mostly small and sometimes very large.
func (r *random) heavyTailed(bits int) int64 {
	power := r.skewed(bits)
	return 1<<power + int64(r.next()>>(64-power))
}

// dice is a sequence for a whole stream, of which every number depends on those before it.
type dice struct{ random }

// below returns a number in [0, n).
func (r *dice) below(n int) int { return int(r.next() >> 33 * uint64(n) >> 31) }

// pick returns one of several.
func pick[T any](r *dice, of ...T) T { return of[r.below(len(of))] }
