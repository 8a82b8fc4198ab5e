package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenantflow/internal/archive"
)

// archivedUsage makes an installation with events in usage.events, and an archive of them. It returns its environment and directory.
func archivedUsage(t *testing.T) (environ []string, root string) {
	t.Helper()
	environ = ownStores(t)
	if out, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatal(out, errOut)
	}
	file := filepath.Join(t.TempDir(), "events.jsonl")
	lines, errOut, code := tenantflow(t, nil, "generate", "usage", "--count", "500", "--start", time.Now().UTC().Add(-time.Hour).Format(time.RFC3339))
	if code != exitDone {
		t.Fatal(errOut)
	}
	write(t, file, lines)
	if out, errOut, code := tenantflow(t, environ, "produce", "--topic", "usage.events", "--file", file); code != exitDone {
		t.Fatal(out, errOut)
	}
	root = t.TempDir()
	environ = append(environ, "TENANTFLOW_ARCHIVE_DIR="+root)
	out, errOut, code := tenantflow(t, environ, "archive", "-o", "json")
	var r archive.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitDone || r.Records != 500 {
		t.Fatalf("exit code %d, %v: %s%s", code, err, out, errOut)
	}
	return environ, root
}

// flipped changes one bit of a segment of the archive, and returns its path.
func flipped(t *testing.T, root, topic string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, topic, "*.segment"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%v: no segments", err)
	}
	b, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	write(t, paths[0], string(b))
	return paths[0]
}

func TestArchive_ADamagedOneIsNamedAndNotReplayed(t *testing.T) {
	t.Parallel()
	environ, root := archivedUsage(t)
	if out, errOut, code := tenantflow(t, environ, "archive", "verify"); code != exitDone || !strings.Contains(out, "500") {
		t.Fatalf("exit code %d: %s%s", code, out, errOut)
	}
	path := flipped(t, root, t.Name()+".usage.events")
	out, errOut, code := tenantflow(t, environ, "archive", "verify")
	if code != exitFailed || !strings.Contains(out, path) || !strings.Contains(errOut, "Put the files back from a copy") {
		t.Errorf("verify: exit code %d: %s%s", code, out, errOut)
	}
	before := len(readUsage(t, environ))
	out, errOut, code = tenantflow(t, environ, "replay", "usage.events", "--from-archive", root, "--yes")
	if code != exitFailed || !strings.Contains(errOut, path) || !strings.Contains(errOut, "Nothing of it is used") {
		t.Errorf("replay: exit code %d: %s%s", code, out, errOut)
	}
	if after := len(readUsage(t, environ)); after != before {
		t.Errorf("%d messages were published", after-before)
	}
}

func TestArchive_WhatIsAskedForIsChecked(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, c := range []struct {
		name string
		args []string
		says string
	}{
		{"no directory", []string{"archive"}, "--dir is missing"},
		{"a topic with addresses", []string{"archive", "--dir", root, "--topic", "company.events"}, "--with-addresses"},
		{"results have them, too", []string{"archive", "--dir", root, "--topic", "company.results"}, "--with-addresses"},
		{"no such topic", []string{"archive", "--dir", root, "--topic", "usage"}, "there is no such topic"},
		{"a time that is none", []string{"archive", "--dir", root, "--from", "yesterday"}, "--from yesterday"},
		{"an end before the beginning", []string{"archive", "--dir", root, "--from", "2026-02-01T00:00:00Z", "--to", "2026-01-01T00:00:00Z"}, "is not before"},
		{"an end that never comes", []string{"archive", "--dir", root, "--to", "2026-02-01T00:00:00Z", "--follow"}, "--follow"},
		{"two sources", []string{"replay", "usage.events", "--from-archive", root, "--from-file", "x", "--dry-run"}, "two sources"},
	} {
		if _, errOut, code := tenantflow(t, deadStores(), c.args...); code != exitInvalid || !strings.Contains(errOut, c.says) {
			t.Errorf("%s: exit code %d: %s", c.name, code, errOut)
		}
	}
	if _, errOut, code := tenantflow(t, nil, "archive", "verify", "--dir", root); code != exitFailed || !strings.Contains(errOut, "holds no archive") {
		t.Errorf("an empty directory: exit code %d: %s", code, errOut)
	}
}

func TestArchive_ThePartJobsKeepsItUp(t *testing.T) {
	t.Parallel()
	environ, root := archivedUsage(t)
	// Without Postgres and ClickHouse: the archive needs neither.
	environ = append(environ, "TENANTFLOW_POSTGRES_DSN=postgres://127.0.0.1:1/none", "TENANTFLOW_CLICKHOUSE_DSN=http://127.0.0.1:1/none",
		"TENANTFLOW_ARCHIVE_INTERVAL=1s", "TENANTFLOW_HTTP_ADDR=127.0.0.1:0")
	p := start(t, "tenantflow", environ, "run", "--only", "jobs")
	topic := t.Name() + ".usage.events"
	records := func() int64 {
		a, err := archive.Open(root, topic)
		if err != nil {
			return 0
		}
		n := int64(0)
		for _, p := range a.Manifest().Partitions {
			n += p.Records
		}
		return n
	}
	lines, _, _ := tenantflow(t, nil, "generate", "usage", "--count", "100", "--seed", "9", "--start", time.Now().UTC().Add(-time.Hour).Format(time.RFC3339))
	file := filepath.Join(t.TempDir(), "more.jsonl")
	write(t, file, lines)
	if out, errOut, code := tenantflow(t, environ, "produce", "--topic", "usage.events", "--file", file); code != exitDone {
		t.Fatal(out, errOut)
	}
	eventually(t, func() bool { return records() == 600 })
	eventually(t, func() bool {
		_, body := get(t, p.url+"/metrics")
		return strings.Contains(body, `tenantflow_archive_records_total{topic="`+topic+`"} 100`)
	})
	p.signal(t, syscall.SIGTERM)
	if log, code := p.wait(t); code != exitDone {
		t.Errorf("exit code %d: %s", code, log)
	}
}
