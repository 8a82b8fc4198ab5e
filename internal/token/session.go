package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// A session stands for a token in a browser, which sends its cookies to every port of a host name: another service there that reads one can
// look at what this service shows a browser until the session ends, and can't act as the bearer of the token. It is
//
//	NAME.SECONDS.MAC
//
// with the name of the token and the MAC in base64url, and the end in seconds since the Unix epoch. The MAC is HMAC-SHA-256 under the
// hash of the token: every instance of the service with the same file knows the session, also after a restart, and it ends when the token is
// taken out of the file. Who can read the file can make one.

// Session returns what stands for a token until a time; "" where the token is not known.
func (s *Set) Session(bearer string, until time.Time) string {
	hash := sha256.Sum256([]byte(bearer))
	g, ok := s.grants[hash]
	if !ok {
		return ""
	}
	head := base64.RawURLEncoding.EncodeToString([]byte(g.Name)) + "." + strconv.FormatInt(until.Unix(), 10)
	return head + "." + base64.RawURLEncoding.EncodeToString(sessionMAC(hash, head))
}

// FindSession returns the grant of the token that a session stands for.
func (s *Set) FindSession(session string, now time.Time) (*Grant, bool) {
	at := strings.LastIndexByte(session, '.')
	if at < 0 {
		return nil, false
	}
	head, sent := session[:at], session[at+1:]
	mac, err := base64.RawURLEncoding.DecodeString(sent)
	encoded, seconds, two := strings.Cut(head, ".")
	name, nameErr := base64.RawURLEncoding.DecodeString(encoded)
	until, secondsErr := strconv.ParseInt(seconds, 10, 64)
	if err != nil || !two || nameErr != nil || secondsErr != nil || now.Unix() >= until {
		return nil, false
	}
	for hash, g := range s.grants {
		if g.Name == string(name) && hmac.Equal(mac, sessionMAC(hash, head)) {
			return g, true
		}
	}
	return nil, false
}

func sessionMAC(hash [sha256.Size]byte, head string) []byte {
	mac := hmac.New(sha256.New, hash[:])
	mac.Write([]byte("tenantflow session\n" + head))
	return mac.Sum(nil)
}

// Session is Set.Session.
func (f *File) Session(bearer string, until time.Time) string {
	f.look()
	return f.set.Load().Session(bearer, until)
}

// FindSession is Set.FindSession.
func (f *File) FindSession(session string, now time.Time) (*Grant, bool) {
	f.look()
	return f.set.Load().FindSession(session, now)
}
