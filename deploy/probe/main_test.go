package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestOnly200IsWell(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/readyz":
			http.Error(w, `{"failing": "clickhouse"}`, http.StatusServiceUnavailable)
		case "/moved":
			http.Redirect(w, r, "/readyz", http.StatusFound)
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(server.Close)
	for path, want := range map[string]string{
		"/livez":  "",
		"/readyz": `503 Service Unavailable: {"failing": "clickhouse"}`,
		"/moved":  "503",
		"/empty":  "204",
	} {
		err := ask(t.Context(), server.URL+path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

func TestNobodyThereIsNotWell(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	if err := ask(t.Context(), server.URL); err == nil {
		t.Error("a closed port is well")
	}
	if err := ask(t.Context(), "::"); err == nil {
		t.Error("what is no URL is well")
	}
}

// The service's certificate names the host that clients know, and the probe asks the loopback address.
func TestHTTPS_OnThisMachineNeedsNoNameInTheCertificate(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	if err := ask(t.Context(), server.URL); err != nil {
		t.Error(err)
	}
	if err := ask(t.Context(), strings.Replace(server.URL, "127.0.0.1", "localhost", 1)); err == nil {
		t.Error("a certificate of an unknown authority was taken from a host by name")
	}
}
