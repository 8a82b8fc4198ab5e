package httpapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"tenantflow/internal/certs"
	"tenantflow/internal/certs/certstest"
	"tenantflow/internal/health"
	"tenantflow/internal/telemetry"
)

func TestServer_HTTPSWithARotatedCertificate(t *testing.T) {
	t.Parallel()
	a := certstest.NewAuthority(t, "authority")
	shown := certstest.Files(t, a, a.Issue("first"))
	log := slog.New(slog.DiscardHandler)
	s := New(Options{
		Addr: "127.0.0.1:0", Health: health.New(time.Minute, log), Metrics: telemetry.NewRegistry(telemetry.Build{}), Log: log,
		TLS: certs.New(certs.Peer{Name: "HTTP"}, certs.Files{Cert: shown.Cert, Key: shown.Key}).Server(),
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(a.PEM)
	get := func(url string, highest uint16) (status int, name string, err error) {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS10, MaxVersion: highest}}} // #nosec G402 -- to be refused
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+s.Addr().String()+"/livez", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(request)
		if err != nil {
			return 0, "", err
		}
		defer answer.Body.Close()
		if answer.TLS != nil {
			name = answer.TLS.PeerCertificates[0].Subject.CommonName
		}
		return answer.StatusCode, name, nil
	}
	named := func(want string) {
		t.Helper()
		status, got, err := get("https://", tls.VersionTLS13)
		if err != nil || status != http.StatusOK || got != want {
			t.Errorf("got status %d by the certificate %q, %v; want 200 by %q", status, got, err, want)
		}
	}
	named("first")
	second := a.Issue("second")
	certstest.Write(t, shown.Cert, second.Cert)
	named("first") // its key is not there yet
	certstest.Write(t, shown.Key, second.Key)
	named("second")

	if status, _, err := get("http://", tls.VersionTLS13); err != nil || status != http.StatusBadRequest {
		t.Errorf("plain HTTP: got status %d, %v; want 400", status, err)
	}
	if _, _, err := get("https://", tls.VersionTLS11); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

// A port scanner makes no lines in the log.
func TestServer_FailedHandshakesAreNoWarnings(t *testing.T) {
	t.Parallel()
	warned := make(chan string, 10)
	log := slog.New(lineHandler{warned})
	e := &clientErrors{log}
	if _, err := e.Write([]byte("http: TLS handshake error from 127.0.0.1:1: EOF\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Write([]byte("http: Accept error: too many open files\n")); err != nil {
		t.Fatal(err)
	}
	if got := <-warned; got != "http: Accept error: too many open files" || len(warned) > 0 {
		t.Errorf("got %q", got)
	}
}

// lineHandler keeps the messages of info and above.
type lineHandler struct{ to chan string }

func (lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (h lineHandler) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		h.to <- a.Value.String()
		return true
	})
	return nil
}
func (h lineHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h lineHandler) WithGroup(string) slog.Handler      { return h }
