package clickhouse

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/engine/enginetest"
)

func TestStatementsBesideLiveTrafficHaveOneThread(t *testing.T) {
	t.Parallel()
	options, err := chgo.ParseDSN(enginetest.NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	options.Settings = chgo.Settings{"max_block_size": 1000}
	conn, err := Connect(Beside(options))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var threads, block uint64
	var nice int64
	const read = "SELECT toUInt64(getSetting('max_threads')), toUInt64(getSetting('max_block_size')), toInt64(getSetting('os_thread_priority'))"
	if err := conn.QueryRow(wholeContext(t.Context()), read).Scan(&threads, &block, &nice); err != nil {
		t.Fatal(err)
	}
	if threads != 1 || nice <= 0 || block != 1000 || options.Settings["max_threads"] != nil {
		t.Errorf("max_threads %d, os_thread_priority %d, max_block_size %d; the caller's own settings %v", threads, nice, block, options.Settings)
	}
}

// Its process stands still: connections are made and stay open, and nothing is answered.
func TestConnect_AFrozenServerIsNamedWithTheTimeItWasGiven(t *testing.T) {
	t.Parallel()
	server := enginetest.ClickHouse(t)
	options, err := chgo.ParseDSN(server.DSNOf("default") + "?max_open_conns=1&dial_timeout=2s")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Connect(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	var one uint8
	// A server that is busy may need several tries, before it is frozen at all.
	enginetest.Await(t, "an answer", func() bool { return conn.QueryRow(t.Context(), "SELECT 1").Scan(&one) == nil })
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	// How long it waited is what it says, and on a busy machine that is longer than the time it was given.
	said := func(what string, least time.Duration, err error) {
		t.Helper()
		if err == nil || Classify(err) != Transient {
			t.Fatalf("%s: %v", what, err)
		}
		text := err.Error()
		words, begins := strings.CutPrefix(text, "no answer within ")
		waited, where, _ := strings.Cut(words, " from ClickHouse at ")
		if d, wrong := time.ParseDuration(waited); !begins || wrong != nil || d < least || !strings.HasPrefix(where, server.Addr()) ||
			strings.Contains(text, "max open conn") || len(text) > 150 {
			t.Errorf("%s: %q, want that nothing came from %s within %s", what, text, server.Addr(), least)
		}
	}
	// The one connection there may be is taken by a query without an answer.
	long, end := context.WithCancel(t.Context())
	defer end()
	waiting := make(chan error, 1)
	go func() { waiting <- conn.Exec(long, "SELECT 1") }()
	taken := enginetest.Eventually(t.Context(), func() bool { return conn.Stats().Idle == 0 })
	if taken != nil {
		t.Fatal(taken)
	}
	said("a query behind it", 2*time.Second, conn.Exec(t.Context(), "SELECT 1"))
	end()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("a query that was ended: %v", err)
	}
	limited, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
	defer cancel()
	said("a query", time.Second, conn.QueryRow(limited, "SELECT 1").Scan(&one))
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	answered := enginetest.Eventually(t.Context(), func() bool {
		return conn.QueryRow(t.Context(), "SELECT 1").Scan(&one) == nil
	})
	if answered != nil {
		t.Fatal(answered)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	// A connection from before ends first, without an answer, and then the next one is refused.
	refused := enginetest.Eventually(t.Context(), func() bool {
		err = conn.Exec(t.Context(), "SELECT 1")
		if err == nil || !strings.HasPrefix(err.Error(), "ask ClickHouse at "+server.Addr()) {
			t.Fatalf("of a server that is gone: %v", err)
		}
		return strings.Contains(err.Error(), "refused")
	})
	if refused != nil {
		t.Fatal(refused)
	}
	if outcome(err) != NotSent {
		t.Errorf("the outcome of a refused connection is %v", outcome(err))
	}
}
