package dragonfly_test

import (
	"fmt"
	"testing"
	"time"

	"tenantflow/sinks/dragonfly"
)

// taking is a call with events of three data points each, and voids of as many, by their ids.
func taking(user string, events int, voids ...uint64) dragonfly.Call {
	c := call(user, -1, events)
	for _, id := range voids {
		c.Voids = append(c.Voids, dragonfly.Void{ID: id, Points: 3})
	}
	return c
}

func TestCount_AVoidIsTakenOffOnce(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := session(t, store, 0)
	for i, step := range []struct {
		from, to  int64
		call      dragonfly.Call
		outcome   dragonfly.Outcome
		calls     int64
		watermark int64
	}{
		{0, 10, taking("u", 5), dragonfly.Added, 5, 0},
		{10, 20, taking("u", 0, 1), dragonfly.Added, 4, 0},
		{10, 20, taking("u", 0, 1), dragonfly.Known, 4, 0},
		{15, 30, taking("u", 1, 1, 2), dragonfly.Behind, 0, 20},
		{20, 30, taking("u", 1, 1, 2), dragonfly.Added, 4, 0}, // the first was taken off before
		{30, 40, taking("u", 0, 3, 3, 2), dragonfly.Added, 3, 0},
		{40, 50, taking("u", 2, 4), dragonfly.Added, 4, 0},
		{50, 60, taking("none", 0, 9), dragonfly.Left, 0, 0},
		{60, 70, taking("none", 1, 8), dragonfly.Added, 0, 0},
		{70, 80, taking("none", 0, 7, 6, 5), dragonfly.Added, 0, 0}, // never below nothing
		{80, 90, taking("none", 2), dragonfly.Added, 2, 0},
	} {
		got := count(t, s, batch(1, step.from, step.to), step.call)[0]
		if got.Outcome != step.outcome || got.Calls != step.calls || got.Watermark != step.watermark ||
			got.Outcome == dragonfly.Added && got.Points != 3*step.calls {
			t.Errorf("step %d: %+v, want %+v", i, got, step)
		}
	}
	if fields := client.HKeys(t.Context(), dragonfly.QuotaKey("u", today())).Val(); len(fields) != 5 { // sums, share, marks, voids
		t.Errorf("fields %q", fields)
	}
	count(t, s, batch(1, 90, 100), taking("plain", 3))
	if fields := client.HKeys(t.Context(), dragonfly.QuotaKey("plain", today())).Val(); len(fields) != 3 {
		t.Errorf("a user without voids has the fields %q", fields)
	}
}

// What was taken off a share is given up when, and only when, the share is.
func TestCount_VoidsGoWithTheirShare(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mode   dragonfly.Mode
		events int
		voids  []uint64
		want   int64
	}{
		"cleared, and counted again":       {dragonfly.Clear, 5, []uint64{1, 2}, 3},
		"cleared, the void comes later":    {dragonfly.Clear, 5, nil, 5},
		"cleared by a call without events": {dragonfly.Clear, 0, nil, 0},
		"kept":                             {dragonfly.Keep, 1, []uint64{1, 3}, 3},
		"adopted":                          {dragonfly.Adopt, 1, []uint64{2, 3}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, _, _ := open(t)
			s, other := session(t, store, 0), session(t, store, 1)
			count(t, other, batch(1, 0, 10), taking("u", 10), taking("alone", 10))
			count(t, other, batch(1, 10, 20), taking("u", 0, 1, 2, 3, 4)) // of another log, under the same ids
			count(t, s, batch(1, 0, 10), taking("u", 5))
			count(t, s, batch(1, 10, 20), taking("u", 0, 1, 2))
			next := taking("u", c.events, c.voids...)
			next.Mode = c.mode
			if got := count(t, s, batch(2, 20, 30), next)[0]; got.Calls != 6+c.want {
				t.Errorf("%+v, want 6 of the other log and %d", got, c.want)
			}
			// Later, in the same epoch.
			got := count(t, s, batch(2, 30, 40), taking("u", 5, 1))[0].Calls
			want := 6 + c.want + 5
			if c.mode == dragonfly.Clear && len(c.voids) == 0 {
				want-- // it was given up with the share
			}
			if got != want {
				t.Errorf("after that: %d, want %d", got, want)
			}
			sums, err := store.Resum(t.Context(), "u", today())
			if err != nil || sums {
				t.Errorf("the sums were not those of the shares: %t, %v", sums, err)
			}
		})
	}
}

func TestCount_TakesManyVoidsInACall(t *testing.T) {
	t.Parallel()
	store, _, _ := open(t)
	s := session(t, store, 0)
	const n = 20_000 // more than Lua 5.1 unpacks
	c := taking("u", n+7)
	for i := range uint64(n) {
		c.Voids = append(c.Voids, dragonfly.Void{ID: 1<<63 + i, Points: 3})
	}
	began := time.Now()
	got := count(t, s, batch(1, 0, 100), c, taking("v", 2))
	if got[0].Calls != 7 || got[0].Points != 21 || got[1].Calls != 2 {
		t.Errorf("%+v", got)
	}
	c.Events, c.Points, c.Offsets = 0, 0, nil
	if got := count(t, s, batch(1, 100, 200), c)[0]; got.Calls != 7 {
		t.Errorf("once more: %+v", got)
	}
	t.Logf("twice %d voids in %s", n, time.Since(began))
}

func TestCount_ThresholdsSeeWhatWasTakenBack(t *testing.T) {
	t.Parallel()
	for name, cuts := range map[string][]int{"in one call": {0, 9}, "one by one": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, "in two": {0, 4, 9}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, _, _ := open(t)
			s := session(t, store, 0)
			log := []uint64{0, 0, 0, 7, 7, 0, 0, 8, 0} // usage, and voids by their ids: 1 2 3, 2, 2, 3, 4 (80 % of 5), 3, 4
			var due []string
			for i, to := range cuts[1:] {
				from := cuts[i]
				c := dragonfly.Call{User: "u", Day: today(), Mode: dragonfly.Clear, Limit: 5, Thresholds: usual}
				for at := from; at < to; at++ {
					if log[at] != 0 {
						c.Voids, c.Offsets = append(c.Voids, dragonfly.Void{ID: log[at]}), append(c.Offsets, dragonfly.OfVoid)
						continue
					}
					c.Events++
					c.Offsets = append(c.Offsets, int64(at))
				}
				got, err := s.Count(t.Context(), batch(1, int64(from), int64(to)), []dragonfly.Call{c}, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range got[0].Due {
					due = append(due, fmt.Sprintf("%d %% at %d with %d", d.Percent, d.Offset, d.Calls))
				}
				if err := s.Clear(t.Context(), got[0].Due); err != nil {
					t.Fatal(err)
				}
			}
			if len(due) != 1 || due[0] != "80 % at 6 with 4" {
				t.Errorf("due: %q", due)
			}
			if c, err := store.Counters(t.Context(), "u", today()); err != nil || c.APICalls != 4 {
				t.Errorf("%+v, %v", c, err)
			}
		})
	}
}
