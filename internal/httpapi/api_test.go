package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tenantflow/internal/directory"
	"tenantflow/internal/logs"
)

func TestAUserOutsideATokensScopeLooksLikeOneThatDoesNotExist(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for _, resource := range []string{"subscription", "quota"} {
		if a := f.ask("/v1/users/u-pro/"+resource, withToken(acmeToken)); a.json["company_id"] != "acme" {
			t.Errorf("the token's own user: %d %s", a.status, a.body)
		}
		f.world.asked.Store(0)
		other := f.ask("/v1/users/u-enterprise/"+resource, withToken(acmeToken))
		asked := f.world.asked.Swap(0)
		none := f.ask("/v1/users/u-nobody/"+resource, withToken(acmeToken))
		if other.status != none.status || other.body != none.body || fmt.Sprint(other.header) != fmt.Sprint(none.header) {
			t.Errorf("%s of another company's user: %v\nof nobody: %v", resource, other, none)
		}
		if again := f.world.asked.Load(); asked != again {
			t.Errorf("%s: %d look-ups for another company's user, %d for nobody", resource, asked, again)
		}
		if none.status != http.StatusOK || none.json["reason"] != noSubscription {
			t.Errorf("%s of nobody: %d %s", resource, none.status, none.body)
		}
		// A suspended user of another company must not show by its reason either.
		f.world.users["u-hidden"] = &directory.Subscription{UserID: "u-hidden", CompanyID: "globex", Status: "suspended", BillingStatus: "expired"}
		if a := f.ask("/v1/users/u-hidden/"+resource, withToken(acmeToken)); a.body != none.body {
			t.Errorf("%s of another company's suspended user: %s", resource, a.body)
		}
	}
}

func TestWithoutAKnownTokenNothingIsSaidAndNoStoreAsked(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	sum := sha256.Sum256([]byte(everyToken))
	for name, header := range map[string][]string{
		"none":                  nil,
		"empty":                 {""},
		"another scheme":        {"Basic " + everyToken},
		"no scheme":             {everyToken},
		"no token":              {"Bearer"},
		"an empty token":        {"Bearer "},
		"a wrong token":         {"Bearer " + everyToken + "x"},
		"a prefix":              {"Bearer " + everyToken[:10]},
		"the hash":              {"Bearer " + hex.EncodeToString(sum[:])},
		"a token and more":      {"Bearer " + everyToken + " x"},
		"two headers":           {"Bearer " + everyToken, "Bearer " + everyToken},
		"a right one and a bad": {"Bearer x", "Bearer " + everyToken},
		"a NUL":                 {"Bearer " + everyToken + "\x00"},
		"invalid UTF-8":         {"Bearer \xff\xfe"},
		"a huge one":            {"Bearer " + strings.Repeat("x", 1<<20)},
		"a tab":                 {"Bearer\t" + everyToken},
		"look-alikes":           {"Bearer " + strings.Replace(everyToken, "o", "о", 1)},
	} {
		for _, user := range []string{"u-pro", "u-nobody", "%20"} {
			a := f.ask("/v1/users/"+user+"/quota", withHeader("Authorization", header...))
			if a.status != http.StatusUnauthorized || a.json["status"] != 401.0 || !strings.HasPrefix(a.header.Get("Www-Authenticate"), `Bearer realm="tenantflow"`) {
				t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
			}
			if a.json["instance"] != "/v1/users/"+user+"/quota" || strings.Contains(a.body, everyToken[:8]) {
				t.Errorf("%s: %s", name, a.body)
			}
		}
	}
	if n := f.world.asked.Load(); n != 0 {
		t.Errorf("stores were asked %d times", n)
	}
	if a := f.ask("/v1/users/u-pro/quota", withHeader("Authorization", "bEARER   "+everyToken)); a.status != http.StatusOK {
		t.Errorf("the scheme in other letters: %d %s", a.status, a.body)
	}
}

func TestWithoutATokensFileOnlyPeersOnALoopbackAddressAreAnswered(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	f.tokens = nil
	from := func(peer string) func(*http.Request) {
		return func(r *http.Request) { r.RemoteAddr, r.Host = peer, "localhost:8080" }
	}
	for _, peer := range []string{"127.0.0.1:5", "127.8.9.1:5", "[::1]:5", "[::ffff:127.0.0.1]:5"} {
		a := f.ask("/v1/users/u-pro/quota", from(peer), withHeader("Authorization"))
		if a.status != http.StatusOK || a.json["company_id"] != "acme" {
			t.Errorf("%s: %d %s", peer, a.status, a.body)
		}
	}
	asked := f.world.asked.Load()
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if a := f.ask("/v1/users/u-pro/quota", from("127.0.0.1:5"), withHeader(name, "127.0.0.1")); a.status != http.StatusForbidden {
			t.Errorf("passed on by a proxy (%s): %d %s", name, a.status, a.body)
		}
	}
	for _, peer := range []string{"192.0.2.1:5", "10.0.0.1:5", "[::ffff:192.0.2.1]:5", "[fe80::1%eth0]:5", "0.0.0.0:5", "[::]:5", "127.0.0.1", "@", "", "localhost:5"} {
		a := f.ask("/v1/users/u-pro/quota", from(peer), withHeader("X-Forwarded-For", "127.0.0.1"), withHeader("Forwarded", "for=127.0.0.1"), withHeader("X-Real-Ip", "127.0.0.1"))
		if a.status != http.StatusForbidden || a.json["status"] != 403.0 {
			t.Errorf("%q: %d %s", peer, a.status, a.body)
		}
	}
	// What a browser is made to ask by a page whose name resolves to this machine.
	for host, status := range map[string]int{
		"evil.example:8080": 403, "127.0.0.1.evil.example": 403, "localhost.evil.example": 403, "notlocalhost": 403, "127.1": 403,
		"127.0.0.1": 200, "[::1]:8080": 200, "[::1]": 200, "LocalHost": 200, "a.localhost:80": 200, "10.0.0.1:80": 200, "": 200,
	} {
		a := f.ask("/v1/users/u-nobody/quota", from("127.0.0.1:5"), func(r *http.Request) { r.Host = host })
		if a.status != status {
			t.Errorf("host %q: %d, want %d", host, a.status, status)
		}
	}
	if n := f.world.asked.Load() - asked; n != 7 {
		t.Errorf("stores were asked %d times", n)
	}
}

func TestMalformedRequestsAreToldWhatIsWrongAndNoStoreIsAsked(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	const id, query, body = "user_id is not", "query parameter", "has no body"
	for target, want := range map[string]string{
		"/v1/users/a%2Fb/quota":                                    id,
		"/v1/users/u-pro%2Fquota/quota":                            id,
		"/v1/users/u%00pro/quota":                                  id,
		"/v1/users/%00/quota":                                      id,
		"/v1/users/%0d%0aX:1/quota":                                id,
		"/v1/users/u%20pro/quota":                                  id,
		"/v1/users/%2e%2e/quota":                                   id,
		"/v1/users/u.pro/quota":                                    id,
		"/v1/users/%75-pr%D0%BE/quota":                             id, // with a Cyrillic o
		"/v1/users/%EF%BC%B5-pro/quota":                            id, // a full-width U
		"/v1/users/u%E2%80%8B-pro/quota":                           id, // a space of no width
		"/v1/users/%ff%fe/quota":                                   id,
		"/v1/users/{u}:2026/quota":                                 id,
		"/v1/users/*/quota":                                        id,
		"/v1/users/'%20or%201=1--/subscription":                    id,
		"/v1/users/" + strings.Repeat("a", 51) + "/quota":          id,
		"/v1/users/" + strings.Repeat("%61", 51) + "/quota":        id,
		"/v1/users/u-pro/quota?x=1":                                query,
		"/v1/users/u-pro/quota?date=2026-01-01":                    query,
		"/v1/users/u-pro/quota?x":                                  query,
		"/v1/users/u-pro/quota?=":                                  query,
		"/v1/users/u-pro/quota?&":                                  query,
		"/v1/users/u-pro/quota?a=1&a=2":                            "repeated",
		"/v1/users/u-pro/quota?%zz=%00":                            query,
		"/v1/users/u-pro/quota?a;b":                                query,
		"/v1/users/u-pro/subscription?" + strings.Repeat("&", 900): query,
	} {
		a := f.ask(target)
		if a.status != http.StatusBadRequest || a.json["status"] != 400.0 || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
	for _, change := range []func(*http.Request){
		func(r *http.Request) { r.ContentLength, r.Body = 2, io.NopCloser(strings.NewReader("{}")) },
		func(r *http.Request) { r.ContentLength, r.Body = -1, io.NopCloser(strings.NewReader("{}")) },
	} {
		if a := f.ask("/v1/users/u-pro/quota", change); a.status != http.StatusBadRequest || !strings.Contains(a.body, body) {
			t.Errorf("with a body: %d %s", a.status, a.body)
		}
	}
	if n := f.world.asked.Load(); n != 0 {
		t.Errorf("stores were asked %d times", n)
	}
	for _, target := range []string{"/v1/users/%75-pro/quota", "/v1/users/u-pro/quota?"} {
		if a := f.ask(target); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
}

func TestPathsAndMethodsThatAreNoneAreProblems(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for target, status := range map[string]int{
		"/v1":                                    404,
		"/v1/":                                   404,
		"/v1/users":                              404,
		"//":                                     404,
		"/..":                                    404,
		"/v1/users/%2F/quota":                    404,
		"/v1/users//quota":                       404,
		"/v1/users/u-pro":                        404,
		"/v1/users/u-pro/quota/":                 404,
		"/v1/users/u-pro/Quota":                  404,
		"/v1/users/a/b/quota":                    404,
		"/v1/users/../users/u-pro/quota":         404,
		"/v1/./users/u-pro/quota":                404,
		"//v1/users/u-pro/quota":                 404,
		"/V1/users/u-pro/quota":                  404,
		"/v1/users/u-pro/quota%00":               404,
		"/v1%2Fusers%2Fu-pro%2Fquota":            404,
		"/" + strings.Repeat("a", 2000):          414,
		"/livez?" + strings.Repeat("a", 2000):    414,
		"/v1/users/" + strings.Repeat("a/", 600): 414,
	} {
		if a := f.ask(target); a.status != status || a.json["status"] != float64(status) || a.header.Get("Location") != "" {
			t.Errorf("%.40s: %d %.200s", target, a.status, a.body)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect, "BREW"} {
		a := f.ask("/v1/users/u-pro/quota", func(r *http.Request) { r.Method = method })
		if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, HEAD" || a.json["status"] != 405.0 {
			t.Errorf("%s: %d %s", method, a.status, a.body)
		}
	}
}

func TestAProcessWithoutAnAPISaysSo(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, path := range []string{"/v1/users/u-pro/quota", "/v1", "/v1/", "/v1/x"} {
		if a := f.do(t, http.MethodGet, path); a.status != http.StatusNotFound || !strings.Contains(a.body, "not served by this process") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

func TestAStoreThatIsAwayIsA503ThatSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	away := func(name string, a answer, detail string) {
		t.Helper()
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") != "1" || !strings.Contains(a.body, detail) || strings.Contains(a.body, "10.1.2.3") {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
	}
	gone := errors.New("dial tcp 10.1.2.3:5432: connection refused")
	f.world.countErr = gone
	away("no counters", f.ask("/v1/users/u-pro/quota"), "a store does not answer")
	if a := f.ask("/v1/users/u-pro/subscription"); a.status != http.StatusOK {
		t.Errorf("a subscription needs no counters: %d %s", a.status, a.body)
	}
	if a := f.ask("/v1/users/u-enterprise/quota"); a.status != http.StatusOK || a.json["exceeded"] != false || a.json["usage"] != "unlimited" || a.json["current_usage"] != nil {
		t.Errorf("an unlimited user needs no counters: %d %s", a.status, a.body)
	}
	if a := f.ask("/v1/users/u-nobody/quota"); a.status != http.StatusOK {
		t.Errorf("nobody needs no counters: %d %s", a.status, a.body)
	}
	f.world.userErr = gone
	away("no subscriptions", f.ask("/v1/users/u-pro/subscription"), "a store does not answer")
	away("no subscriptions", f.ask("/v1/users/u-pro/quota"), "a store does not answer")
	f.world.userErr = context.DeadlineExceeded
	away("a slow store", f.ask("/v1/users/u-pro/quota"), "within 2s")
	f.Detach()
	away("not started", f.ask("/v1/users/u-pro/quota"), "starting or stopping")
	f.world.userErr, f.world.countErr = nil, nil
	f.Attach(f.world.stores())
	if a := f.ask("/v1/users/u-pro/quota"); a.status != http.StatusOK {
		t.Errorf("after it is back: %d %s", a.status, a.body)
	}
}

func TestTheLogSaysOnceThatAStoreIsAway(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	var said strings.Builder
	f.troubles = logs.NewTroubles(slog.New(slog.NewTextHandler(&said, nil)))
	f.world.userErr = errors.New("connection refused")
	for range 100 {
		f.ask("/v1/users/u-pro/quota")
	}
	f.world.userErr = nil
	f.ask("/v1/users/u-pro/quota")
	if n := strings.Count(said.String(), "\n"); n != 2 || strings.Contains(said.String(), "u-pro") || !strings.Contains(said.String(), "over") || !strings.Contains(said.String(), "tries=100") {
		t.Errorf("%d lines:\n%s", n, said.String())
	}
}

func TestMoreRequestsThanMayBeUnderWayAreTurnedAwayAtOnce(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	f.inFlight.all, f.inFlight.reserved = 3, 0
	f.world.hang = make(chan struct{})
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() {
			if a := f.ask("/v1/users/u-pro/subscription"); a.status != http.StatusOK {
				t.Errorf("one that was let in: %d %s", a.status, a.body)
			}
		})
	}
	eventually(t, func() bool { return f.world.asked.Load() == 3 })
	a := f.ask("/v1/users/u-pro/subscription")
	if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, "too many") {
		t.Errorf("one too many: %d %s", a.status, a.body)
	}
	if a := f.ask("/livez"); a.status != http.StatusOK {
		t.Errorf("probes have no part in the limit: %d", a.status)
	}
	close(f.world.hang)
	waiting.Wait()
	if a := f.ask("/v1/users/u-pro/subscription"); a.status != http.StatusOK || f.inFlight.count() != 0 {
		t.Errorf("afterwards: %d, %d under way", a.status, f.inFlight.count())
	}
}

func TestAPI_ANoisyTokenLeavesRoomForTheOthers(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	f.world.hang = make(chan struct{})
	var waiting sync.WaitGroup
	ask := func(token string) {
		waiting.Go(func() {
			if a := f.ask("/v1/users/u-pro/subscription", withToken(token)); a.status != http.StatusOK {
				t.Errorf("one that was let in: %d %s", a.status, a.body)
			}
		})
	}
	for range maxShare {
		ask(everyToken)
	}
	eventually(t, func() bool { return f.world.asked.Load() == maxShare })
	if a := f.ask("/v1/users/u-pro/subscription"); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") != "1" {
		t.Errorf("beyond its share: %d %s", a.status, a.body)
	}
	ask(acmeToken)
	eventually(t, func() bool { return f.world.asked.Load() == maxShare+1 })
	f.inFlight.all = maxShare // others have the rest
	ask(acmeToken)
	eventually(t, func() bool { return f.world.asked.Load() == maxShare+2 })
	close(f.world.hang)
	waiting.Wait()
	if n := len(f.inFlight.of); n != 0 {
		t.Errorf("%d tokens are still counted", n)
	}
}

func TestAClientThatHasGoneIsNoFailureOfTheService(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	f.world.hang = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.ask("/v1/users/u-pro/quota", func(r *http.Request) { *r = *r.WithContext(ctx) })
	if n := testutil.ToFloat64(requests(t, f.registry, "/v1/users/{user_id}/quota", "4xx")); n != 1 {
		t.Errorf("%v requests are counted as 4xx", n)
	}
}

// requests is the counter of a route's requests.
func requests(t *testing.T, registry *prometheus.Registry, route, status string) prometheus.Collector {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := prometheus.NewCounter(prometheus.CounterOpts{Name: "found"})
	for _, family := range families {
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, pair := range m.GetLabel() {
				labels[pair.GetName()] = pair.GetValue()
			}
			if family.GetName() == "tenantflow_http_requests_total" && labels["route"] == route && labels["status"] == status {
				sum.Add(m.GetCounter().GetValue())
			}
		}
	}
	return sum
}

func TestMetricsKnowRoutesAndNoUsers(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	f.ask("/v1/users/u-pro/quota")
	f.ask("/v1/users/u-nobody/quota")
	f.ask("/v1/users/u%20x/quota")
	f.ask("/v1/users/u-pro/subscription", withToken("x"))
	f.ask("/u-secret/path")
	f.ask("/livez", func(r *http.Request) { r.Method = http.MethodPost })
	for _, want := range []struct {
		route, status string
		n             float64
	}{
		{"/v1/users/{user_id}/quota", "2xx", 2},
		{"/v1/users/{user_id}/quota", "4xx", 1},
		{"/v1/users/{user_id}/subscription", "4xx", 1},
		{"other", "4xx", 1},
		{"/livez", "4xx", 1},
	} {
		if n := testutil.ToFloat64(requests(t, f.registry, want.route, want.status)); n != want.n {
			t.Errorf("%s %s: %v requests, want %v", want.route, want.status, n, want.n)
		}
	}
	a := f.ask("/metrics")
	for _, secret := range []string{"u-pro", "u-nobody", "u-secret", "acme", everyToken} {
		if strings.Contains(a.body, secret) {
			t.Errorf("the metrics tell of %s", secret)
		}
	}
	for _, want := range []string{`tenantflow_http_request_seconds_count{route="/v1/users/{user_id}/quota"} 3`, "tenantflow_http_v1_in_flight 0", "tenantflow_http_tokens_stale 0"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// What comes over a connection is HTTP or not; the server decides before any handler does.
func TestHostileBytesOverAConnectionGetA4xxOrNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for name, text := range map[string]string{
		"a NUL in the target":      "GET /v1/users/\x00/quota HTTP/1.1\r\nHost: x\r\n\r\n",
		"raw UTF-8 in the target":  "GET /v1/users/\xd0\xb0/quota HTTP/1.1\r\nHost: x\r\n\r\n",
		"a huge query":             "GET /livez?" + strings.Repeat("a", 12<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"a huge line":              "GET /" + strings.Repeat("a", 64<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"no host":                  "GET /v1/x HTTP/1.1\r\n\r\n",
		"two hosts":                "GET /v1/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"a broken escape":          "GET /v1/users/%zz/quota HTTP/1.1\r\nHost: x\r\n\r\n",
		"two lengths":              "GET /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"a length and chunks":      "POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"a space before the colon": "GET /v1/x HTTP/1.1\r\nHost : x\r\n\r\n",
		"TLS":                      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
	} {
		var d net.Dialer
		conn, err := d.DialContext(t.Context(), "tcp", f.server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, text) // it may be cut off while it is still being sent
		head := make([]byte, len("HTTP/1.1 4"))
		if n, _ := io.ReadFull(conn, head); n > 0 && string(head) != "HTTP/1.1 4" {
			t.Errorf("%s: the answer begins with %q", name, head[:n])
		}
		conn.Close()
	}
}
