// Package certstest makes certificates for tests.
package certstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tenantflow/internal/certs"
)

// An Authority signs certificates.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	PEM  []byte
}

// NewAuthority makes an authority of this name.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	a := &Authority{t: t}
	a.cert, a.key, a.PEM = sign(t, template, time.Hour, nil, nil)
	return a
}

// A Pair is a certificate with its key, both in PEM.
type Pair struct{ Cert, Key []byte }

// A Wish changes a certificate before it is signed.
type Wish func(*x509.Certificate)

// Expired makes a certificate that has expired an hour ago.
func Expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }

// For makes a certificate for this host name only.
func For(host string) Wish {
	return func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{host}, nil }
}

// Issue signs a certificate for name, which is good for a server on 127.0.0.1 and for a client.
func (a *Authority) Issue(name string, wishes ...Wish) Pair {
	a.t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotAfter: time.Now().Add(time.Hour),
	}
	for _, wish := range wishes {
		wish(template)
	}
	_, key, cert := sign(a.t, template, time.Until(template.NotAfter), a.cert, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return Pair{Cert: cert, Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
}

func sign(t testing.TB, template *x509.Certificate, life time.Duration, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(life)
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Write puts bytes into a file in one step, as a rotation does, readable by every user.
func Write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// Files writes what a client needs into a directory of the test's own: the authority that it trusts, and a pair, which may be
// empty.
func Files(t testing.TB, trusted *Authority, p Pair) certs.Files {
	t.Helper()
	dir := t.TempDir()
	f := certs.Files{CA: filepath.Join(dir, "ca.pem")}
	Write(t, f.CA, trusted.PEM)
	if p.Cert != nil {
		f.Cert, f.Key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		Write(t, f.Cert, p.Cert)
		Write(t, f.Key, p.Key)
	}
	return f
}

// Serve gives each connection to a new TLS port of this machine to a function, and closes it after that. It returns the HOST:PORT.
func Serve(t testing.TB, config *tls.Config, each func(net.Conn)) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = tls.NewListener(l, config)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				each(c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}
