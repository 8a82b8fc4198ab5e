// Package deploy holds what describes a deployment: images, alerts, dashboards. None of it can be run where there is no
// Docker, so the tests hold it against the code it speaks of: settings, metrics, routes, files.
package deploy

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"tenantflow/internal/config"
	"tenantflow/internal/token"
)

// A composition holds the parts of docker-compose.yml that the tests check, with the defaults of its variables filled in.
type composition struct {
	Services map[string]service        `yaml:"services"`
	Volumes  map[string]map[string]any `yaml:"volumes"`
}

type service struct {
	Image       string            `yaml:"image"`
	Build       map[string]any    `yaml:"build"`
	PullPolicy  string            `yaml:"pull_policy"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Ports       []string          `yaml:"ports"`
	Volumes     []string          `yaml:"volumes"`
	Restart     string            `yaml:"restart"`
	ReadOnly    bool              `yaml:"read_only"`
	Privileged  bool              `yaml:"privileged"`
	CapDrop     []string          `yaml:"cap_drop"`
	Logging     struct {
		Driver  string            `yaml:"driver"`
		Options map[string]string `yaml:"options"`
	} `yaml:"logging"`
	Grace       time.Duration `yaml:"stop_grace_period"`
	Healthcheck *struct {
		Test     []string      `yaml:"test"`
		Disable  bool          `yaml:"disable"`
		Interval time.Duration `yaml:"interval"`
		Timeout  time.Duration `yaml:"timeout"`
	} `yaml:"healthcheck"`
	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
}

// oneShot reports whether the service runs once and ends.
func (s *service) oneShot() bool { return s.Restart == "no" }

var variable = regexp.MustCompile(`\$\{([A-Za-z0-9_]+)(:-([^}]*))?\}`)

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func unmarshal(t *testing.T, path, text string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func compose(t *testing.T) composition {
	t.Helper()
	text := variable.ReplaceAllString(readFile(t, "../docker-compose.yml"), "$3")
	var c composition
	unmarshal(t, "docker-compose.yml", text, &c)
	if len(c.Services) < 8 {
		t.Fatalf("only %d services were found", len(c.Services))
	}
	return c
}

// pinned matches an image whose tag names one release: at least major and minor, and for programs that number their
// patches, the patch.
var pinned = regexp.MustCompile(`:v?\d+\.\d+(\.\d+)*(-[a-z]+)?$`)

func TestEveryImageIsPinned(t *testing.T) {
	t.Parallel()
	services := compose(t).Services
	builders := map[string]int{} // by image
	for _, s := range services {
		if s.Build != nil {
			builders[s.Image]++
		}
	}
	for name, s := range services {
		if builders[s.Image] == 0 && !pinned.MatchString(s.Image) {
			t.Errorf("%s: the image %q is not pinned to a release", name, s.Image)
		}
		// Compose pulls what it does not build.
		if builders[s.Image] > 0 && s.Build == nil && s.PullPolicy != "never" {
			t.Errorf("%s: the image %q is built by another service, but may be pulled", name, s.Image)
		}
	}
	// Parallel builds of one image fail.
	for image, n := range builders {
		if n != 1 {
			t.Errorf("%d services build %s", n, image)
		}
	}
}

func TestEveryServiceThatGoesOnRunningHasAHealthCheck(t *testing.T) {
	t.Parallel()
	for name, s := range compose(t).Services {
		h := s.Healthcheck
		switch {
		case s.oneShot():
			if h == nil || !h.Disable {
				t.Errorf("%s ends by itself, and the image's check of a running service is not off", name)
			}
		case h == nil || len(h.Test) < 2 || h.Disable:
			t.Errorf("%s has no health check", name)
		case h.Test[0] != "CMD" && h.Test[0] != "CMD-SHELL":
			t.Errorf("%s: a check begins with CMD or CMD-SHELL, not %q", name, h.Test[0])
		case h.Interval <= 0 || h.Timeout <= 0 || s.Restart == "":
			t.Errorf("%s: interval %s, timeout %s, restart %q", name, h.Interval, h.Timeout, s.Restart)
		}
	}
}

// The log of a container that runs for months must not fill the disk.
func TestCompose_EveryLogIsRotated(t *testing.T) {
	t.Parallel()
	for name, s := range compose(t).Services {
		size, files := s.Logging.Options["max-size"], s.Logging.Options["max-file"]
		if s.Logging.Driver != "json-file" || !regexp.MustCompile(`^[1-9][0-9]?m$`).MatchString(size) || !regexp.MustCompile(`^[1-9]$`).MatchString(files) {
			t.Errorf("%s: the log is kept by %q with max-size %q and max-file %q", name, s.Logging.Driver, size, files)
		}
	}
}

func TestEveryDependencyExistsAndItsConditionCanComeTrue(t *testing.T) {
	t.Parallel()
	c := compose(t)
	for name, s := range c.Services {
		for on, d := range s.DependsOn {
			target, ok := c.Services[on]
			if !ok {
				t.Errorf("%s depends on %s, which is not there", name, on)
				continue
			}
			want := "service_healthy"
			if target.oneShot() {
				want = "service_completed_successfully"
			}
			if d.Condition != want {
				t.Errorf("%s depends on %s with %q, want %q", name, on, d.Condition, want)
			}
		}
	}
	// The service waits for what it needs, and no service waits for itself.
	for _, store := range []string{"migrate", "kafka", "clickhouse", "postgres", "dragonfly"} {
		if _, ok := c.Services["tenantflow"].DependsOn[store]; !ok {
			t.Errorf("tenantflow does not wait for %s", store)
		}
	}
	var visit func(name string, path []string)
	visit = func(name string, path []string) {
		if slices.Contains(path, name) {
			t.Fatalf("a circle: %v", append(path, name))
		}
		for on := range c.Services[name].DependsOn {
			visit(on, append(slices.Clone(path), name))
		}
	}
	for name := range c.Services {
		visit(name, nil)
	}
}

// Everything is checked as `tenantflow config check` would: names, values, and that no store is missing.
func TestTheEnvironmentOfTheServiceIsAValidConfiguration(t *testing.T) {
	t.Parallel()
	c := compose(t)
	inImage := dockerfile(t).environment
	for _, name := range []string{"migrate", "tenantflow"} {
		environment := map[string]string{}
		for _, from := range []map[string]string{inImage, c.Services[name].Environment} {
			for k, v := range from {
				environment[k] = v
			}
		}
		// A file that is named must be there, and here it is where it is mounted from.
		for _, v := range c.Services[name].Volumes {
			source, target, _ := strings.Cut(strings.TrimSuffix(v, ":ro"), ":")
			for k := range environment {
				if environment[k] == target {
					environment[k] = filepath.Join("..", source)
				}
			}
		}
		var environ []string
		for k, v := range environment {
			environ = append(environ, k+"="+v)
		}
		cfg, err := config.Load(environ, config.Kafka, config.ClickHouse, config.Postgres, config.Dragonfly)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for store, address := range addresses(t, cfg) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				t.Errorf("%s: %s is at %q: %v", name, store, address, err)
			}
			if _, ok := c.Services[host]; !ok {
				t.Errorf("%s: %s is at %s, and there is no such service", name, store, address)
			}
		}
		if s := c.Services[name]; name == "tenantflow" && s.Grace <= cfg.ShutdownTimeout {
			t.Errorf("a stop may take %s, and is cut off after %s", cfg.ShutdownTimeout, s.Grace)
		}
	}
}

// addresses are the host:port of every store.
func addresses(t *testing.T, cfg *config.Config) map[string]string {
	t.Helper()
	all := map[string]string{}
	for i, broker := range cfg.KafkaBrokers {
		all[fmt.Sprint("kafka ", i)] = broker
	}
	for store, dsn := range map[string]config.SecretURL{
		"clickhouse": cfg.ClickHouseDSN, "postgres": cfg.PostgresDSN, "dragonfly": cfg.DragonflyURL,
	} {
		u, err := url.Parse(dsn.Reveal())
		if err != nil {
			t.Fatalf("%s: %v", store, err)
		}
		all[store] = u.Host
	}
	return all
}

func TestStoresHaveThePasswordsTheServiceUses(t *testing.T) {
	t.Parallel()
	text := readFile(t, "../docker-compose.yml")
	uses := map[string]int{}
	defaults := map[string]string{}
	for _, m := range variable.FindAllStringSubmatch(text, -1) {
		name, has, value := m[1], m[2] != "", m[3]
		if !has || value == "" {
			t.Errorf("${%s} has no default", name)
		}
		if strings.HasPrefix(name, config.Prefix) {
			t.Errorf("${%s}: the service, started in the same shell, would refuse that name", name)
		}
		if before, ok := defaults[name]; ok && before != value {
			t.Errorf("${%s} has two defaults, %q and %q", name, before, value)
		}
		defaults[name] = value
		uses[name]++
	}
	for _, name := range []string{"CLICKHOUSE_PASSWORD", "POSTGRES_PASSWORD", "DRAGONFLY_PASSWORD"} {
		if uses[name] < 2 {
			t.Errorf("${%s} is used %d times: the store and the service must both have it", name, uses[name])
		}
	}
}

// The service sees a caller from this machine as one from the container's network, and would refuse it without a token.
func TestTheServiceHasATokenThatTheFileTellsOf(t *testing.T) {
	t.Parallel()
	s := compose(t).Services["tenantflow"]
	mount := slices.IndexFunc(s.Volumes, func(v string) bool {
		return strings.HasSuffix(v, ":"+s.Environment["TENANTFLOW_API_TOKENS_FILE"]+":ro")
	})
	said := regexp.MustCompile(`Authorization: Bearer (\S+)'`).FindStringSubmatch(readFile(t, "../docker-compose.yml"))
	if mount < 0 || said == nil {
		t.Fatalf("tokens are read from %q, and mounted is %v", s.Environment["TENANTFLOW_API_TOKENS_FILE"], s.Volumes)
	}
	source, _, _ := strings.Cut(s.Volumes[mount], ":")
	set, err := token.Parse([]byte(readFile(t, filepath.Join("..", source))))
	if err != nil {
		t.Fatal(err)
	}
	if grant, ok := set.Find(said[1]); !ok || !grant.Allows("acme") {
		t.Errorf("the token %q is not in %s", said[1], source)
	}
}

// What quotas need of Dragonfly, and that it may lose its memory without losing its place.
func TestDragonflyIsStartedWithWhatQuotasNeed(t *testing.T) {
	t.Parallel()
	s := compose(t).Services["dragonfly"]
	if !strings.Contains(s.Image, "/dragonfly:v1.40.") {
		t.Errorf("the image is %s, and what was read and written for is Dragonfly 1.40", s.Image)
	}
	flags := map[string]string{}
	for _, flag := range s.Command {
		name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		flags[name] = value
	}
	if _, locks := flags["lock_on_hashtags"]; !locks && flags["cluster_mode"] != "emulated" {
		t.Error("the braces in keys mean nothing to it")
	}
	if evicts, there := flags["cache_mode"]; there && evicts != "false" {
		t.Errorf("it evicts counters: --cache_mode=%s", evicts)
	}
	if flags["snapshot_cron"] == "" || flags["maxmemory"] == "" || !slices.Contains(s.Volumes, "dragonfly:"+flags["dir"]) {
		t.Errorf("snapshots %q in %q of %v, at most %q of memory", flags["snapshot_cron"], flags["dir"], s.Volumes, flags["maxmemory"])
	}
}

func TestEveryMountIsThere(t *testing.T) {
	t.Parallel()
	c := compose(t)
	used := map[string]bool{}
	for name, s := range c.Services {
		for _, v := range s.Volumes {
			source, rest, _ := strings.Cut(v, ":")
			if !strings.HasPrefix(source, ".") {
				if _, ok := c.Volumes[source]; !ok {
					t.Errorf("%s uses the volume %s, which is not declared", name, source)
				}
				used[source] = true
				continue
			}
			if !strings.HasSuffix(rest, ":ro") {
				t.Errorf("%s could write to %s", name, source)
			}
			if _, err := os.Stat(filepath.Join("..", source)); err != nil {
				t.Errorf("%s mounts what is not there: %v", name, err)
			}
		}
	}
	for name := range c.Volumes {
		if !used[name] {
			t.Errorf("nobody uses the volume %s", name)
		}
	}
}

func TestNothingIsPublishedBeyondTheLoopbackAddress(t *testing.T) {
	t.Parallel()
	taken := map[string]string{}
	for name, s := range compose(t).Services {
		for _, p := range s.Ports {
			if !regexp.MustCompile(`^127\.0\.0\.1:\d+:\d+$`).MatchString(p) {
				t.Errorf("%s publishes %q", name, p)
				continue
			}
			port := strings.Split(p, ":")[1]
			if taken[port] != "" {
				t.Errorf("%s and %s publish port %s", name, taken[port], port)
			}
			taken[port] = name
		}
	}
}

func TestTheServiceHasNoPrivileges(t *testing.T) {
	t.Parallel()
	for name, s := range compose(t).Services {
		if s.Privileged {
			t.Errorf("%s is privileged", name)
		}
		if s.Build != nil && (!s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"})) {
			t.Errorf("%s: read-only root %t, capabilities dropped %v", name, s.ReadOnly, s.CapDrop)
		}
	}
}
