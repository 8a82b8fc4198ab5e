package deploy

import (
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/archive"
	"tenantflow/internal/business"
	"tenantflow/internal/certs"
	"tenantflow/internal/directory"
	"tenantflow/internal/health"
	"tenantflow/internal/httpapi"
	"tenantflow/internal/jobs"
	"tenantflow/internal/kafka"
	running "tenantflow/internal/service"
	"tenantflow/internal/telemetry"
	"tenantflow/internal/token"
	"tenantflow/internal/totals"
	"tenantflow/internal/trace"
	"tenantflow/internal/verify"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/dragonfly"
)

// A listener is a registerer that only notes what is registered: a metric with labels has no value yet that a registry
// could gather.
type listener struct {
	all    []metric
	names  []string
	labels []string
}

// A metric is what a registry knows of one.
type metric struct {
	name, kind, help string
	labels           []string
}

// described takes a prometheus.Desc apart, which shows its name and labels in no other way.
var described = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: ("(?:[^"\\]|\\.)*"), .*constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

func (l *listener) Register(c prometheus.Collector) error {
	kind := kindOf(c)
	descriptions := make(chan *prometheus.Desc)
	go func() {
		c.Describe(descriptions)
		close(descriptions)
	}()
	for d := range descriptions {
		m := described.FindStringSubmatch(d.String())
		if m == nil {
			panic("a description of another form: " + d.String())
		}
		help, err := strconv.Unquote(m[2])
		if err != nil {
			panic("a help text of another form: " + d.String())
		}
		one := metric{name: m[1], kind: kind(m[1]), help: help}
		for label := range strings.FieldsFuncSeq(m[3]+","+m[4], func(r rune) bool { return r == ',' }) {
			name, _, _ := strings.Cut(label, "=")
			one.labels = append(one.labels, name)
		}
		l.all = append(l.all, one)
		l.names = append(l.names, one.name)
		l.labels = append(l.labels, one.labels...)
	}
	return nil
}

// kindOf returns a function that says of which type the metrics of a collector are, which no description says.
func kindOf(c prometheus.Collector) func(name string) string {
	always := func(kind string) func(string) string { return func(string) string { return kind } }
	switch of := c.(type) {
	case *prometheus.CounterVec:
		return always("counter")
	case *prometheus.GaugeVec:
		return always("gauge")
	case *prometheus.HistogramVec:
		return always("histogram")
	case *prometheus.Registry:
		families, err := of.Gather()
		if err != nil {
			panic(err)
		}
		return func(name string) string {
			for _, f := range families {
				if f.GetName() == name {
					return strings.ToLower(f.GetType().String())
				}
			}
			panic(name + " has no value yet that says its type")
		}
	case prometheus.Metric:
		alone := prometheus.NewRegistry() // it has one value at any time
		alone.MustRegister(c)
		return kindOf(alone)
	}
	// Collectors of our own. Whether this is right, a scrape of the whole service shows (cmd/tenantflow).
	return func(name string) string {
		if strings.HasSuffix(name, "_total") {
			return "counter"
		}
		return "gauge"
	}
}

func (l *listener) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = l.Register(c)
	}
}

func (l *listener) Unregister(prometheus.Collector) bool { return false }

// metrics registers everything `tenantflow run` registers.
func metrics(t *testing.T) *listener {
	t.Helper()
	var l listener
	kafka.NewMetrics(&l, "usage")
	consumers.NewUsage(nil, consumers.UsageConfig{Registry: &l})
	consumers.NewQuota(consumers.QuotaConfig{Registry: &l})
	consumers.NewTenantMetrics(&l)
	consumers.NewVoidMetrics(&l)
	consumers.NewActivity(consumers.ActivityConfig{Registry: &l})
	directory.New(directory.Config{Metrics: &l})
	running.TaskMetrics(&l)
	totals.NewWatcher(new(totals.Checker), nil, totals.WatchConfig{Registry: &l})
	archive.NewMetrics(&l)
	business.NewGauges(&l)
	verify.NewSchedule(verify.ScheduleConfig{Interval: time.Hour, Registry: &l})
	jobs.NewMetrics(&l, events.Jobs()...)
	consumers.NewJobs(consumers.JobsConfig{Registry: &l})
	log := slog.New(slog.DiscardHandler)
	tracker := health.New(time.Minute, log)
	http := prometheus.NewRegistry()
	tokens, err := token.Open("tokens.json", log)
	if err != nil {
		t.Fatal(err)
	}
	httpapi.New(httpapi.Options{Health: tracker, Metrics: http, Log: log, API: httpapi.NewAPI(tokens, log)})
	l.MustRegister(
		http,
		new(clickhouse.Store).Collector(),
		new(dragonfly.Store).Collector(),
		tracker.Collector(),
		trace.Metrics(),
		certs.NewCollector(nil),
		telemetry.NewRegistry(telemetry.Build{}),
	)
	for _, name := range []string{"part_ready", "usage_rows_total", "quota_events_total", "quota_rebuilding", "directory_entries", "http_requests_total"} {
		if !slices.Contains(l.names, "tenantflow_"+name) || !slices.Contains(l.labels, "reason") {
			t.Fatalf("%s was not found: %v", name, l)
		}
	}
	return &l
}

var (
	metricName = regexp.MustCompile(`\b(?:tenantflow|go|process)_[a-z0-9_]+`)
	grouping   = regexp.MustCompile(`\bby \(([^)]*)\)`)
	matcher    = regexp.MustCompile(`[{,]\s*([a-z_]+)\s*(?:=~|!~|!=|=)`)
	shown      = regexp.MustCompile(`\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}`)
)

// check holds an expression, and the words around it, against the metrics that exist.
func (l *listener) check(t *testing.T, where, expression string, words ...string) {
	t.Helper()
	for _, name := range metricName.FindAllString(expression, -1) {
		base := name
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if trimmed, ok := strings.CutSuffix(name, suffix); ok && strings.HasSuffix(trimmed, "_seconds") {
				base = trimmed
			}
		}
		if !slices.Contains(l.names, base) {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
	// What Prometheus itself adds.
	known := append([]string{"instance", "job", "le", "alertname", "alertstate"}, l.labels...)
	var labels []string
	for _, m := range grouping.FindAllStringSubmatch(expression, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			labels = append(labels, strings.TrimSpace(label))
		}
	}
	for _, m := range matcher.FindAllStringSubmatch(expression, -1) {
		labels = append(labels, m[1])
	}
	for _, m := range shown.FindAllStringSubmatch(strings.Join(words, "\n"), -1) {
		labels = append(labels, m[1])
	}
	for _, label := range labels {
		if !slices.Contains(known, label) {
			t.Errorf("%s: no metric has a label %s", where, label)
		}
	}
}

type rules struct {
	Groups []struct {
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Record      string            `yaml:"record"`
			Keep        string            `yaml:"keep_firing_for"`
			Expr        string            `yaml:"expr"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

func TestEveryAlertWatchesAMetricThatExistsAndNamesItsRunbook(t *testing.T) {
	t.Parallel()
	const path = "prometheus/alerts.yml"
	var r rules
	unmarshal(t, path, readFile(t, path), &r)
	l := metrics(t)
	cases := alertCases(t)
	seen := map[string]bool{}
	for _, group := range r.Groups {
		for _, rule := range group.Rules {
			if rule.Record != "" {
				l.check(t, rule.Record, rule.Expr)
				continue
			}
			if rule.Alert == "" || seen[rule.Alert] {
				t.Errorf("an alert without a name, or twice: %q", rule.Alert)
			}
			seen[rule.Alert] = true
			summary, description := rule.Annotations["summary"], rule.Annotations["description"]
			l.check(t, rule.Alert, rule.Expr, summary, description)
			if summary == "" || description == "" || !slices.Contains([]string{"page", "ticket"}, rule.Labels["severity"]) {
				t.Errorf("%s: summary %q, description %q, labels %v", rule.Alert, summary, description, rule.Labels)
			}
			file, anchor, _ := strings.Cut(rule.Annotations["runbook"], "#")
			if _, err := os.Stat(filepath.Join("..", file)); err != nil || !slices.Contains(anchors(t, filepath.Join("..", file)), anchor) {
				t.Errorf("%s: no heading %s#%s", rule.Alert, file, anchor)
			}
			if rule.Keep == "" {
				t.Errorf("%s has no keep_firing_for", rule.Alert)
			}
			if c := cases[rule.Alert]; c.fires == 0 || c.silent == 0 {
				t.Errorf("%s has %d cases in alerts.test.yml in which it fires and %d in which it must not, want one of each", rule.Alert, c.fires, c.silent)
			}
		}
	}
	if len(seen) < 8 {
		t.Errorf("only %d alerts were found", len(seen))
	}
}

// anchors are the names by which the headings of a Markdown file can be linked to.
func anchors(t *testing.T, path string) []string {
	t.Helper()
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(readFile(t, path), -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

func TestEveryPanelShowsAMetricThatExists(t *testing.T) {
	t.Parallel()
	type target struct {
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	}
	type source struct {
		UID string `json:"uid"`
	}
	var dashboard struct {
		Panels []struct {
			ID         int                      `json:"id"`
			Type       string                   `json:"type"`
			Title      string                   `json:"title"`
			Datasource source                   `json:"datasource"`
			GridPos    struct{ X, Y, W, H int } `json:"gridPos"`
			Targets    []target                 `json:"targets"`
		} `json:"panels"`
		Annotations struct {
			List []struct {
				Expr        string `json:"expr"`
				TitleFormat string `json:"titleFormat"`
			} `json:"list"`
		} `json:"annotations"`
		Templating struct {
			List []struct {
				Definition string `json:"definition"`
			} `json:"list"`
		} `json:"templating"`
	}
	if err := json.Unmarshal([]byte(readFile(t, "grafana/dashboards/tenantflow.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	var sources struct {
		Datasources []struct{ UID string } `yaml:"datasources"`
	}
	unmarshal(t, "prometheus.yml", readFile(t, "grafana/provisioning/datasources/prometheus.yml"), &sources)

	l := metrics(t)
	cells, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range dashboard.Panels {
		if p.Type != "row" && (len(p.Targets) == 0 || p.Datasource.UID != sources.Datasources[0].UID) {
			t.Errorf("%s: %d targets, data source %s", p.Title, len(p.Targets), p.Datasource.UID)
		}
		for _, q := range p.Targets {
			l.check(t, p.Title, q.Expr, q.LegendFormat)
		}
		if ids[p.ID] {
			t.Errorf("%s: the id %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies over %q, or outside", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
	}
	for _, a := range dashboard.Annotations.List {
		l.check(t, "annotation", a.Expr, a.TitleFormat)
	}
	for _, v := range dashboard.Templating.List {
		l.check(t, "variable", v.Definition)
	}
	if len(ids) < 10 {
		t.Errorf("only %d panels were found", len(ids))
	}
}

func TestPrometheusAsksWhoIsThere(t *testing.T) {
	t.Parallel()
	var cfg struct {
		RuleFiles []string `yaml:"rule_files"`
		Scrape    []struct {
			Job    string `yaml:"job_name"`
			Static []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	unmarshal(t, "prometheus.yml", readFile(t, "prometheus/prometheus.yml"), &cfg)
	for _, file := range cfg.RuleFiles {
		if _, err := os.Stat(filepath.Join("prometheus", file)); err != nil {
			t.Error(err)
		}
	}
	c := compose(t)
	ports := map[string]string{
		"tenantflow": dockerfile(t).exposed,
		"clickhouse": regexp.MustCompile(`<port>(\d+)</port>`).FindStringSubmatch(readFile(t, "clickhouse/tenantflow.xml"))[1],
	}
	asked := map[string]bool{}
	for _, job := range cfg.Scrape {
		asked[job.Job] = true
		for _, target := range job.Static[0].Targets {
			host, port, err := net.SplitHostPort(target)
			if err != nil {
				t.Fatal(err)
			}
			if host == "127.0.0.1" {
				continue
			}
			if _, ok := c.Services[host]; !ok || ports[host] != port {
				t.Errorf("%s asks %s, and %s answers on %q", job.Job, target, host, ports[host])
			}
		}
	}
	// The alerts and the dashboard name this job.
	if !asked["tenantflow"] {
		t.Errorf("nobody asks tenantflow: %v", asked)
	}
}
