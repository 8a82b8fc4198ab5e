package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"tenantflow/internal/certs"
	"tenantflow/internal/certs/certstest"
)

var peer = certs.Peer{Name: "Peer", CA: "PEER_CA_FILE", Pair: "PEER_CERT_FILE and PEER_KEY_FILE"} //nolint:gochecknoglobals // a constant

// serve answers each connection with a byte, with the certificate of a source.
func serve(t *testing.T, config *tls.Config) string {
	t.Helper()
	return certstest.Serve(t, config, func(c net.Conn) { _, _ = c.Write([]byte("x")) })
}

// ask connects and reads what serve answers.
func ask(t *testing.T, s *certs.Source, addr string) error {
	t.Helper()
	c, err := s.Dial((&net.Dialer{}).DialContext, nil)(t.Context(), "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

func TestSource_RotationTakesEffectAndABrokenFileDoesNot(t *testing.T) {
	t.Parallel()
	first, second := certstest.NewAuthority(t, "first"), certstest.NewAuthority(t, "second")
	served := certstest.Files(t, first, first.Issue("server"))
	addr := serve(t, certs.New(peer, served).Server())
	trusted := certstest.Files(t, first, certstest.Pair{})
	client := certs.New(peer, trusted)
	var log bytes.Buffer
	client.LogTo(slog.New(slog.NewTextHandler(&log, nil)))
	collector := certs.NewCollector([]*certs.Source{client})
	broken := func(want string) {
		t.Helper()
		const head = "# HELP tenantflow_certificate_files_broken 1 while the files of certificates can't be used, so that the former ones stay in force.\n# TYPE tenantflow_certificate_files_broken gauge\n"
		if err := testutil.CollectAndCompare(collector, strings.NewReader(head+`tenantflow_certificate_files_broken{of="Peer"} `+want+"\n"), "tenantflow_certificate_files_broken"); err != nil {
			t.Error(err)
		}
	}
	if err := ask(t, client, addr); err != nil {
		t.Fatal(err)
	}
	broken("0")

	// The server's certificate is of another authority now: in the next handshake.
	rotated := second.Issue("server")
	certstest.Write(t, served.Cert, rotated.Cert)
	if err := ask(t, client, addr); err != nil { // its key is not there yet
		t.Fatal(err)
	}
	certstest.Write(t, served.Key, rotated.Key)
	var refused *certs.Error
	if err := ask(t, client, addr); !errors.As(err, &refused) || !refused.Early || refused.Addr != addr || !strings.Contains(err.Error(), "not trusted; put the certificate of that authority into the file of PEER_CA_FILE") {
		t.Fatalf("got %v", err)
	}

	for range 3 {
		certstest.Write(t, trusted.CA, []byte("no certificate"))
		if err := ask(t, client, addr); !errors.As(err, &refused) {
			t.Fatalf("got %v", err) // the first authority is still the one that is trusted
		}
	}
	broken("1")
	if n := strings.Count(log.String(), "can't be used"); n != 1 {
		t.Errorf("%d lines about the broken file:\n%s", n, log.String())
	}
	certstest.Write(t, trusted.CA, append(first.PEM, second.PEM...))
	if err := ask(t, client, addr); err != nil {
		t.Fatal(err)
	}
	broken("0")
}

func TestSource_FilesThatWereNeverGoodAreAnErrorThatPasses(t *testing.T) {
	t.Parallel()
	a := certstest.NewAuthority(t, "authority")
	addr := serve(t, certs.New(peer, certstest.Files(t, a, a.Issue("server"))).Server())
	trusted := certstest.Files(t, a, certstest.Pair{})
	if err := os.Remove(trusted.CA); err != nil {
		t.Fatal(err)
	}
	client := certs.New(peer, trusted)
	if err := ask(t, client, addr); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Fatalf("got %v", err)
	}
	certstest.Write(t, trusted.CA, a.PEM)
	if err := ask(t, client, addr); err != nil {
		t.Fatal(err)
	}
}

func TestDial_RefusalAfterTheHandshakeIsExplained(t *testing.T) {
	t.Parallel()
	a := certstest.NewAuthority(t, "authority")
	config := certs.New(peer, certstest.Files(t, a, a.Issue("server"))).Server()
	config.ClientAuth = tls.RequireAnyClientCert
	addr := serve(t, config)
	err := ask(t, certs.New(peer, certstest.Files(t, a, certstest.Pair{})), addr)
	var refused *certs.Error
	if !errors.As(err, &refused) || refused.Early || !strings.Contains(err.Error(), "it wants a client certificate, and there is none (certificate required); set PEER_CERT_FILE and PEER_KEY_FILE") {
		t.Errorf("got %v", err)
	}
}

func TestDial_SaysWhatAServerDoesThatSpeaksNoTLS(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for i := 0; ; i++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if i == 0 {
				_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n"))
			}
			_ = c.Close()
		}
	}()
	client := certs.New(peer, certs.Files{})
	for _, want := range []string{"it does not speak TLS on this port", "it closed the connection in the TLS handshake"} {
		if err := ask(t, client, l.Addr().String()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestDial_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // it accepts in the kernel and never answers
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := certs.New(peer, certs.Files{}).Dial((&net.Dialer{}).DialContext, nil)(ctx, "tcp", l.Addr().String()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestCheck_SaysWhichFileIsWrong(t *testing.T) {
	t.Parallel()
	a := certstest.NewAuthority(t, "authority")
	good, other := certstest.Files(t, a, a.Issue("one")), certstest.Files(t, a, a.Issue("two"))
	empty := certstest.Files(t, a, certstest.Pair{Cert: []byte("-"), Key: []byte("-")})
	for name, c := range map[string]struct {
		files         certs.Files
		ca, cert, key string // parts of the errors
	}{
		"good":       {files: good},
		"missing":    {files: certs.Files{CA: "/nowhere/ca", Cert: "/nowhere/cert", Key: "/nowhere/key"}, ca: "reading /nowhere/ca: no such file", cert: "reading /nowhere/cert", key: "reading /nowhere/key"},
		"mismatched": {files: certs.Files{Cert: good.Cert, Key: other.Key}, key: "are no certificate and its key: tls: private key does not match public key"},
		"swapped":    {files: certs.Files{CA: good.Key, Cert: good.Key, Key: good.Cert}, ca: "holds no certificate in PEM", cert: "holds no certificate in PEM"},
		"no PEM":     {files: certs.Files{Cert: empty.Cert, Key: good.Key}, cert: "holds no certificate in PEM"},
	} {
		ca, cert, key := certs.Check(c.files)
		for what, pair := range map[string]struct {
			got  error
			want string
		}{"ca": {ca, c.ca}, "cert": {cert, c.cert}, "key": {key, c.key}} {
			if (pair.got == nil) != (pair.want == "") || pair.got != nil && !strings.Contains(pair.got.Error(), pair.want) {
				t.Errorf("%s: %s: got %v, want %q", name, what, pair.got, pair.want)
			}
		}
	}
}
