package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
)

// The whole service, at work: what it says of its metrics is what docs/metrics.md says, and Prometheus' own check has no objection.
func TestMetrics_ScrapeIsDocumentedAndPassesPromtool(t *testing.T) {
	t.Parallel()
	tokens := filepath.Join(t.TempDir(), "tokens.json")
	write(t, tokens, readText(t, "../../deploy/tokens.json"))
	environ := append(ownStores(t),
		"TENANTFLOW_DRAGONFLY_URL="+enginetest.Redis(t).URL(),
		"TENANTFLOW_HTTP_ADDR=127.0.0.1:0",
		"TENANTFLOW_API_TOKENS_FILE="+tokens,
		"TENANTFLOW_ARCHIVE_DIR="+t.TempDir(),
		"TENANTFLOW_ARCHIVE_INTERVAL=1s",
	)
	if out, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatal(out, errOut)
	}
	p := start(t, "tenantflow", environ, "run")
	start := time.Now().UTC().Add(-time.Hour).Format(time.RFC3339)
	for topic, args := range map[string][]string{
		"usage.events":   {"generate", "usage", "--count", "300", "--start", start},
		"company.events": {"generate", "companies", "--count", "5", "--events", "40", "--part", "companies"},
	} {
		lines, errOut, code := tenantflow(t, nil, args...)
		if code != exitDone {
			t.Fatal(errOut)
		}
		file := filepath.Join(t.TempDir(), "events.jsonl")
		write(t, file, lines)
		if out, errOut, code := tenantflow(t, environ, "produce", "--topic", topic, "--file", file); code != exitDone {
			t.Fatal(out, errOut)
		}
	}
	var body string
	eventually(t, func() bool {
		status, _ := get(t, p.url+"/readyz")
		_, body = get(t, p.url+"/metrics")
		for _, sample := range []string{
			`tenantflow_batch_write_seconds_count{consumer="usage"`, `tenantflow_batch_write_seconds_count{consumer="quota"`,
			`tenantflow_batch_write_seconds_count{consumer="company"`, `tenantflow_partition_lag_seconds{consumer="subscription"`,
			"tenantflow_archive_records_total{", "tenantflow_tenant_results_total{", "tenantflow_quota_rebuilding ",
		} {
			if !strings.Contains(body, sample) {
				return false
			}
		}
		return status == http.StatusOK
	})

	documented := map[string][2]string{} // type and meaning
	row := regexp.MustCompile("(?m)^\\| `(tenantflow_[a-z0-9_]+)` \\| (\\w+) \\| [^|]* \\| (.+) \\|$")
	for _, m := range row.FindAllStringSubmatch(readText(t, "../../docs/metrics.md"), -1) {
		documented[m[1]] = [2]string{m[2], m[3]}
	}
	seen := 0
	line := regexp.MustCompile(`(?m)^# (HELP|TYPE) (tenantflow_\w+) (.+)$`)
	for _, m := range line.FindAllStringSubmatch(body, -1) {
		of, want := documented[m[2]], 0
		if m[1] == "HELP" {
			want, seen = 1, seen+1
		}
		if of[want] != m[3] {
			t.Errorf("docs/metrics.md says %q of %s, and the service %q: register it in deploy/metrics_test.go", of, m[2], m[3])
		}
	}
	if seen < 50 {
		t.Errorf("the service shows %d metrics, want 50 or more:\n%s", seen, body)
	}

	check := exec.CommandContext(t.Context(), enginetest.Promtool(t), "check", "metrics")
	check.Stdin = strings.NewReader(body)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
