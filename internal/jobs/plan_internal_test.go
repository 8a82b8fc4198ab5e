package jobs

import (
	"context"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/events"
	"tenantflow/sinks/postgres"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestEvery_BeginsWhereItSaysInUTC(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		every              Every
		now, slot, next, b string
	}{
		{Hour, "2026-03-29T01:59:59.999Z", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z", "2026-03-29T00:00:00Z"},
		{Day, "2026-03-01T23:30:00-05:00", "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z", "2026-03-01T00:00:00Z"},
		{Week, "2026-03-01T12:00:00Z", "2026-02-23T00:00:00Z", "2026-03-02T00:00:00Z", "2026-02-16T00:00:00Z"}, // a Sunday
		{Week, "2026-03-02T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z", "2026-02-23T00:00:00Z"}, // a Monday
		{Month, "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z", "2024-01-01T00:00:00Z"},
		{Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z", "2026-11-01T00:00:00Z"},
	} {
		if got := c.every.Floor(at(c.now)); !got.Equal(at(c.slot)) || got.Location() != time.UTC {
			t.Errorf("%s of %s: got slot %s, want %s", c.every, c.now, got, c.slot)
		}
		if got := c.every.Next(at(c.now)); !got.Equal(at(c.next)) {
			t.Errorf("%s of %s: got next %s, want %s", c.every, c.now, got, c.next)
		}
		if got := c.every.Before(at(c.now)); !got.Equal(at(c.b)) {
			t.Errorf("%s of %s: got the one before %s, want %s", c.every, c.now, got, c.b)
		}
	}
}

func TestEvery_SlotsFollowEachOther(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		every := rapid.SampledFrom([]Every{Hour, Day, Week, Month}).Draw(t, "every")
		now := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "second"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanosecond"))
		slot, next := every.Floor(now), every.Next(now)
		if slot.After(now) || !next.After(now) || !every.Floor(slot).Equal(slot) || !every.Before(next).Equal(slot) || !every.Floor(next.Add(-time.Nanosecond)).Equal(slot) {
			t.Fatalf("%s of %s: slot %s, next %s", every, now, slot, next)
		}
	})
}

// table is what the table says of a job, without one.
type table struct {
	planned         time.Time
	running         bool
	due             []time.Time
	skipped, missed int64
}

func (s *table) look(j *Job, now time.Time) {
	p := j.plan(postgres.JobState{PlannedTo: s.planned, Now: now, Running: s.running})
	if p.To.IsZero() {
		return
	}
	s.planned, s.due = p.To, append(s.due, p.Due...)
	s.skipped, s.missed = s.skipped+int64(len(p.Skipped)), s.missed+p.Missed
}

// Two looks with 8 ms between them, wherever the begin of a slot lies in between, find it once.
func TestPlan_EightMillisecondsAroundASlot(t *testing.T) {
	t.Parallel()
	for _, every := range []Every{Hour, Day, Week, Month} {
		for _, rule := range []Catchup{OnTime(time.Minute), OnlyLatest(), Each(400*24*time.Hour, 14)} {
			for after := time.Duration(0); after <= 8*time.Millisecond; after += time.Millisecond {
				j := &Job{Name: events.JobDrift, Every: every, Catchup: rule}
				slot := every.Next(at("2026-03-04T05:06:07Z"))
				s := table{planned: every.Before(slot)}
				for _, now := range []time.Time{slot.Add(after - 8*time.Millisecond), slot.Add(after), slot.Add(after), slot.Add(after + 8*time.Millisecond)} {
					s.look(j, now)
				}
				if !slices.Equal(s.due, []time.Time{slot}) || s.missed+s.skipped != 0 {
					t.Errorf("every %s, %s, %s after: due %v, want %s; %d missed", every, rule.Rule, after, s.due, slot, s.missed)
				}
			}
		}
	}
}

func TestPlan_AfterAnOutageIsWhatTheRuleSays(t *testing.T) {
	t.Parallel()
	const days = 24 * time.Hour
	for name, c := range map[string]struct {
		every   Every
		rule    Catchup
		down    time.Duration
		running bool
		due     []string
		missed  int64
		skipped int64
	}{
		"none, and late":        {Hour, OnTime(15 * time.Minute), 14*days + 16*time.Minute, false, nil, 336, 0},
		"none, and in time":     {Hour, OnTime(15 * time.Minute), 14*days + 15*time.Minute, false, []string{"2026-03-15T00:00:00Z"}, 335, 0},
		"latest":                {Day, OnlyLatest(), 14*days + 5*time.Hour, false, []string{"2026-03-15T00:00:00Z"}, 13, 0},
		"latest, at work":       {Day, OnlyLatest(), 14*days + 5*time.Hour, true, nil, 13, 1},
		"all of three weeks":    {Week, Each(400*days, 14), 14 * days, false, []string{"2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"}, 0, 0},
		"all, at work":          {Week, Each(400*days, 14), 14 * days, true, []string{"2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"}, 0, 0},
		"all, within a window":  {Day, Each(2*days+time.Hour, 14), 14 * days, false, []string{"2026-03-13T00:00:00Z", "2026-03-14T00:00:00Z", "2026-03-15T00:00:00Z"}, 11, 0},
		"all, up to a number":   {Day, Each(400*days, 2), 14 * days, false, []string{"2026-03-14T00:00:00Z", "2026-03-15T00:00:00Z"}, 12, 0},
		"all of a month's ends": {Month, Each(400*days, 14), 31 * days, false, []string{"2026-04-01T00:00:00Z"}, 0, 0},
		"all of two years":      {Month, Each(400*days, 14), 730 * days, false, nil, 10, 0},
	} {
		j := &Job{Name: events.JobDrift, Every: c.every, Catchup: c.rule}
		begin := at("2026-03-01T00:00:00Z")
		s := table{planned: c.every.Floor(begin), running: c.running}
		s.look(j, begin.Add(c.down))
		var want []time.Time
		for _, text := range c.due {
			want = append(want, at(text))
		}
		if name == "all of two years" {
			if len(s.due) != 13 || s.missed != c.missed || !s.due[12].Equal(at("2028-02-01T00:00:00Z")) {
				t.Errorf("%s: %d slots, %d missed", name, len(s.due), s.missed)
			}
			continue
		}
		if !slices.Equal(s.due, want) || s.missed != c.missed || s.skipped != c.skipped {
			t.Errorf("%s: got due %v, %d missed, %d skipped; want %v, %d, %d", name, s.due, s.missed, s.skipped, want, c.missed, c.skipped)
		}
	}
}

// Whatever the clock does, no slot is planned twice, and each that has come is planned or counted.
func TestPlan_AnyClockPlansEachSlotOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		j := &Job{Name: events.JobDrift, Every: rapid.SampledFrom([]Every{Hour, Day, Week, Month}).Draw(t, "every"),
			Catchup: rapid.SampledFrom([]Catchup{OnTime(10 * time.Minute), OnlyLatest(), Each(400*24*time.Hour, 14)}).Draw(t, "rule")}
		now := at("2026-01-01T00:00:00Z")
		s := table{planned: j.Every.Floor(now)}
		first := s.planned
		for range rapid.IntRange(1, 30).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.Int64Range(-int64(3*time.Hour), int64(40*time.Hour)).Draw(t, "step")))
			s.running = rapid.Bool().Draw(t, "running")
			s.look(j, now)
		}
		come := int64(0)
		for slot := j.Every.Next(first); !slot.After(s.planned); slot = j.Every.Next(slot) {
			come++
		}
		seen := map[time.Time]bool{}
		for _, slot := range s.due {
			if seen[slot] || !j.Every.Floor(slot).Equal(slot) {
				t.Fatalf("%s is planned twice, or is no slot", slot)
			}
			seen[slot] = true
		}
		if got := int64(len(s.due)) + s.missed + s.skipped; got != come {
			t.Fatalf("%d slots have come, and %d are planned or counted", come, got)
		}
	})
}

func TestNew_RefusesAJobThatIsNotDescribed(t *testing.T) {
	t.Parallel()
	run := func(context.Context, time.Time) (any, error) { return nil, nil }
	for name, j := range map[string]Job{
		"no types":    {Name: "unknown", Every: Hour, Catchup: OnlyLatest(), Run: run},
		"no interval": {Name: events.JobDrift, Catchup: OnlyLatest(), Run: run},
		"no rule":     {Name: events.JobDrift, Every: Hour, Run: run},
		"no window":   {Name: events.JobDrift, Every: Hour, Catchup: Catchup{Rule: None}, Run: run},
		"no maximum":  {Name: events.JobDrift, Every: Hour, Catchup: Catchup{Rule: All, Window: time.Hour}, Run: run},
	} {
		if _, err := New(Config{Jobs: []Job{j}}); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

func TestRetryAfter_GrowsToAnHour(t *testing.T) {
	t.Parallel()
	for attempt, want := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 6: 32 * time.Minute, 7: time.Hour, 1000: time.Hour} {
		if got := retryAfter(attempt); got != want {
			t.Errorf("after attempt %d: got %s, want %s", attempt, got, want)
		}
	}
}

func TestEncode_TakesObjectsOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		result any
		want   string
	}{{nil, "{}"}, {map[string]int{"rows": 3}, `{"rows":3}`}, {(*struct{})(nil), "{}"}} {
		if got, err := encode(c.result); err != nil || string(got) != c.want {
			t.Errorf("%v: got %s, %v; want %s", c.result, got, err, c.want)
		}
	}
	for _, bad := range []any{3, []int{1}, "text", make(chan int)} {
		if got, err := encode(bad); err == nil {
			t.Errorf("%v is kept as %s", bad, got)
		}
	}
	large := map[string]string{"text": string(make([]byte, maxResult))}
	if got, err := encode(large); err != nil || len(got) > 200 {
		t.Errorf("a large result: %d bytes, %v", len(got), err)
	}
}
