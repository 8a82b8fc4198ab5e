package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
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
	seen kafkatest.Transcript // of rest, so far
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
		rest, _ := io.ReadAll(io.TeeReader(lines, &p.seen))
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

// looked runs a command that only looks at stores, until it is done. It gives each of them a few seconds, and one on a busy machine may need
// more.
func looked(t *testing.T, environ []string, args ...string) (stdout string) {
	t.Helper()
	said := ""
	enginetest.Await(t, strings.Join(args, " "), func() bool {
		out, errOut, code := tenantflow(t, environ, args...)
		if code != exitDone && errOut != said {
			said = errOut
			t.Logf("%q: exit code %d\n%s%s", args, code, out, errOut)
		}
		stdout = out
		return code == exitDone
	})
	return stdout
}

// eventually waits until the condition holds.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	enginetest.Await(t, "what is expected", condition)
}
