package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/health"
	"tenantflow/internal/operations"
)

func setupOperations(t *testing.T) apiFixture {
	t.Helper()
	f := setupAPI(t)
	f.Show(operations.New(operations.Config{Version: "v9", Health: health.New(time.Minute, slog.New(slog.DiscardHandler), "api")}))
	return f
}

// send sends a request without a token; change may give it one.
func (f apiFixture) send(method, target string, form url.Values, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(context.Background(), method, target, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return w
}

func TestOperations_NeedATokenForAllCompanies(t *testing.T) {
	t.Parallel()
	f := setupOperations(t)
	for _, c := range []struct {
		target string
		change func(*http.Request)
		status int
		body   string
	}{
		{"/v1/operations", withToken(everyToken), 200, `"version": "v9"`},
		{"/v1/operations", withToken(acmeToken), 403, narrowScope},
		{"/v1/operations", withToken("x"), 401, "not known"},
		{"/v1/operations", func(*http.Request) {}, 401, "is needed"},
		{"/v1/operations?x=1", withToken(everyToken), 400, "not known"},
		{"/", withToken(everyToken), 200, "tenantflow operations"},
		{"/", withToken(acmeToken), 403, "scope is not all companies"},
		{"/", withToken("x"), 401, "<form method=\"post\" action=\"/sign-in\">"},
		{"/", func(*http.Request) {}, 401, "<form method=\"post\" action=\"/sign-in\">"},
		{"/?refresh=1", withToken(everyToken), 400, "refresh is no number"},
		{"/?refresh=0", withToken(everyToken), 200, "does not refresh itself"},
		{"/?open=%3Cscript%3E", withToken(everyToken), 200, "tenantflow operations"},
	} {
		w := f.send(http.MethodGet, c.target, nil, c.change)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) || strings.Contains(w.Body.String(), "<script>") {
			t.Errorf("%s: %d, want %d with %q: %s", c.target, w.Code, c.status, c.body, w.Body)
		}
		if c.status != 200 && strings.Contains(w.Body.String(), "v9") {
			t.Errorf("%s: the answer %d tells something", c.target, c.status)
		}
	}
}

func TestOperations_AreReadOnly(t *testing.T) {
	t.Parallel()
	f := setupOperations(t)
	for _, target := range []string{"/", "/v1/operations"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			if w := f.send(method, target, nil, withToken(everyToken)); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, target, w.Code)
			}
		}
		if w := f.send(http.MethodHead, target, nil, withToken(everyToken)); w.Code != http.StatusOK {
			t.Errorf("HEAD %s: %d", target, w.Code)
		}
	}
	if w := f.send(http.MethodGet, "/sign-in", nil); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET /sign-in: %d", w.Code)
	}
}

func TestOperations_PageHasStrictHeaders(t *testing.T) {
	t.Parallel()
	f := setupOperations(t)
	for _, change := range []func(*http.Request){withToken(everyToken), withToken("x")} {
		w := f.send(http.MethodGet, "/", nil, change)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'sha256-", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
			"Cache-Control": "no-store", "X-Frame-Options": "DENY", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := w.Header().Get(name); !strings.HasPrefix(got, want) {
				t.Errorf("%d: %s is %q, want %q", w.Code, name, got, want)
			}
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("the policy is %s", csp)
		}
	}
	if got := f.send(http.MethodGet, "/?refresh=30", nil, withToken(everyToken)).Header().Get("Refresh"); got != "30" {
		t.Errorf("Refresh is %q", got)
	}
}

func TestOperations_ABrowserSignsIn(t *testing.T) {
	t.Parallel()
	f := setupOperations(t)
	for _, c := range []struct {
		token  string
		status int
		body   string
	}{{"x", 401, "That token is not known."}, {"", 401, "not known"}, {acmeToken, 403, "scope is not all companies"}} {
		w := f.send(http.MethodPost, "/sign-in", url.Values{"token": {c.token}})
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) || w.Header().Get("Set-Cookie") != "" || c.token != "" && strings.Contains(w.Body.String(), `"`+c.token+`"`) {
			t.Errorf("token %q: %d %v %s", c.token, w.Code, w.Header(), w.Body)
		}
	}
	// A form of another site.
	if w := f.send(http.MethodPost, "/sign-in", url.Values{"token": {everyToken}}, withHeader("Sec-Fetch-Site", "cross-site")); w.Code != 403 || w.Header().Get("Set-Cookie") != "" {
		t.Errorf("from another site: %d %v", w.Code, w.Header())
	}
	w := f.send(http.MethodPost, "/sign-in", url.Values{"token": {everyToken + "\n"}})
	cookies := w.Result().Cookies()
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" || len(cookies) != 1 {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	c := cookies[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Secure || c.Path != "/" || c.Domain != "" || c.MaxAge != 12*3600 {
		t.Errorf("the cookie is %+v", c)
	}
	if over := f.send(http.MethodPost, "/sign-in", url.Values{"token": {everyToken}}, withHeader("X-Forwarded-Proto", "https")).Result().Cookies(); len(over) != 1 || !over[0].Secure {
		t.Errorf("over TLS: %+v", over)
	}
	withCookie := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.AddCookie(&http.Cookie{Name: c.Name, Value: value}) } // #nosec G124 -- what a browser sends
	}
	if w := f.send(http.MethodGet, "/", nil, withCookie(c.Value)); w.Code != 200 || !strings.Contains(w.Body.String(), "Sign out") {
		t.Errorf("signed in: %d", w.Code)
	}
	// The cookie is for the page alone.
	for _, target := range []string{"/v1/operations", "/v1/users/u-pro/quota"} {
		if w := f.send(http.MethodGet, target, nil, withCookie(c.Value)); w.Code != 401 {
			t.Errorf("%s with a cookie: %d", target, w.Code)
		}
	}
	// It is no token, and a token is no session: browsers send cookies to every port of a host name.
	if decoded, _ := base64.RawURLEncoding.DecodeString(c.Value); strings.Contains(c.Value+string(decoded), everyToken) {
		t.Errorf("the cookie %q holds the token", c.Value)
	}
	if w := f.send(http.MethodGet, "/v1/operations", nil, withToken(c.Value)); w.Code != 401 {
		t.Errorf("the session as a token: %d", w.Code)
	}
	for _, wrong := range []string{"!", "eA", base64.RawURLEncoding.EncodeToString([]byte(everyToken))} {
		if w := f.send(http.MethodGet, "/", nil, withCookie(wrong)); w.Code != 401 || !strings.Contains(w.Body.String(), "not valid any more") {
			t.Errorf("cookie %q: %d", wrong, w.Code)
		}
	}
	if out := f.send(http.MethodPost, "/sign-out", nil, withCookie(c.Value)).Result().Cookies(); len(out) != 1 || out[0].MaxAge >= 0 || out[0].Value != "" {
		t.Errorf("signed out: %+v", out)
	}
}

func TestOperations_WithoutTokensAreForThisMachine(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	f := apiFixture{API: NewAPI(nil, log), registry: prometheus.NewRegistry()}
	f.handler = Handler(Options{Health: health.New(time.Minute, log), Metrics: f.registry, Log: log, API: f.API})
	here := func(r *http.Request) { r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost" }
	if w := f.send(http.MethodGet, "/", nil, here); w.Code != http.StatusServiceUnavailable {
		t.Errorf("before there is anything to show: %d", w.Code)
	}
	f.Show(operations.New(operations.Config{Health: health.New(time.Minute, log)}))
	for _, target := range []string{"/", "/v1/operations"} {
		if w := f.send(http.MethodGet, target, nil, here); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "Sign out") {
			t.Errorf("%s on this machine: %d", target, w.Code)
		}
		for name, change := range map[string]func(*http.Request){
			"far":            func(r *http.Request) { r.RemoteAddr, r.Host = "192.0.2.1:1", "localhost" },
			"through a name": func(r *http.Request) { r.RemoteAddr, r.Host = "127.0.0.1:1", "evil.example" },
			"through a proxy": func(r *http.Request) {
				here(r)
				r.Header.Set("X-Forwarded-For", "127.0.0.1")
			},
		} {
			w := f.send(http.MethodGet, target, nil, change)
			var p Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusForbidden || p.Detail == "" {
				t.Errorf("%s %s: %d %s", target, name, w.Code, w.Body)
			}
		}
	}
	if w := f.send(http.MethodPost, "/sign-in", url.Values{"token": {"x"}}, here); w.Code != http.StatusNotFound {
		t.Errorf("signing in without a tokens file: %d", w.Code)
	}
}
