package logs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tenantflow/internal/logs"
)

// newLog returns a logger at level info and its lines, without times.
func newLog() (*slog.Logger, func() []string) {
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	return log, func() []string {
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		out.Reset()
		return lines
	}
}

// wait lets the time of a bubble of synctest pass.
func wait(d time.Duration) { <-time.After(d) }

func want(t *testing.T, got []string, lines ...string) {
	t.Helper()
	if len(got) == 1 && got[0] == "" {
		got = nil
	}
	if len(got) != len(lines) {
		t.Fatalf("got %d lines, want %d:\n%s", len(got), len(lines), strings.Join(got, "\n"))
	}
	for i := range lines {
		if got[i] != lines[i] {
			t.Errorf("line %d\n got %s\nwant %s", i, got[i], lines[i])
		}
	}
}

// message is what the tests say.
const message = "waiting for the store"

func TestTroubles_SayAnOutageOnceAndItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, lines := newLog()
		troubles := logs.NewTroubles(log)
		ctx := t.Context()
		say := func(partition int) {
			of := fmt.Sprintf("usage.events/%d", partition)
			troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: message, Of: of,
				Err: fmt.Errorf("write %s: dial 127.0.0.1:5432: refused", of), Attrs: []slog.Attr{slog.Int("partition", partition)}})
		}
		for range 45 {
			for p := range 200 {
				say(p)
			}
			wait(time.Second)
		}
		want(t, lines(), `level=WARN msg="waiting for the store" partition=0 error="write usage.events/0: dial 127.0.0.1:5432: refused"`)
		wait(16 * time.Second)
		say(7)
		want(t, lines(), `level=WARN msg="waiting for the store" partition=7 tries=9001 places=200 since=1m1s not_logged=8999 error="write usage.events/7: dial 127.0.0.1:5432: refused"`)
		for p := range 200 {
			troubles.Over(ctx, message, fmt.Sprintf("usage.events/%d", p))
			troubles.Over(ctx, message, "another")
		}
		want(t, lines(), `level=INFO msg="waiting for the store: over" took=1m1s tries=9001 places=200`)
	})
}

func TestTroubles_SayAnotherTextAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, lines := newLog()
		troubles := logs.NewTroubles(log)
		for range 3 {
			for _, text := range []string{"connection refused", "the database is starting up", "connection refused"} {
				troubles.Say(t.Context(), logs.Trouble{Message: message, Err: errors.New(text)})
			}
		}
		want(t, lines(), `level=INFO msg="waiting for the store" error="connection refused"`,
			`level=INFO msg="waiting for the store" error="the database is starting up"`)
	})
}

func TestTroubles_CountTextsThatAlwaysDiffer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, lines := newLog()
		troubles := logs.NewTroubles(log)
		for i := range 100_000 {
			troubles.Say(t.Context(), logs.Trouble{Message: message, Err: errors.New("no company " + strings.Repeat("x", i%1000))})
			wait(time.Millisecond)
		}
		got := lines()
		if len(got) > 100 {
			t.Errorf("%d lines in 100 s", len(got))
		}
		if !strings.Contains(strings.Join(got, "\n"), " not_logged=") {
			t.Errorf("the rest is not counted:\n%s", strings.Join(got, "\n"))
		}
	})
}

func TestTroubles_TakeWhatComesAndGoesForOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, lines := newLog()
		troubles := logs.NewTroubles(log)
		for range 10_000 {
			troubles.Say(t.Context(), logs.Trouble{Message: message, Err: errors.New("deadlock detected")})
			wait(time.Millisecond)
			troubles.Over(t.Context(), message, "")
		}
		want(t, lines(), `level=INFO msg="waiting for the store" error="deadlock detected"`, `level=INFO msg="waiting for the store: over" took=1ms tries=1 places=1`)
		wait(logs.Rest)
		troubles.Say(t.Context(), logs.Trouble{Message: message, Err: errors.New("deadlock detected")})
		want(t, lines(), `level=INFO msg="waiting for the store" not_logged=9999 error="deadlock detected"`)
	})
}

func TestTroubles_ForgetAPlaceWithoutAWord(t *testing.T) {
	t.Parallel()
	log, lines := newLog()
	troubles := logs.NewTroubles(log)
	troubles.Say(t.Context(), logs.Trouble{Message: message, Of: "a", Err: errors.New("refused")})
	troubles.Say(t.Context(), logs.Trouble{Message: "another", Of: "b", Err: errors.New("refused")})
	troubles.Forget("a")
	troubles.Over(t.Context(), message, "a")
	want(t, lines(), `level=INFO msg="waiting for the store" error=refused`, "level=INFO msg=another error=refused")
	troubles.Over(t.Context(), "another", "b")
	if got := lines(); len(got) != 1 || !strings.Contains(got[0], "another: over") {
		t.Errorf("got %q", got)
	}
}

func TestTroubles_WithoutOneCostNothing(t *testing.T) {
	troubles := logs.NewTroubles(slog.New(slog.DiscardHandler))
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() { troubles.Over(ctx, message, "a"); troubles.Forget("a") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAlike_MasksNumbersButKeepsAddresses(t *testing.T) {
	t.Parallel()
	for text, masked := range map[string]string{
		"no answer":                            "no answer",
		"write usage.events/12 [120,140): EOF": "write usage.events/# [#,#): EOF",
		"read tcp 127.0.0.1:40322->127.0.0.1:5432: i/o timeout":          "read tcp 127.0.0.1:#->127.0.0.1:5432: i/o timeout",
		"dial tcp 10.0.0.7:9092: connection refused (and 7 more)":        "dial tcp 10.0.0.7:9092: connection refused (and # more)",
		"elapsed 2008.447 ms, until 2026-11-28T14:27:50.698Z, 3.":        "elapsed # ms, until #-#-#T#Z, #.",
		"lookup localhost:5432: no answer":                               "lookup localhost:5432: no answer",
		"code: 241, message: Memory limit exceeded: 17 of 18.":           "code: #, message: Memory limit exceeded: # of #.",
		"lookup kafka-0.kafka.svc on 10.96.0.10:53: no such host, try 3": "lookup kafka-#.kafka.svc on 10.96.0.10:53: no such host, try #",
	} {
		if got := logs.Alike(text); got != masked {
			t.Errorf("%q\n got %q\nwant %q", text, got, masked)
		}
	}
}
