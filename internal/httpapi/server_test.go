package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(enginetest.Engines(m)) }

type fixture struct {
	health   *health.Tracker
	server   *Server
	url      string
	accepted *atomic.Int64 // connections
}

// setup starts a server on a free port; it stops with the test.
func setup(t *testing.T) fixture {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	build := telemetry.Build{Version: "v1.2.3", Commit: "abc", Go: "go1"}
	h := health.New(time.Nanosecond, log, "clickhouse")
	s := New(Options{Addr: "127.0.0.1:0", Health: h, Metrics: telemetry.NewRegistry(build), Build: build, Log: log})
	accepted := &atomic.Int64{}
	s.server.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			accepted.Add(1)
		}
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return fixture{health: h, server: s, url: "http://" + s.Addr().String(), accepted: accepted}
}

type answer struct {
	status int
	header http.Header
	body   string
	json   map[string]any // nil: it is none
}

func answerOf(status int, header http.Header, body []byte) answer {
	a := answer{status: status, header: header, body: string(body)}
	_ = json.Unmarshal(body, &a.json)
	return a
}

// eventually waits until the condition holds.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	enginetest.Await(t, "what is expected", condition)
}

func (f fixture) do(t *testing.T, method, path string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, f.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answerOf(response.StatusCode, response.Header, body)
}

func TestReadyzNamesTheFailingPartAndWhy(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.health.Set("clickhouse", health.Failing, "connection refused")
	a := f.do(t, http.MethodGet, "/readyz")
	if a.status != http.StatusServiceUnavailable || a.json["ready"] != false || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	part := a.json["failing"].([]any)[0].(map[string]any)
	if part["part"] != "clickhouse" || part["reason"] != "connection refused" || part["since"] == "" {
		t.Errorf("got %v", part)
	}
	f.health.Set("clickhouse", health.Ready, "")
	if a := f.do(t, http.MethodGet, "/readyz"); a.status != http.StatusOK || a.json["ready"] != true {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

// Addresses, users and databases are nothing for every caller that reaches the port.
func TestReadyz_ReasonsAreForThoseWhoMayKnow(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	tracker := health.New(time.Minute, slog.New(slog.DiscardHandler), "company", "quota", "usage")
	f.handler = Handler(Options{Health: tracker, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), API: f.API})
	const secret = `failed to connect to user=svc_x database=prod_db 10.1.2.3:5432 in Postgres`
	tracker.Set("company", health.Failing, secret)
	tracker.Set("quota", health.Stopped, secret)
	tracker.Set("usage", health.Ready, "")
	tracker.Note("usage", "company acme-secret can't go on")
	for name, c := range map[string]struct {
		change func(*http.Request)
		whole  bool
	}{
		"a token for all":  {withToken(everyToken), true},
		"a token for some": {withToken(acmeToken), false},
		"an unknown token": {withToken("x"), false},
		"no token":         {withHeader("Authorization"), false},
		"no token, loopback": {func(r *http.Request) {
			r.Header.Del("Authorization")
			r.RemoteAddr, r.Host = "127.0.0.1:5", "localhost"
		}, false},
	} {
		a := f.ask("/readyz", c.change)
		if a.status != http.StatusServiceUnavailable || strings.Contains(a.body, "svc_x") != c.whole || strings.Contains(a.body, "10.1.2.3") != c.whole || strings.Contains(a.body, "prod_db") != c.whole || strings.Contains(a.body, "acme-secret") != c.whole {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if !c.whole && (!strings.Contains(a.body, "it waits and tries again; it needs Postgres") || !strings.Contains(a.body, "until an operator acts") || !strings.Contains(a.body, "some companies need a look")) {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	f.tokens = nil
	local := func(r *http.Request) { r.RemoteAddr, r.Host = "127.0.0.1:5", "localhost" }
	if a := f.ask("/readyz", local); !strings.Contains(a.body, "svc_x") {
		t.Errorf("on this machine, without tokens: %s", a.body)
	}
	if a := f.ask("/readyz", local, withHeader("Via", "1.1 proxy")); strings.Contains(a.body, "svc_x") {
		t.Errorf("through a proxy: %s", a.body)
	}
}

func TestLivezFailsWhenAPartIsStalled(t *testing.T) {
	t.Parallel()
	f := setup(t)
	if a := f.do(t, http.MethodGet, "/livez"); a.status != http.StatusOK || a.json["alive"] != true {
		t.Errorf("got %d %s", a.status, a.body)
	}
	f.health.Load("clickhouse", 1, 1) // and no progress for longer than a nanosecond
	if a := f.do(t, http.MethodGet, "/livez"); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "nothing done for") {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestVersionAndMetricsSayWhatRuns(t *testing.T) {
	t.Parallel()
	f := setup(t)
	if a := f.do(t, http.MethodGet, "/version"); a.status != http.StatusOK || a.json["version"] != "v1.2.3" {
		t.Errorf("got %d %s", a.status, a.body)
	}
	a := f.do(t, http.MethodGet, "/metrics")
	for _, want := range []string{`tenantflow_build_info{commit="abc",goversion="go1",version="v1.2.3"} 1`, "go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("%s is missing in the metrics (status %d)", want, a.status)
		}
	}
}

func TestErrorsAreProblemJSON(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, c := range []struct {
		method, path string
		status       int
		title        string
	}{
		{http.MethodGet, "/", 404, "Not Found"},
		{http.MethodGet, "/v1/users/u/quota", 404, "Not Found"},
		{http.MethodGet, "/readyz/x", 404, "Not Found"},
		{http.MethodPost, "/readyz", 405, "Method Not Allowed"},
		{http.MethodDelete, "/metrics", 405, "Method Not Allowed"},
	} {
		a := f.do(t, c.method, c.path)
		if a.status != c.status || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.status, a.header)
		}
		if a.json["status"] != float64(c.status) || a.json["title"] != c.title || a.json["type"] != "about:blank" || a.json["instance"] != c.path || a.json["detail"] == "" {
			t.Errorf("%s %s: %s", c.method, c.path, a.body)
		}
		if allow := a.header.Get("Allow"); c.status == 405 && allow != "GET, HEAD" {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, allow)
		}
	}
}

func TestHeadIsAnsweredLikeGetWithoutABody(t *testing.T) {
	t.Parallel()
	if a := setup(t).do(t, http.MethodHead, "/livez"); a.status != http.StatusOK || a.body != "" {
		t.Errorf("got %d %q", a.status, a.body)
	}
}

func TestHugeHeadersAreRefused(t *testing.T) {
	t.Parallel()
	f := setup(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Large", strings.Repeat("x", 64<<10))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		return // cut off while sending is a refusal too
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %s", response.Status)
	}
}

func TestAnAddressThatIsTakenIsAnErrorAtTheStart(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	log := slog.New(slog.DiscardHandler)
	s := New(Options{Addr: taken.Addr().String(), Health: health.New(time.Minute, log), Metrics: telemetry.NewRegistry(telemetry.Build{}), Log: log})
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("stopping what never started: %v", err)
	}
}

func TestStoppingWaitsForARequestUnderWayAndMayBeDoneTwice(t *testing.T) {
	t.Parallel()
	f := setup(t)
	// A request whose header is not finished yet is under way.
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", f.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return f.accepted.Load() == 1 }) // connected is not yet accepted
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.server.Stop(short); err == nil {
		t.Error("it did not say that a request was cut off")
	}
	if err := f.server.Stop(t.Context()); err != nil {
		t.Errorf("the second time: %v", err)
	}
}
