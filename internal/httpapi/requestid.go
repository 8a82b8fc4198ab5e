package httpapi

import (
	"encoding/hex"
	"math/rand/v2"
	"net/http"
)

// requestID is the header that names a request: in every answer, in problems and in the access log.
const requestID = "X-Request-Id"

// maxRequestID is how long the name that a client gives its request may be.
const maxRequestID = 128

// idOf returns the name of a request: the client's own if it is one that a log can show, or else a new one. It need not be hard to guess.
func idOf(r *http.Request) string {
	if given := r.Header[requestID]; len(given) == 1 && saneID(given[0]) {
		return given[0]
	}
	var b [16]byte
	for i := 0; i < len(b); i += 8 {
		n := rand.Uint64() // #nosec G404 -- a name, no secret
		for j := range 8 {
			b[i+j] = byte(n >> (8 * j))
		}
	}
	return hex.EncodeToString(b[:])
}

// saneID reports whether a request id consists of letters, digits, '.', '_', '-' and ':' of ASCII, 1 to maxRequestID of them.
func saneID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-', c == ':':
		default:
			return false
		}
	}
	return true
}
