package health

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

const stall = 5 * time.Minute

func newTracker(parts ...string) (*Tracker, *strings.Builder) {
	var log strings.Builder
	return New(stall, slog.New(slog.NewTextHandler(&log, nil)), parts...), &log
}

// wait moves the clock of the test's bubble; no real time passes.
func wait(d time.Duration) { <-time.After(d) }

func TestTheServiceIsReadyWhenEveryPartIs(t *testing.T) {
	t.Parallel()
	h, _ := newTracker("kafka", "usage")
	if r := h.Readiness(); r.Ready || len(r.Failing) != 2 || r.Failing[0].State != Starting {
		t.Errorf("at the start: %+v", r)
	}
	h.Set("kafka", Ready, "")
	if r := h.Readiness(); r.Ready || len(r.Failing) != 1 || r.Failing[0].Part != "usage" {
		t.Errorf("with one part ready: %+v", r)
	}
	h.Set("usage", Ready, "")
	if r := h.Readiness(); !r.Ready || len(r.Failing) != 0 || len(r.Parts) != 2 {
		t.Errorf("with both parts ready: %+v", r)
	}
}

func TestAFailingPartIsNamedWithItsReasonAndSinceWhen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, log := newTracker("clickhouse")
		h.Set("clickhouse", Ready, "")
		wait(time.Hour)
		failed := time.Now()
		h.Set("clickhouse", Failing, "connection refused")
		wait(time.Minute)
		h.Set("clickhouse", Failing, "connection reset")

		r := h.Readiness()
		if r.Ready || len(r.Failing) != 1 {
			t.Fatalf("got %+v", r)
		}
		if p := r.Failing[0]; p.Part != "clickhouse" || p.Reason != "connection reset" || !p.Since.Equal(failed) {
			t.Errorf("got %+v, want the newest reason since %s", p, failed)
		}
		for range 100 {
			h.Set("clickhouse", Failing, "connection reset")
			h.Still("clickhouse")
			wait(time.Second / 10)
		}
		h.Set("clickhouse", Ready, "")
		if r := h.Readiness(); !r.Ready {
			t.Errorf("still not ready: %+v", r)
		}
		said := strings.Split(strings.TrimSpace(log.String()), "\n")
		wanted := []string{"state=ready", `msg="part is not ready" part=clickhouse error="connection refused"`, `error="connection reset"`,
			`msg="part is not ready: over" part=clickhouse took=1m10s`}
		if len(said) != len(wanted) {
			t.Fatalf("%d lines, want %d:\n%s", len(said), len(wanted), log)
		}
		for i, words := range wanted {
			if !strings.Contains(said[i], words) {
				t.Errorf("line %d is %s, want %s", i, said[i], words)
			}
		}
	})
}

func TestAStoppingServiceIsNotReadyWhateverItsPartsSay(t *testing.T) {
	t.Parallel()
	h, _ := newTracker("usage")
	h.Shutdown("SIGTERM")
	h.Set("usage", Ready, "")
	r := h.Readiness()
	if r.Ready || len(r.Failing) != 1 || r.Failing[0].State != Stopping || r.Failing[0].Reason != "SIGTERM" {
		t.Errorf("got %+v", r)
	}
	if l := h.Liveness(); !l.Alive {
		t.Errorf("a stopping service is alive, but: %+v", l)
	}
}

func TestAPartWithWorkThatDoesNothingIsStalled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		story func(h *Tracker)
		alive bool
	}{
		{"no work", func(h *Tracker) { wait(stall + time.Second) }, true},
		{"no lag", func(h *Tracker) { h.Load("usage", 8, 0); wait(2 * stall) }, true},
		{"no partitions", func(h *Tracker) { h.Load("usage", 0, 100); wait(2 * stall) }, true},
		{"just within the limit", func(h *Tracker) { h.Load("usage", 8, 100); wait(stall) }, true},
		{"beyond the limit", func(h *Tracker) { h.Load("usage", 8, 100); wait(stall + time.Second) }, false},
		{"a growing lag is no progress", func(h *Tracker) {
			for i := range 12 {
				h.Load("usage", 8, int64(100+i))
				wait(30 * time.Second)
			}
		}, false},
		{"progress now and then", func(h *Tracker) {
			h.Load("usage", 8, 100)
			for range 10 {
				wait(4 * time.Minute)
				h.Progress("usage")
			}
			wait(4 * time.Minute)
		}, true},
		{"idle for long, then work", func(h *Tracker) { h.Load("usage", 8, 0); wait(10 * stall); h.Load("usage", 8, 1); wait(stall) }, true},
		{"stopped on purpose", func(h *Tracker) {
			h.Load("usage", 8, 1)
			h.Set("usage", Stopped, "offset out of range")
			wait(2 * stall)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h, _ := newTracker("usage")
				h.Set("usage", Ready, "")
				c.story(h)
				l := h.Liveness()
				if l.Alive != c.alive {
					t.Fatalf("alive %v, want %v: %+v", l.Alive, c.alive, l)
				}
				if !c.alive && (l.Stalled[0].Part != "usage" || !strings.Contains(l.Stalled[0].Reason, "nothing done for")) {
					t.Errorf("got %+v", l)
				}
			})
		})
	}
}

func TestTheMetricsSayWhichPartIsReadyAndWhichIsStalled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newTracker("kafka", "usage")
		h.Set("kafka", Ready, "")
		h.Load("usage", 1, 1)
		wait(stall + time.Second)
		want := `
# HELP tenantflow_part_ready 1 if the part is ready for work, else 0.
# TYPE tenantflow_part_ready gauge
tenantflow_part_ready{part="kafka"} 1
tenantflow_part_ready{part="usage"} 0
# HELP tenantflow_part_stalled 1 if the part has work and has done nothing for longer than the stall timeout, else 0.
# TYPE tenantflow_part_stalled gauge
tenantflow_part_stalled{part="kafka"} 0
tenantflow_part_stalled{part="usage"} 1
`
		if err := testutil.CollectAndCompare(h.Collector(), strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	})
}

func TestTheTrackerMayBeUsedFromManyGoroutines(t *testing.T) {
	t.Parallel()
	h := New(stall, slog.New(slog.DiscardHandler), "a")
	done := make(chan struct{})
	for i := range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			part := string(rune('a' + i))
			for range 200 {
				h.Set(part, Failing, "x")
				h.Load(part, i, 1)
				h.Progress(part)
				h.Readiness()
				h.Liveness()
				h.Set(part, Ready, "")
			}
		}()
	}
	for range 8 {
		<-done
	}
	if r := h.Readiness(); !r.Ready || len(r.Parts) != 8 {
		t.Errorf("got %+v", r)
	}
}

func TestReadiness_ANoteLeavesThePartReady(t *testing.T) {
	t.Parallel()
	h, _ := newTracker("company")
	h.Set("company", Ready, "")
	h.Note("company", "company acme can't go on")
	if r := h.Readiness(); !r.Ready || len(r.Failing) != 0 || r.Parts[0].Note != "company acme can't go on" {
		t.Errorf("with a note: %+v", r)
	}
	h.Note("company", "")
	if r := h.Readiness(); r.Parts[0].Note != "" {
		t.Errorf("without: %+v", r)
	}
}
