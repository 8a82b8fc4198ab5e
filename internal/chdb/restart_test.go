package chdb_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	osexec "os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/chdb"
	"tenantflow/internal/engine/enginetest"
)

// runChild is the ClickHouse process of these tests: it prints its address when it takes queries.
func runChild(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	config := chdb.Config{
		Options: chdb.Options{Library: libraryPath(), Dir: filepath.Join(dir, "data")},
		Listen:  "127.0.0.1:0",
		Scratch: filepath.Join(dir, "scratch"),
		Log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if err := chdb.Run(ctx, config, func(addr net.Addr) { fmt.Fprintln(os.Stdout, addr) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child is a ClickHouse process that a test may kill.
type child struct {
	cmd  *osexec.Cmd
	conn clickhouse.Conn
}

// startChild runs ClickHouse on a directory and waits until it takes queries.
func startChild(t *testing.T, dir string) *child {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "scratch"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := osexec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("ClickHouse did not start: %v", err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	conn, err := clickhouse.Open(&clickhouse.Options{Protocol: clickhouse.HTTP, Addr: []string{strings.TrimSpace(addr)}, MaxOpenConns: 20, MaxIdleConns: 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &child{cmd, conn}
}

func (c *child) end(t *testing.T, signal syscall.Signal) (elapsed time.Duration) {
	t.Helper()
	begun := time.Now()
	if err := c.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	err := c.cmd.Wait()
	if signal == syscall.SIGTERM && err != nil {
		t.Errorf("a clean stop ended with %v", err)
	}
	return time.Since(begun)
}

func TestDataSurvivesKillsAndCleanStops(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const rounds = 6
	for round := range rounds {
		c := startChild(t, dir)
		if round == 0 {
			exec(t, c.conn, "CREATE DATABASE kept", "CREATE TABLE kept.t (a UInt64, s String) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100")
		}
		// What was acknowledged before the last end is there; the token is still known.
		for _, first := range []int{(round - 1) * 1000, round * 1000} {
			if first < 0 {
				continue
			}
			ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(insertSettings(fmt.Sprint(first))))
			if err := c.conn.InsertFormat(ctx, "Native", "INSERT INTO kept.t (a, s)", bytes.NewReader(nativeBlock(t, first, 1000))); err != nil {
				t.Fatal(err)
			}
		}
		if n := one[uint64](t, c.conn, "SELECT count() FROM kept.t"); n != uint64(round+1)*1000 {
			t.Fatalf("round %d: %d rows", round, n)
		}
		if round%2 == 0 {
			c.end(t, syscall.SIGKILL)
		} else {
			c.end(t, syscall.SIGTERM)
		}
	}
}

func TestAKilledServersBodiesAreRemovedByTheNext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := startChild(t, dir)
	exec(t, c.conn, "CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a",
		"CREATE TABLE slow (a UInt64) ENGINE = MergeTree ORDER BY a",
		"CREATE MATERIALIZED VIEW feed TO slow AS SELECT a + sleepEachRow(60) AS a FROM t") // until it is killed
	go func() {
		ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(slowly(clickhouse.Settings{})))
		_ = c.conn.InsertFormat(ctx, "Native", "INSERT INTO t (a, s)", bytes.NewReader(nativeBlock(t, 0, 10)))
	}()
	bodies := func() int {
		files, _ := filepath.Glob(filepath.Join(dir, "scratch", "*", "body-*"))
		return len(files)
	}
	eventually(t, func() bool { return bodies() == 1 })
	c.end(t, syscall.SIGKILL)
	if bodies() != 1 {
		t.Fatal("the body went with its server: this test shows nothing")
	}
	c = startChild(t, dir)
	if n := bodies(); n != 0 {
		t.Errorf("%d bodies of a dead server are left", n)
	}
	c.end(t, syscall.SIGTERM)
}

func TestTheSameTokenCompletesAViewWhosePartIsMissing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := startChild(t, dir)
	exec(t, c.conn,
		"CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100",
		"CREATE TABLE sums (k UInt8, n SimpleAggregateFunction(sum, Int64)) ENGINE = AggregatingMergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 100",
		"CREATE MATERIALIZED VIEW feed TO sums AS SELECT toUInt8(a % 3) AS k, toInt64(count()) + sleepEachRow(if(getSetting('log_comment') = 'slow', 60, 0)) AS n FROM t GROUP BY k")
	insert := func(comment string) error {
		settings := slowly(insertSettings("x"))
		settings["log_comment"] = comment
		ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(settings))
		return c.conn.InsertFormat(ctx, "Native", "INSERT INTO t (a, s)", bytes.NewReader(nativeBlock(t, 0, 7)))
	}
	state := func() string {
		return fmt.Sprint(one[uint64](t, c.conn, "SELECT count() FROM t"), one[int64](t, c.conn, "SELECT sum(n) FROM sums"))
	}
	go func() { _ = insert("slow") }()
	eventually(t, func() bool { return one[uint64](t, c.conn, "SELECT count() FROM t") == 7 })
	c.end(t, syscall.SIGKILL)

	c = startChild(t, dir)
	if got := state(); got != "7 0" {
		t.Fatalf("rows and sum of the view after the kill: %s, want 7 0", got)
	}
	for range 2 {
		if err := insert("again"); err != nil {
			t.Fatal(err)
		}
		if got := state(); got != "7 7" {
			t.Fatalf("rows and sum of the view after the same token again: %s, want 7 7", got)
		}
	}
	c.end(t, syscall.SIGTERM)
}

func TestACleanStopEndsLongQueries(t *testing.T) {
	t.Parallel()
	c := startChild(t, t.TempDir())
	ended := make(chan error, 1)
	const query = "SELECT sum(sleepEachRow(0.05)) FROM numbers(24000) SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0, log_comment = 'long'"
	go func() { ended <- c.conn.Exec(t.Context(), query) }() // twenty minutes
	eventually(t, func() bool {
		return one[uint64](t, c.conn, "SELECT count() FROM system.processes WHERE Settings['log_comment'] = 'long'") == 1
	})
	if took := c.end(t, syscall.SIGTERM); took > enginetest.Patience {
		t.Errorf("a clean stop took %v", took)
	}
	if <-ended == nil {
		t.Error("the query that was stopped has no error")
	}
}
