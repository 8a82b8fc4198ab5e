package deploy

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files again") //nolint:gochecknoglobals // a flag

const catalogueIntro = `# Metrics

Every metric of ` + "`GET /metrics`" + `, from the registry. Times are in seconds, sizes in bytes. Which to watch, and what their alerts mean:
[operations.md](operations.md), [quota-alerts.md](quota-alerts.md), [tenant-alerts.md](tenant-alerts.md). A process has those of the parts it runs.
Beside these there are those of the Go runtime and of the process, ` + "`go_*`, `process_*` and `promhttp_*`" + `, which
[client_golang](https://github.com/prometheus/client_golang) describes.

No label's value is a company or a user. ` + "`consumer`" + ` is a part (usage, quota, company, subscription), ` + "`topic`" + ` is with its prefix.
A histogram has the series ` + "`NAME_bucket{le}`, `NAME_sum` and `NAME_count`" + `.

<!-- Generated: go test ./deploy -run TestMetricsDocument -update -->

| metric | type | labels | meaning |
| --- | --- | --- | --- |
`

// catalogue is docs/metrics.md.
func catalogue(all []metric) string {
	var b strings.Builder
	b.WriteString(catalogueIntro)
	for _, m := range all {
		labels := ""
		if len(m.labels) > 0 {
			labels = "`" + strings.Join(m.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, labels, strings.ReplaceAll(m.help, "|", `\|`))
	}
	return b.String()
}

func TestMetricsDocument_IsThatOfTheRegistry(t *testing.T) {
	t.Parallel()
	var all []metric
	for _, m := range metrics(t).all {
		if strings.HasPrefix(m.name, "tenantflow_") {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	for i, m := range all {
		if i > 0 && all[i-1].name == m.name {
			t.Errorf("%s is registered twice", m.name)
		}
		if !strings.HasSuffix(m.help, ".") {
			t.Errorf("the help of %s is no sentence: %q", m.name, m.help)
		}
		for _, label := range m.labels {
			if strings.Contains(label, "company") || strings.Contains(label, "user") {
				t.Errorf("%s has a label %s: companies and users don't belong into labels", m.name, label)
			}
		}
	}
	const path = "../docs/metrics.md"
	want := catalogue(all)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := readFile(t, path); got != want {
		t.Errorf("%s is not what the registry says; write it with: go test ./deploy -run TestMetricsDocument -update", path)
	}
}
