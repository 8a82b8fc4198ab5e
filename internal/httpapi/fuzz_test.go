package httpapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// Whatever a request line and a token are: if the server takes them for HTTP, the answer is one of the documented ones,
// in JSON, and only the right token sees a user.
func FuzzEveryRequestGetsADocumentedAnswer(f *testing.F) {
	api := setupAPI(f)
	for _, target := range []string{
		"/v1/users/u-pro/quota", "/v1/users/u-pro/quota?x=1", "/v1/users/%2e%2e/quota", "/v1/users/a%2Fb/subscription", "//", "/..;/v1", "*",
		"/v1/companies/acme/config", "/v1/companies/acme/subscription", "/v1/companies/acme/subscription/preview?new_tier=enterprise&at=2026-11-16T00:00:00Z",
		"/v1/companies/nobody/subscription/preview?new_tier=free", "/v1/companies/acme/subscription/preview?new_tier=gold&at=2026-11-16T00:00:00%2b01:00",
		"/v1/users/%00/quota", "http://evil.example/v1/users/u-pro/quota", "/v1/users/%D0%B0/quota", "/%%", "/v1/users/u-pro/quota#x", "evil:80",
	} {
		f.Add("GET", target, everyToken)
		f.Add("POST", target, "x")
	}
	f.Add("CONNECT", "evil:80", "")
	f.Add("HEAD", "/v1/users/u-pro/quota", everyToken+" ")
	f.Fuzz(func(t *testing.T, method, target, bearer string) {
		text := method + " " + target + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + bearer + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			return // the server refuses it
		}
		r.RemoteAddr = "127.0.0.1:5"
		w := httptest.NewRecorder()
		api.handler.ServeHTTP(w, r)
		if !slices.Contains([]int{200, 400, 401, 404, 405, 409, 414}, w.Code) {
			t.Errorf("%q: %d %s", text, w.Code, w.Body)
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") && r.URL.Path == "/metrics" {
			return
		}
		if !json.Valid(w.Body.Bytes()) || !strings.HasSuffix(w.Header().Get("Content-Type"), "json") {
			t.Errorf("%q: %d %v %s", text, w.Code, w.Header(), w.Body)
		}
		if bytes.Contains(w.Body.Bytes(), []byte(`"company_id"`)) && strings.Join(r.Header["Authorization"], "|") != "Bearer "+everyToken {
			t.Errorf("%q is told %s", text, w.Body)
		}
	})
}
