package fetch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A stream gives the bytes of a batch in order. Of a batch that is not compressed, all are at hand; of another, they are
// decompressed into a buffer, a piece at a time. What it gives is valid until it is asked for more.
type stream struct {
	b    []byte    // at hand, and not taken yet
	src  io.Reader // what follows; nil: nothing
	room **buffer  // the buffer that b is a part of, if there is a src
	err  error     // why src has ended
}

// piece is how much is decompressed at a time: little enough for the processor's cache.
const piece = 256 << 10

// take returns the next n bytes.
func (s *stream) take(n int) ([]byte, bool) {
	if n > len(s.b) && !s.fill(n) {
		return nil, false
	}
	v := s.b[:n:n]
	s.b = s.b[n:]
	return v, true
}

// fill makes sure that n bytes are at hand.
func (s *stream) fill(n int) bool {
	if s.src == nil || s.err != nil {
		return false
	}
	full := (*s.room).bytes
	full = full[:cap(full)]
	if len(full) < n {
		larger := takeBuffer(n)
		copy(larger.bytes, s.b)
		s.b = larger.bytes[:len(s.b)]
		(*s.room).release()
		*s.room = larger
		full = larger.bytes[:cap(larger.bytes)]
	}
	have := copy(full, s.b)
	more, err := io.ReadAtLeast(s.src, full[have:max(n, min(piece, len(full)))], n-have)
	s.b = full[:have+more]
	if err != nil {
		s.err = err
	}
	return have+more >= n
}

// varint reads a zigzag varint.
func (s *stream) varint() (int64, bool) {
	v, n := binary.Varint(s.b)
	for n == 0 && s.fill(len(s.b)+1) { // it goes on in the next piece
		v, n = binary.Varint(s.b)
	}
	if n <= 0 {
		return 0, false
	}
	s.b = s.b[n:]
	return v, true
}

// failed says why there is not what was asked for.
func (s *stream) failed() error {
	if s.err == nil || errors.Is(s.err, io.EOF) || errors.Is(s.err, io.ErrUnexpectedEOF) {
		return errShort
	}
	return fmt.Errorf("decompress it: %w", s.err)
}
