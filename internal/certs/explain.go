package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// An Error says that TLS came to nothing: a certificate that does not do, ours or theirs. It may pass, when a file or the server
// is mended.
type Error struct {
	Peer  string // Kafka, ClickHouse, ...
	Addr  string // HOST:PORT
	Wrong string // what is wrong
	Do    string // what to do
	Early bool   // it came in the handshake: nothing was sent
	Err   error
}

func (e *Error) Error() string { return fmt.Sprintf("%s at %s: %s; %s", e.Peer, e.Addr, e.Wrong, e.Do) }

func (e *Error) Unwrap() error { return e.Err }

// remoteError is the operation of a net.OpError by which crypto/tls reports an alert of the other side.
const remoteError = "remote error"

// Explain makes an *[Error] of what crypto/tls reports, or returns err as it is where it says nothing about TLS. shown: this
// process has a certificate to show. early: err came in the handshake.
func Explain(peer Peer, addr string, shown, early bool, err error) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	wrong, do := reason(peer, addr, shown, early, err)
	if wrong == "" {
		return err
	}
	return &Error{Peer: peer.Name, Addr: addr, Wrong: wrong, Do: do, Early: early, Err: err}
}

func reason(peer Peer, addr string, shown, early bool, err error) (wrong, do string) {
	var host x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.As(err, &host):
		return fmt.Sprintf("its certificate is not valid for the host %s (it names %s)", host.Host, names(host.Certificate)),
			"use an address that it names, or give the server a certificate for this one"
	case errors.As(err, &authority):
		issuer := "an authority"
		if authority.Cert != nil {
			issuer = quoted(authority.Cert.Issuer.String())
		}
		return "its certificate is signed by " + issuer + ", which is not trusted", "put the certificate of that authority into the file of " + peer.CA
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		now := time.Now()
		if invalid.Cert.NotBefore.After(now) {
			return "its certificate is not valid before " + when(invalid.Cert.NotBefore), "check the clocks of both machines"
		}
		return fmt.Sprintf("its certificate expired at %s (now it is %s)", when(invalid.Cert.NotAfter), when(now)), "renew it at the server, or check the clock here"
	case errors.As(err, &verification):
		return "its certificate is not accepted: " + verification.Err.Error(), "mend it at the server"
	case errors.As(err, &header):
		return "it does not speak TLS on this port", "correct the port, or switch TLS on at the server or off here"
	case errors.As(err, &op) && op.Op == remoteError:
		return refused(peer, shown, op.Err.Error())
	case early && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)):
		// It may have refused our certificate, too: an alert is lost when the server closes with bytes of ours unread.
		return "it closed the connection in the TLS handshake", "see whether this port speaks TLS, whether the server takes the certificate of " + peer.Pair + ", and what its log says"
	}
	return "", ""
}

// refused is what an alert of the server means. The words are those of RFC 8446, section 6.2, as crypto/tls writes them.
func refused(peer Peer, shown bool, alert string) (wrong, do string) {
	alert = strings.TrimPrefix(alert, "tls: ")
	switch alert {
	case "expired certificate":
		return "it refuses our certificate, which has expired", "renew the files of " + peer.Pair
	case "unknown certificate authority":
		return "it refuses our certificate: it does not trust the authority that signed it", "take one of an authority it trusts for " + peer.Pair
	case "bad certificate", "certificate required", "unknown certificate", "unsupported certificate", "revoked certificate", "access denied", "handshake failure":
		if !shown {
			return "it wants a client certificate, and there is none (" + alert + ")", "set " + peer.Pair
		}
		return "it refuses our certificate (" + alert + ")", "see the server's log for the reason, and renew the files of " + peer.Pair
	}
	return "it ended the TLS connection (" + alert + ")", "see the server's log for the reason"
}

func names(c *x509.Certificate) string {
	all := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	const most = 5
	switch {
	case len(all) == 0:
		return "none"
	case len(all) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}

func quoted(s string) string { return "\"" + s + "\"" }

func when(t time.Time) string { return t.UTC().Format(time.RFC3339) }
