package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tenantflow/internal/tenantmodel"
)

// Both parts of a stream go through produce, each to its own topic.
func TestGenerateCompaniesWritesWhatProduceTakes(t *testing.T) {
	t.Parallel()
	environ := ownStores(t)
	if out, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatal(out, errOut)
	}
	file := filepath.Join(t.TempDir(), "expected.json")
	args := []string{"generate", "companies", "--count", "10", "--events", "200", "--now", "2025-11-23T12:00:00Z", "--prefix", "t-", "--unknown", "1", "--expected", file}
	all, errOut, code := tenantflow(t, nil, args...)
	if code != exitDone || errOut != "" {
		t.Fatalf("exit code %d, %s", code, errOut)
	}
	written := 0
	for part, topic := range map[string]string{"companies": "company.events", "subscriptions": "subscription.events"} {
		lines, _, _ := tenantflow(t, nil, append(args, "--part", part)...)
		events := filepath.Join(t.TempDir(), part)
		write(t, events, lines)
		if out, errOut, code := tenantflow(t, environ, "produce", "--topic", topic, "--file", events); code != exitDone {
			t.Errorf("%s: exit code %d, %s%s", part, code, out, errOut)
		}
		for line := range strings.Lines(lines) {
			written++
			if !strings.Contains(all, line) {
				t.Fatalf("a line of the part %s is not in the whole: %s", part, line)
			}
		}
	}
	if n := strings.Count(all, "\n"); n != written || n < 190 {
		t.Errorf("%d lines in the whole, %d in the parts", n, written)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var expected tenantmodel.World
	if err := json.Unmarshal(text, &expected); err != nil || len(expected.Companies) != 10 || len(expected.Results) < 100 {
		t.Errorf("%v, %d companies, %d results are expected", err, len(expected.Companies), len(expected.Results))
	}
	for _, wrong := range [][2]string{{"--part", "both"}, {"--now", "today"}, {"--lapsed", "2"}, {"--count", "-1"}, {"--prefix", "a b"}} {
		if _, errOut, code := tenantflow(t, nil, append(args, wrong[:]...)...); code != exitInvalid || !strings.Contains(errOut, wrong[1]) {
			t.Errorf("%s %s: exit code %d, %s", wrong[0], wrong[1], code, errOut)
		}
	}
}
