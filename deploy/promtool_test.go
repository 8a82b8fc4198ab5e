package deploy

import (
	"os/exec"
	"testing"

	"tenantflow/internal/engine/enginetest"
)

func TestPrometheus_RulesAndConfigurationPassPromtool(t *testing.T) {
	t.Parallel()
	promtool := enginetest.Promtool(t)
	for _, args := range [][]string{
		{"check", "config", "prometheus/prometheus.yml"},
		{"check", "rules", "prometheus/alerts.yml"},
		{"test", "rules", "prometheus/alerts.test.yml"},
	} {
		out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput()
		if err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// cases are how often an alert is expected in the tests of the rules, and how often it is not.
type cases struct{ fires, silent int }

func alertCases(t *testing.T) map[string]cases {
	t.Helper()
	const path = "prometheus/alerts.test.yml"
	var file struct {
		Tests []struct {
			Alerts []struct {
				Name     string `yaml:"alertname"`
				Expected []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}
	unmarshal(t, path, readFile(t, path), &file)
	all := map[string]cases{}
	for _, test := range file.Tests {
		for _, a := range test.Alerts {
			c := all[a.Name]
			if len(a.Expected) > 0 {
				c.fires++
			} else {
				c.silent++
			}
			all[a.Name] = c
		}
	}
	return all
}
