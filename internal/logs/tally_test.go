package logs_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tenantflow/internal/logs"
)

func TestTally_SumsUpAFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got []string
		tally := logs.NewTally(
			func(k string, offset int) { got = append(got, fmt.Sprint(k, " ", offset)) },
			func(k string, n, first int) { got = append(got, fmt.Sprint(k, " ", n, " from ", first)) })
		for i := range 12_000 {
			tally.Add("a", i)
			switch i {
			case 0:
				wait(time.Millisecond / 2) // not at the same time as the end of an interval
			case 3:
				tally.Add("b", i)
			}
			wait(time.Millisecond)
		}
		wait(time.Minute)
		tally.Add("a", 1) // after a silence a single one is a line again
		tally.Add("a", 2)
		tally.Close()
		tally.Add("a", 3)
		want(t, got, "a 0", "b 3", "a 4999 from 1", "a 5000 from 5000", "a 2000 from 10000", "a 1", "a 2", "a 3")
	})
}

func TestTally_CountsWithoutAllocating(t *testing.T) {
	tally := logs.NewTally(func(string, int) {}, func(string, int, int) {})
	defer tally.Close()
	tally.Add("a", 1)
	if n := testing.AllocsPerRun(1000, func() { tally.Add("a", 2) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestLines_WriteTheFirstAndTheNumber(t *testing.T) {
	t.Parallel()
	log, lines := newLog()
	all := logs.NewLines(log)
	for p := range 200 {
		all.Log(t.Context(), slog.LevelWarn, "counting from the log", slog.Int("partition", p), slog.String("reason", "the store was emptied"))
	}
	all.Log(t.Context(), slog.LevelWarn, "counting from the log", slog.Int("partition", 7), slog.String("reason", "the store went back"))
	want(t, lines(), `level=WARN msg="counting from the log" partition=0 reason="the store was emptied"`,
		`level=WARN msg="counting from the log" partition=7 reason="the store went back"`)
	all.Close()
	want(t, lines(), `level=WARN msg="counting from the log" times=199 in=5s partition=1 reason="the store was emptied"`)
}

func TestLines_WriteAllAtDebugLevel(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	all := logs.NewLines(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	for range 200 {
		all.Log(t.Context(), slog.LevelInfo, "counting from the log")
	}
	if n := strings.Count(out.String(), "\n"); n != 200 {
		t.Errorf("%d lines, want 200", n)
	}
}
