package httpapi

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/health"
	"tenantflow/internal/token"
)

func TestRequestID_ASaneOneIsKeptAndOthersAreReplaced(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	made := map[string]bool{}
	for _, c := range []struct {
		given []string
		kept  bool
	}{
		{[]string{"0d9f6c3e-91f7-4bb0-9d0e-5c2f4b1f2a11"}, true},
		{[]string{"Root=1-67891233:abc.def_0"}, false},
		{[]string{"1-67891233:abc.def_0"}, true},
		{[]string{strings.Repeat("a", maxRequestID)}, true},
		{[]string{strings.Repeat("a", maxRequestID+1)}, false},
		{[]string{"a b"}, false},
		{[]string{"a\u00e9"}, false},
		{[]string{""}, false},
		{[]string{"a", "b"}, false},
		{nil, false},
	} {
		for path, status := range map[string]int{"/v1/users/u-pro/quota": 200, "/v2": 404, "/livez": 200, "//": 404, "/" + strings.Repeat("a", 2000): 414} {
			a := f.ask(path, withHeader(requestID, c.given...))
			id := a.header.Get(requestID)
			if a.status != status || !saneID(id) || c.kept != (len(c.given) == 1 && id == c.given[0]) {
				t.Errorf("%q at %.20s: %d with the id %q", c.given, path, a.status, id)
			}
			if a.status != http.StatusOK && a.json["request_id"] != id {
				t.Errorf("%.20s: the problem names the request %v, and its header %s", path, a.json["request_id"], id)
			}
			if !c.kept && made[id] {
				t.Errorf("the id %s was made twice", id)
			}
			made[id] = true
		}
	}
}

func TestAccessLog_NamesTokenAndRouteAndNoSecret(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	var said strings.Builder
	log := slog.New(slog.NewJSONHandler(&said, nil))
	f.handler = Handler(Options{Health: health.New(time.Minute, log), Metrics: prometheus.NewRegistry(), Log: log, API: f.API, AccessLog: true})
	f.ask("/livez")
	a := f.ask("/v1/users/u-pro/quota", withToken(acmeToken))
	f.ask("/v1/users/u-pro/quota", withToken("a-wrong-secret"))
	f.ask("/v1/else", func(r *http.Request) { r.Method = strings.Repeat("X", 1000) })
	type line struct {
		Msg, Token, Method, Route, Took string
		Status, Bytes                   int
		RequestID                       string `json:"request_id"`
	}
	var lines []line
	for text := range strings.Lines(said.String()) {
		var l line
		_ = json.Unmarshal([]byte(text), &l) // a duration is a number here
		l.Took = ""
		lines = append(lines, l)
	}
	if len(lines) != 3 {
		t.Fatalf("%d lines:\n%s", len(lines), said.String())
	}
	if want := (line{"request", "acme", "GET", "/v1/users/{user_id}/quota", "", a.status, len(a.body), "of-the-test"}); lines[0] != want {
		t.Errorf("got %+v, want %+v", lines[0], want)
	}
	if l := lines[1]; l.Token != "" || l.Status != http.StatusUnauthorized {
		t.Errorf("without a valid token: %+v", l)
	}
	if l := lines[2]; l.Route != otherRoute || len(l.Method) > 16 || l.Status != http.StatusNotFound {
		t.Errorf("of no route: %+v", l)
	}
	for _, secret := range []string{acmeToken, everyToken, "a-wrong-secret", "u-pro"} {
		if strings.Contains(said.String(), secret) {
			t.Errorf("the log has %s:\n%s", secret, said.String())
		}
	}
}

func TestHandler_ProbesAndV1AreApartWhereEachHasAnAddress(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	tokens, err := token.Open(tokensFile(t), log)
	if err != nil {
		t.Fatal(err)
	}
	f := apiFixture{world: newWorld(), registry: prometheus.NewRegistry(), API: NewAPI(tokens, log)}
	f.Attach(f.world.stores())
	o := Options{Health: health.New(time.Minute, log), Metrics: f.registry, Log: log, API: f.API, Serves: OnlyAdmin}
	admin := Handler(o)
	o.Serves = OnlyAPI
	api := Handler(o) // they share the registry
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/version", "/v1/users/u-pro/quota", "/v1"} {
		probe := !strings.HasPrefix(path, "/v1")
		for _, c := range []struct {
			name    string
			handler http.Handler
			here    bool
		}{{"admin", admin, probe}, {"api", api, path == "/v1/users/u-pro/quota"}} {
			f.handler = c.handler
			a := f.ask(path)
			if (a.status == http.StatusOK) != c.here || !c.here && a.status != http.StatusNotFound {
				t.Errorf("%s at %s: %d %s", c.name, path, a.status, a.body)
			}
			if !c.here && path != "/v1" && !strings.Contains(a.body, "address of") {
				t.Errorf("%s at %s: %s", c.name, path, a.body)
			}
		}
	}
}
