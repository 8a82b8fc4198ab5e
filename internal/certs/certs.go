// Package certs reads certificates from files, reads them again when they change, and makes TLS connections with them whose
// errors say what is wrong, where, and what to do.
//
//	source := certs.New(certs.Peer{Name: "Kafka", CA: "TENANTFLOW_KAFKA_CA_FILE"}, certs.Files{CA: "/etc/ca.pem"})
//	dial := source.Dial(dialer.DialContext, nil) // connects and shakes hands
//
// The files are read at each handshake, which costs far less than the handshake itself and needs no watcher: a rotation shows
// in the next connection. Files that can't be used (half written, of two rotations) leave the last good ones in force; that is
// logged once, and the [Collector] shows it until they are mended.
package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Files are paths of PEM files; empty: none.
type Files struct {
	CA   string // the authorities that are trusted; none: the system's
	Cert string // what this process shows, with the intermediate ones behind it
	Key  string // its private key
}

// A Peer is who is on the other side, in the words of errors.
type Peer struct {
	Name     string // Kafka, ClickHouse, ...
	CA, Pair string // the settings that name the authorities, and the certificate with its key
}

// A Source holds the certificates of one use. It may be used by several goroutines at once. A nil Source trusts the system's
// authorities and has no certificate.
type Source struct {
	peer  Peer
	files Files

	mu     sync.Mutex
	seen   [3][]byte // the files as they were read last, usable or not
	good   *loaded   // the last ones that could be used; nil: there were none yet
	broken error     // why those in seen can't be used
	log    *slog.Logger
}

// loaded is what was made of the files.
type loaded struct {
	roots             *x509.CertPool // nil: the system's
	pair              *tls.Certificate
	rootsEnd, pairEnd time.Time // zero: there is no such file
}

// New makes a source and reads its files. Where they can't be used yet, the first connection says so; see [Check].
func New(peer Peer, files Files) *Source {
	s := &Source{peer: peer, files: files, log: slog.New(slog.DiscardHandler)}
	_, _ = s.current() // kept in the source
	return s
}

// LogTo sets where reloads are logged. Call it before the source is used by others.
func (s *Source) LogTo(log *slog.Logger) {
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log = log
	}
}

// Check reads the files and says what is wrong with each: with the authorities, the certificate, the key, or with the two of
// them together, which is said of the key.
func Check(f Files) (ca, cert, key error) {
	if f.CA != "" {
		if b, err := read(f.CA); err != nil {
			ca = err
		} else {
			_, _, ca = authorities(f.CA, b)
		}
	}
	if f.Cert == "" || f.Key == "" {
		return ca, nil, nil
	}
	certPEM, cert := read(f.Cert)
	if cert == nil {
		_, cert = certificates(f.Cert, certPEM)
	}
	keyPEM, key := read(f.Key)
	if cert == nil && key == nil {
		_, _, key = pair(f, certPEM, keyPEM)
	}
	return ca, cert, key
}

// current reads the files, and returns the last ones that can be used.
func (s *Source) current() (*loaded, error) {
	if s == nil {
		return &loaded{}, nil
	}
	var now [3][]byte
	var failed error
	for i, path := range []string{s.files.CA, s.files.Cert, s.files.Key} {
		if path == "" {
			continue
		}
		b, err := read(path)
		if err != nil {
			b, failed = []byte(err.Error()), err
		}
		now[i] = b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.good == nil && s.broken == nil
	for i := range now {
		changed = changed || !bytes.Equal(now[i], s.seen[i])
	}
	if !changed {
		return s.usable()
	}
	s.seen = now
	if failed == nil {
		var fresh *loaded
		if fresh, failed = s.load(now); failed == nil {
			if s.good != nil {
				s.log.Info("certificates were read again", "of", s.peer.Name, "expires", fresh.pairEnd, "authorities_expire", fresh.rootsEnd)
			}
			s.good, s.broken = fresh, nil
			return s.good, nil
		}
	}
	s.broken = failed
	if s.good != nil {
		s.log.Error("certificates have changed and can't be used; the former ones stay in force", "of", s.peer.Name, "error", failed)
	}
	return s.usable()
}

func (s *Source) usable() (*loaded, error) {
	if s.good == nil {
		return nil, s.broken
	}
	return s.good, nil
}

func (s *Source) load(content [3][]byte) (*loaded, error) {
	l := &loaded{}
	var err error
	if s.files.CA != "" {
		if l.roots, l.rootsEnd, err = authorities(s.files.CA, content[0]); err != nil {
			return nil, err
		}
	}
	if s.files.Cert != "" {
		if l.pair, l.pairEnd, err = pair(s.files, content[1], content[2]); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// maxFile is more than any bundle of authorities needs, and stops a wrong path from filling the memory.
const maxFile = 4 << 20

func read(path string) ([]byte, error) {
	f, err := os.Open(path) // #nosec G304 -- a path of the configuration
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, cause(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", path, cause(err))
	case len(b) > maxFile:
		return nil, fmt.Errorf("%s is larger than 4 MiB", path)
	}
	return b, nil
}

// cause drops the path from a file error, which the message has already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// certificates reads all certificates of a PEM file.
func certificates(path string, b []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s has a certificate that can't be read: %w", path, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", path)
	}
	return all, nil
}

// authorities also returns when the last of them expires: while a bundle is rotated it holds the old one, too.
func authorities(path string, b []byte) (*x509.CertPool, time.Time, error) {
	all, err := certificates(path, b)
	if err != nil {
		return nil, time.Time{}, err
	}
	pool, end := x509.NewCertPool(), time.Time{}
	for _, c := range all {
		pool.AddCert(c)
		if c.NotAfter.After(end) {
			end = c.NotAfter
		}
	}
	return pool, end, nil
}

func pair(f Files, cert, key []byte) (*tls.Certificate, time.Time, error) {
	p, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("%s and %s are no certificate and its key: %w", f.Cert, f.Key, err)
	}
	return &p, p.Leaf.NotAfter, nil
}

// Config makes the configuration of one connection to host from the files as they are now. What base says stays: a server name,
// and whether the server is verified at all.
func (s *Source) Config(base *tls.Config, host string) (*tls.Config, error) {
	now, err := s.current()
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		c = base.Clone()
		c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	}
	if c.ServerName == "" {
		c.ServerName = host
	}
	if now.roots != nil {
		c.RootCAs = now.roots
	}
	if now.pair != nil {
		c.Certificates = []tls.Certificate{*now.pair}
		// Shown whatever authorities the server asks for: then it says what it has against ours, where otherwise it would
		// miss one.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return now.pair, nil }
	}
	return c, nil
}

// Server is the configuration of a server that shows the certificate as it is at each handshake.
func (s *Source) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			now, err := s.current()
			if err != nil {
				return nil, err
			}
			return now.pair, nil
		},
	}
}
