package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/config"
	"tenantflow/internal/health"
)

// deadStores is a configuration whose store addresses do not answer.
func deadStores() []string {
	return []string{
		"TENANTFLOW_KAFKA_BROKERS=127.0.0.1:1",
		"TENANTFLOW_CLICKHOUSE_DSN=http://127.0.0.1:1/tenantflow",
		"TENANTFLOW_POSTGRES_DSN=postgres://tenantflow@127.0.0.1:1/tenantflow",
		"TENANTFLOW_DRAGONFLY_URL=redis://127.0.0.1:1/0",
		"TENANTFLOW_HTTP_ADDR=127.0.0.1:0",
	}
}

// A process is a service in a process of its own.
type process struct {
	cmd  *exec.Cmd
	url  string // of its HTTP interface
	rest chan string
}

// start starts a service and waits until it listens.
func start(t *testing.T, mode string, environ []string, args ...string) *process {
	t.Helper()
	cmd := command(t, mode, environ, args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, rest: make(chan string, 1)}
	lines := bufio.NewReader(stderr)
	for p.url == "" {
		text, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("it ended before it listened: %v", err)
		}
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("a log line that is not JSON: %q", text)
		}
		if addr, ok := line["http"].(string); ok {
			p.url = "http://" + addr
		}
	}
	go func() {
		rest, _ := io.ReadAll(lines)
		p.rest <- string(rest)
	}()
	return p
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// wait waits for its end and gives the rest of its log and its exit code.
func (p *process) wait(t *testing.T) (log string, code int) {
	t.Helper()
	log = <-p.rest
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return log, p.cmd.ProcessState.ExitCode()
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

func TestTheServiceWaitsForItsStoresAndStopsCleanlyOnASignal(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := start(t, "tenantflow", deadStores(), "run")
		eventually(t, func() bool {
			status, body := get(t, p.url+"/readyz")
			return status == http.StatusServiceUnavailable && strings.Contains(body, "connection refused")
		})
		if status, _ := get(t, p.url+"/livez"); status != http.StatusOK {
			t.Errorf("/livez answers %d, but a store that is down is no reason to die", status)
		}
		if _, body := get(t, p.url+"/metrics"); !strings.Contains(body, `tenantflow_part_ready{part="usage"} 0`) {
			t.Errorf("the metrics do not say that usage is not ready:\n%s", body)
		}
		p.signal(t, s)
		if log, code := p.wait(t); code != exitDone || !strings.Contains(log, "service stopped") {
			t.Errorf("exit code %d after %v; log:\n%s", code, s, log)
		}
	}
}

func TestRun_ASecondSignalEndsTheProcess(t *testing.T) {
	t.Parallel()
	p := start(t, "stuck", deadStores())
	began := time.Now()
	p.signal(t, syscall.SIGTERM)
	eventually(t, func() bool {
		_, body := get(t, p.url+"/readyz")
		return strings.Contains(body, "the process is stopping")
	})
	for ended := false; !ended; { // until one of them comes a second after the first
		select {
		case log := <-p.rest:
			p.rest <- log
			ended = true
		case <-time.After(20 * time.Millisecond):
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error: it has just ended
		}
	}
	if took := time.Since(began); took < sameSignal {
		t.Errorf("it ended after %s: signals within %s are one", took, sameSignal)
	}
	if log, code := p.wait(t); code != exitFailed || !strings.Contains(log, "second signal") {
		t.Errorf("exit code %d; log:\n%s", code, log)
	}
}

// service makes a service of the given parts with a free port.
func testService(t *testing.T, environ []string, parts ...part) *service {
	t.Helper()
	cfg, err := config.Load(append(environ, "TENANTFLOW_HTTP_ADDR=127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := newService(cfg, slog.New(slog.DiscardHandler), parts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func untilStopped(ctx context.Context, _ *service, _ prometheus.Registerer) error {
	<-ctx.Done()
	return nil
}

func TestRun_APartThatFailsIsStartedAgainAlone(t *testing.T) {
	t.Parallel()
	runs, interrupted := 0, false
	mended := make(chan struct{})
	s := testService(t, nil,
		part{name: "broken", run: func(ctx context.Context, s *service, metrics prometheus.Registerer) error {
			metrics.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "of_the_part", Help: "Of this run."}))
			if runs++; runs < 3 {
				return errors.New("the schema is wrong")
			}
			s.health.Set("broken", health.Ready, "")
			close(mended)
			<-ctx.Done()
			return nil
		}},
		part{name: "sound", run: func(ctx context.Context, s *service, _ prometheus.Registerer) error {
			s.health.Set("sound", health.Ready, "")
			<-ctx.Done()
			select {
			case <-mended:
			default:
				interrupted = true
			}
			return nil
		}},
	)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	eventually(t, func() bool {
		failing := s.health.Readiness().Failing
		return len(failing) == 1 && failing[0].Part == "broken" && failing[0].State == health.Failing && strings.Contains(failing[0].Reason, "the schema is wrong")
	})
	<-mended
	eventually(t, func() bool { return s.health.Readiness().Ready })
	stop()
	if err := <-ended; err != nil || interrupted {
		t.Errorf("got %v; the other part was interrupted: %v", err, interrupted)
	}
}

func TestRun_AWrongConfigurationEndsTheProcess(t *testing.T) {
	t.Parallel()
	s := testService(t, nil,
		part{name: "broken", run: func(context.Context, *service, prometheus.Registerer) error {
			return invalid("TENANTFLOW_X: it is wrong")
		}},
		part{name: "sound", run: untilStopped},
	)
	if err := s.run(t.Context()); err == nil || !strings.Contains(err.Error(), "running broken: TENANTFLOW_X: it is wrong") {
		t.Errorf("got %v", err)
	}
}

func TestAPartThatEndsByItselfIsAnError(t *testing.T) {
	t.Parallel()
	s := testService(t, nil,
		part{name: "lazy", run: func(context.Context, *service, prometheus.Registerer) error { return nil }},
		part{name: "sound", run: untilStopped},
	)
	if err := s.run(t.Context()); err == nil || !strings.Contains(err.Error(), "running lazy: it ended by itself") {
		t.Errorf("got %v", err)
	}
}

func TestAStopThatTakesTooLongIsAnError(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	s := testService(t, []string{"TENANTFLOW_USAGE_INSERT_TIMEOUT=1s", "TENANTFLOW_SHUTDOWN_TIMEOUT=1100ms"},
		part{name: "slow", run: func(context.Context, *service, prometheus.Registerer) error { <-release; return nil }},
		part{name: "sound", run: untilStopped},
	)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.run(ctx); err == nil || !strings.Contains(err.Error(), "longer than 1.1s with 1 parts still at work") {
		t.Errorf("got %v", err)
	}
}

func TestPartsAreChosenByNameAndAllThatAreThereWithoutOne(t *testing.T) {
	t.Parallel()
	all := []part{{name: "a", run: untilStopped}, {name: "b"}, {name: "c", run: untilStopped}}
	for _, c := range []struct{ only, chosen, missing, fails string }{
		{"", "a c", "b", ""},
		{"c", "c", "", ""},
		{"c, a,c", "a c", "", ""},
		{"b", "", "", "not there yet"},
		{"d", "", "", "no such part"},
	} {
		var only []string
		if c.only != "" {
			only = strings.Split(c.only, ",")
		}
		chosen, missing, err := choose(all, only)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("--only %s: %v", c.only, err)
			}
			continue
		}
		var names []string
		for _, p := range chosen {
			names = append(names, p.name)
		}
		if err != nil || strings.Join(names, " ") != c.chosen || strings.Join(missing, " ") != c.missing {
			t.Errorf("--only %s: %v, missing %v, %v", c.only, names, missing, err)
		}
	}
}

// eventually waits until the condition holds.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			t.Fatal("it did not happen within 20 s")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
