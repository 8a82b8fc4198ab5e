package tenantmodel

// A random is a splitmix64 sequence (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
type random struct{ state uint64 }

func (r *random) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below returns a number in [0, n).
func (r *random) below(n int) int { return int(r.next() >> 33 * uint64(n) >> 31) }

// chance is true in the given share of cases.
func (r *random) chance(share float64) bool { return float64(r.next()>>11)/(1<<53) < share }

// pick returns one of several.
func pick[T any](r *random, of ...T) T { return of[r.below(len(of))] }
