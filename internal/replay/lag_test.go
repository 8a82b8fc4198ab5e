package replay

import (
	"testing"
	"time"
)

func TestLagBrake_ShutsAboveAndOpensBelowHalf(t *testing.T) {
	t.Parallel()
	b := NewLagBrake(LagConfig{MaxLag: 2 * time.Second, Batching: time.Second})
	begin := time.Now()
	for _, step := range []struct {
		after time.Duration
		end   int64 // of the only partition
		taken int64
		lag   time.Duration
		shut  bool
	}{
		{0, 100, 40, 0, false},
		{3 * time.Second, 150, 40, 2 * time.Second, false}, // three seconds, of which one is batching
		{3500 * time.Millisecond, 160, 90, 2500 * time.Millisecond, true},
		{4 * time.Second, 170, 120, 3 * time.Second, true}, // up to the first note
		{5 * time.Second, 180, 155, time.Second, false},    // up to the one at three seconds
		{6 * time.Second, 180, 180, 0, false},
		{20 * time.Second, 180, 180, 0, false},
	} {
		now := begin.Add(step.after)
		b.notes = append(b.notes, note{now, map[int]int64{0: step.end}, 0})
		b.measure(now, map[int]int64{0: step.taken})
		if b.lag != step.lag || b.shut != step.shut {
			t.Errorf("after %s: lag %s, shut %v; want %s, %v", step.after, b.lag, b.shut, step.lag, step.shut)
		}
	}
	if len(b.notes) != 1 {
		t.Errorf("%d notes are kept", len(b.notes))
	}
}

// A simulated group takes what it can, and commits what it has taken at the end of each of its batches. The brake must find how much that
// is, and keep the lag below what it may be, without leaving the group idle.
func TestLagBrake_TheWindowFindsWhatTheGroupCanTake(t *testing.T) {
	t.Parallel()
	const step = 50 * time.Millisecond
	for _, c := range []struct{ live, capacity int64 }{{0, 5000}, {10_000, 20_000}, {10_000, 200_000}, {30_000, 40_000}} {
		b := NewLagBrake(LagConfig{MaxLag: 2 * time.Second, Batching: time.Second})
		begin := time.Now()
		end, read, committed, worst := int64(0), int64(0), int64(0), time.Duration(0)
		perStep := func(n int64) int64 { return n * int64(step) / int64(time.Second) }
		for i := range 20 * 60 {
			now := begin.Add(time.Duration(i) * step)
			end += perStep(c.live)
			if read = min(end, read+perStep(c.capacity)); i%20 == 19 {
				committed = read
			}
			if i%4 == 0 {
				b.notes = append(b.notes, note{now, map[int]int64{0: end}, b.published})
				b.measure(now, map[int]int64{0: committed})
				worst = max(worst, b.lag)
			}
			for !b.shut && b.fits(portion) {
				b.published += portion
				end += portion
			}
		}
		if worst > 2*time.Second {
			t.Errorf("%+v: lag %s", c, worst)
		}
		t.Logf("%+v: lag %s at most, %d let through, window %d", c, worst, b.published, b.window)
		if most := (c.capacity - c.live) * 60; b.published < most/2 {
			t.Errorf("%+v: %d events let through in a minute, of %d that could be taken", c, b.published, most)
		}
	}
}
