package httpapi

import "sync"

// What requests of /v1 may be under way at once. At two thousand a second, maxInFlight is a quarter of a second of them: beyond that the
// stores hang, and one more waiting request helps no caller.
const (
	maxInFlight = 512
	// maxShare is one token's part of it, so that a noisy one leaves room for the others.
	maxShare = 256
	// reserved is what a token may have under way whatever the others do.
	reserved = 16
)

// shares counts the requests, or the analyses, that are under way, by token.
type shares struct {
	all, each, reserved int

	mu    sync.Mutex
	total int
	of    map[string]int // by the token's name; none is 0
}

func newShares(all, each, reserved int) *shares {
	return &shares{all: all, each: each, reserved: reserved, of: map[string]int{}}
}

// enter reports whether one more of a token may be answered. If so, leave must follow.
func (s *shares) enter(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.of[token]
	if n >= s.reserved && (n >= s.each || s.total >= s.all) {
		return false
	}
	s.of[token] = n + 1
	s.total++
	return true
}

func (s *shares) leave(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.of[token]--; s.of[token] == 0 {
		delete(s.of, token)
	}
}

// count is how many are under way.
func (s *shares) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}
