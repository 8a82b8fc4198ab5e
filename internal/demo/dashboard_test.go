package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
)

// unseen are the queries of the dashboard that may have no data in a demo, because what they count need not happen: some of it does
// where a kill comes at the moment for it.
var unseen = map[string]string{ //nolint:gochecknoglobals // a constant
	"tenantflow_offset_out_of_range_total": "the log holds every offset",
	"tenantflow_quota_rewinds_total":       "no progress went back",
	"tenantflow_quota_rebuilds_total":      "no counter was lost",
}

// checkPanels asks every query of the operator's dashboard for the time since. Each has data but for those that need not, and each panel has
// some.
func (p *prometheus) checkPanels(t *testing.T, since time.Time) {
	t.Helper()
	for title, queries := range panels(t) {
		some := false
		for _, query := range queries {
			has, err := p.hasData(t.Context(), query, since)
			if err != nil || !has && reasonUnseen(query) == "" {
				t.Errorf("%s: %s has no data: %v", title, query, err)
			}
			some = some || has
		}
		if !some {
			t.Errorf("%s has no data", title)
		}
	}
}

func reasonUnseen(query string) string {
	for metric, why := range unseen {
		if strings.Contains(query, metric) {
			return why
		}
	}
	return ""
}

// panels are the queries of the dashboard by the title of their panel, as Grafana would send them.
func panels(t *testing.T) map[string][]string {
	t.Helper()
	root, err := engine.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy/grafana/dashboards/tenantflow.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all[panel.Title] = append(all[panel.Title], strings.NewReplacer("$instance", ".*", "$__rate_interval", "10s").Replace(target.Expr))
		}
	}
	if len(all) < 15 {
		t.Fatalf("only %d panels were found", len(all))
	}
	return all
}

// A prometheus scrapes what its file of targets names.
type prometheus struct{ targets, address string }

func startPrometheus(t *testing.T, dir string) *prometheus {
	t.Helper()
	port, release, err := engine.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	p := &prometheus{filepath.Join(dir, "targets.json"), fmt.Sprintf("127.0.0.1:%d", port)}
	config := filepath.Join(dir, "prometheus.yml")
	err = os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 500ms, scrape_timeout: 500ms}
scrape_configs:
  - job_name: tenantflow
    file_sd_configs: [{files: [%q], refresh_interval: 500ms}]
`, p.targets), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(filepath.Dir(enginetest.Promtool(t)), "prometheus"), //nolint:noctx // it is killed with this process
		"--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "tsdb"), "--web.listen-address", p.address)
	cmd.Stdout, cmd.Stderr = &log, &log
	process, err := engine.Run(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := process.Kill(); err != nil || t.Failed() {
			t.Logf("prometheus: %v\n%s", err, tail(log.Bytes()))
		}
	})
	enginetest.Await(t, "prometheus is ready", func() bool {
		_, err := p.get(t.Context(), "/-/ready", nil)
		return err == nil
	})
	return p
}

// follow makes the service that the log speaks of the one target.
func (p *prometheus) follow(ctx context.Context, log string) error {
	s := &service{dir: filepath.Dir(log)}
	for known := ""; ; {
		s.http = ""
		text, err := os.ReadFile(log)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if i := bytes.LastIndex(text, []byte(`"service started"`)); i >= 0 {
			s.logged = int64(bytes.LastIndexByte(text[:i], '\n') + 1)
			if address, err := s.address(); err == nil && address != known {
				known = address
				if err := p.target(address); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// target writes the file of targets, in one step.
func (p *prometheus) target(address string) error {
	text := fmt.Appendf(nil, `[{"targets": [%q]}]`, address)
	return errors.Join(os.WriteFile(p.targets+".new", text, 0o600), os.Rename(p.targets+".new", p.targets))
}

// hasData reports whether a query has had a number at any time since.
func (p *prometheus) hasData(ctx context.Context, query string, since time.Time) (bool, error) {
	now := time.Now()
	seconds := func(at time.Time) string { return strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', -1, 64) }
	step := max(time.Second, now.Sub(since)/10_000)
	body, err := p.get(ctx, "/api/v1/query_range", url.Values{"query": {query}, "start": {seconds(since)}, "end": {seconds(now)}, "step": {step.String()}})
	if err != nil {
		return false, err
	}
	var answer struct {
		Data struct {
			Result []struct{ Values [][2]any }
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return false, err
	}
	for _, series := range answer.Data.Result {
		for _, sample := range series.Values {
			text, _ := sample[1].(string)
			if f, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(f) {
				return true, nil
			}
		}
	}
	return false, nil
}

func (p *prometheus) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return body, err
}
