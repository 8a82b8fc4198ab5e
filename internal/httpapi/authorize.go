package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"tenantflow/internal/token"
)

// local is the grant of callers that need no token.
var local = token.All("loopback")

// authorize returns what the sender of a request may see. If it is nothing, the answer is written and nil returned.
func (a *API) authorize(w http.ResponseWriter, r *http.Request) *token.Grant {
	if a.tokens == nil {
		if why := notLocal(r); why != "" {
			WriteProblem(w, r, Problem{Status: http.StatusForbidden, Detail: why})
			return nil
		}
		return local
	}
	bearer, given := bearerOf(r.Header["Authorization"])
	if given {
		if grant, ok := a.tokens.Find(bearer); ok {
			return grant
		}
	}
	challenge, detail := `Bearer realm="tenantflow"`, "an Authorization header with a Bearer token is needed"
	if given {
		challenge, detail = challenge+`, error="invalid_token"`, "the token is not known"
	}
	w.Header().Set("WWW-Authenticate", challenge)
	WriteProblem(w, r, Problem{Status: http.StatusUnauthorized, Detail: detail})
	return nil
}

// bearerOf returns the token of the Authorization headers. Of two, a proxy in front may have looked at the other one.
func bearerOf(headers []string) (bearer string, given bool) {
	if len(headers) != 1 {
		return "", false
	}
	scheme, bearer, _ := strings.Cut(headers[0], " ")
	bearer = strings.TrimLeft(bearer, " ")
	return bearer, strings.EqualFold(scheme, "Bearer") && bearer != ""
}

// forwarded are the headers by which a proxy says that it passes on a request of another client.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"} //nolint:gochecknoglobals // a constant table

// notLocal says why a request is not from this machine; nothing: it is. The connection has to be, and no proxy on this machine may
// say that it is passed on. What such a header says does not matter: any client can write it.
func notLocal(r *http.Request) string {
	for _, name := range forwarded {
		if r.Header.Values(name) != nil {
			return "without a tokens file, /v1 answers no requests that a proxy passes on"
		}
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return "without a tokens file, /v1 answers only peers on a loopback address"
	}
	// A web page that is open on this machine can have its own name resolve to 127.0.0.1 and then read answers. Its
	// requests name it.
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil || host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return ""
	}
	return "without a tokens file, /v1 answers only requests to localhost or an IP address"
}
