package recent

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// spread makes a well mixed hash of a small number (the finalizer of SplitMix64).
func spread(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

func TestWhatWasAddedIsEitherRememberedOrNotNewerThanForgotten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := New(0)
		seed := rapid.Uint64().Draw(t, "seed")
		n := uint64(rapid.IntRange(1, 4*s.Capacity()).Draw(t, "events"))
		times := make([]int64, n)
		for i := range n {
			times[i] = int64(i) - int64(spread(seed+i)%1000)
			s.Add(spread(seed^i<<1), times[i])
		}
		for i := range n {
			probe := *s
			fingerprint := uint32(spread(seed^i<<1) >> 32)
			if fingerprint == 0 {
				fingerprint = 1
			}
			h := spread(seed ^ i<<1)
			remembered := probe.newer.has(h, fingerprint) || probe.older.has(h, fingerprint)
			if !remembered && times[i] > s.Forgotten() {
				t.Fatalf("event %d of %d is gone although its time %d is newer than Forgotten %d", i, n, times[i], s.Forgotten())
			}
		}
	})
}

func TestTheLastCapacityHashesAreRemembered(t *testing.T) {
	t.Parallel()
	s := New(1 << 20)
	n := uint64(5 * s.Capacity())
	for i := range n {
		s.Add(spread(i), int64(i))
	}
	for i := n - uint64(s.Capacity()); i < n; i++ {
		if !s.Add(spread(i), int64(i)) {
			t.Fatalf("hash %d of %d was forgotten", i, n)
		}
	}
}

func TestANewHashIsAlmostNeverTakenForAKnownOne(t *testing.T) {
	t.Parallel()
	s := New(8 << 20)
	wrong := 0
	for i := range uint64(2_000_000) {
		if s.Add(spread(i), int64(i)) {
			wrong++
		}
	}
	if wrong > 1 {
		t.Errorf("%d of 2,000,000 new hashes were taken for known ones", wrong)
	}
	if s.Forgotten() == math.MinInt64 {
		t.Error("nothing was forgotten, so the test did not reach a full set")
	}
}

func BenchmarkAdd(b *testing.B) {
	s := New(8 << 20)
	b.ReportAllocs()
	for i := range b.N {
		s.Add(spread(uint64(i)), int64(i))
	}
}
