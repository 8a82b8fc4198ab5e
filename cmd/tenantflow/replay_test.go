package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/task"
)

// An operator finds what is missing, brings a part of it back in the foreground and the rest by the service.
func TestReplay_FromTheCommandLine(t *testing.T) {
	t.Parallel()
	prefix := enginetest.NewTopic(t, 1) + "." // only for its name, which no other test has
	database := enginetest.NewDatabase(t)
	environ := []string{
		"TENANTFLOW_KAFKA_BROKERS=" + enginetest.SharedKafka(t).Addr(),
		"TENANTFLOW_CLICKHOUSE_DSN=" + database,
		"TENANTFLOW_POSTGRES_DSN=" + enginetest.NewPostgresDatabase(t),
		"TENANTFLOW_TOPIC_PREFIX=" + prefix,
		"TENANTFLOW_TOPIC_PARTITIONS=2",
		"TENANTFLOW_GROUP_PREFIX=" + prefix + "group",
		"TENANTFLOW_HTTP_ADDR=127.0.0.1:0",
		"TENANTFLOW_USAGE_BATCH_INTERVAL=50ms",
	}
	run := func(args ...string) (stdout, stderr string) {
		t.Helper()
		stdout, stderr, code := tenantflow(t, environ, args...)
		if code != exitDone {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
		return stdout, stderr
	}
	run("migrate")
	lines, _ := run("generate", "usage", "--count", "1000", "--seed", "3", "--resends", "0", "--late", "0")
	file := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	run("produce", "--topic", "usage.events", "--file", file)
	service := start(t, "tenantflow", environ, "run", "--only", "usage,jobs")
	options, err := chgo.ParseDSN(database)
	if err != nil {
		t.Fatal(err)
	}
	db := chgo.OpenDB(options)
	defer func() { _ = db.Close() }()
	stored := func() (n int64) {
		if err := db.QueryRowContext(t.Context(), "SELECT toInt64(count()) FROM usage_tracking").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	eventually(t, func() bool { return stored() == 1000 })
	if _, err := db.ExecContext(t.Context(), "ALTER TABLE usage_tracking DELETE WHERE cityHash64(event_id) % 10 = 0 SETTINGS mutations_sync = 2"); err != nil {
		t.Fatal(err)
	}
	missing := 1000 - stored()

	type counted struct {
		ID     string      `json:"task_id"`
		State  task.State  `json:"state"`
		Counts task.Counts `json:"counts"`
		Read   int64       `json:"read"`
	}
	read := func(text string) (c counted) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return c
	}
	list := filepath.Join(t.TempDir(), "missing.jsonl")
	var dry counted
	eventually(t, func() bool { // all of it is consumed when that is committed
		out, _ := run("replay", "usage.events", "--dry-run", "--list", list, "-o", "json")
		dry = read(out)
		return dry.Read == 1000
	})
	named, err := os.ReadFile(list)
	if err != nil || dry.Counts["published"] != missing || int64(strings.Count(string(named), "\n")) != missing {
		t.Fatalf("%d rows are missing; the dry run counts %v and lists %d, %v", missing, dry.Counts, strings.Count(string(named), "\n"), err)
	}
	first, _, _ := strings.Cut(string(named), "\n")
	if err := os.WriteFile(list, []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := run("replay", "usage.events", "--ids-from", list, "--yes", "-o", "json")
	if one := read(out); one.State != task.Done || one.Counts["published"] != 1 || one.Counts["filtered"] != 999 {
		t.Errorf("the replay of one event: %+v", one)
	}
	out, said := run("replay", "usage.events", "--yes", "--detach", "-o", "json")
	left := read(out)
	if !strings.Contains(said, "task show "+left.ID) {
		t.Errorf("a detached replay says %q", said)
	}
	eventually(t, func() bool {
		out, _ := run("task", "show", left.ID, "-o", "json")
		left = read(out)
		return left.State == task.Done
	})
	if left.Counts["published"]+left.Counts["already_there"] != left.Read || left.Counts["published"] < missing-1 {
		t.Errorf("the service has done %+v, %d rows were missing", left, missing)
	}
	eventually(t, func() bool { return stored() == 1000 })
	table, _ := run("task", "ls")
	if !strings.Contains(table, left.ID) || !strings.Contains(table, strconv.FormatInt(left.Read, 10)) {
		t.Errorf("the list of tasks:\n%s", table)
	}
	if _, stderr, code := tenantflow(t, environ, "task", "resume", left.ID); code != exitFailed || !strings.Contains(stderr, "is done: it can't be resumed") {
		t.Errorf("resuming a task that is done: exit code %d, %s", code, stderr)
	}
	service.signal(t, syscall.SIGTERM)
	if log, code := service.wait(t); code != exitDone {
		t.Errorf("exit code %d; log:\n%s", code, log)
	}
}
