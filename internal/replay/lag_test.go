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
		b.notes = append(b.notes, note{now, map[int]int64{0: step.end}})
		b.measure(now, map[int]int64{0: step.taken})
		if b.lag != step.lag || b.shut != step.shut {
			t.Errorf("after %s: lag %s, shut %v; want %s, %v", step.after, b.lag, b.shut, step.lag, step.shut)
		}
	}
	if len(b.notes) != 1 {
		t.Errorf("%d notes are kept", len(b.notes))
	}
}
