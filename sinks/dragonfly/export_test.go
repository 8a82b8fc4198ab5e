package dragonfly

import "time"

// SetClock has reservations go by another clock than the server's.
func (s *Store) SetClock(now func() time.Time) {
	s.now = now
	s.clock = func() any { return now().UnixMilli() }
}

// SetGuess has the process think that it is another time. The server's clock decides.
func (s *Store) SetGuess(now func() time.Time) { s.now = now }
