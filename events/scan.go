package events

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// A scanner reads JSON in place. Its methods take the text and a position in it and give the position behind what
// they have read, or bad. They accept exactly what encoding/json accepts in valid UTF-8, depth limit included, and
// refuse text that is not UTF-8.
type scanner struct {
	// scratch holds strings that had escapes. It only grows while one event is decoded: slices into it stay right.
	scratch []byte
	// arrays has a bit for each open level of a skipped value: 1 for an array, 0 for an object.
	arrays [maxDepth/64 + 1]uint64
}

const (
	// bad is the position behind something that is not JSON.
	bad = -1
	// maxDepth is the nesting encoding/json allows.
	maxDepth = 10_000
)

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}

// plainEnd finds the first byte from i on that is not an ordinary character of a string: a quote, a backslash, a
// control character, anything beyond ASCII, or the end of the text. It looks at eight bytes at a time.
func plainEnd(text []byte, i int) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	for ; i+8 <= len(text); i += 8 {
		// A byte that is zero after the exclusive or, or below 0x20, borrows from its high bit in the subtraction. The
		// borrow may reach bytes behind it, never one before: the first high bit is always right.
		x := binary.LittleEndian.Uint64(text[i:])
		quote, backslash := x^('"'*ones), x^('\\'*ones)
		special := ((quote - ones) &^ quote) | ((backslash - ones) &^ backslash) | ((x - 0x20*ones) &^ x) | x
		if special &= highs; special != 0 {
			return i + bits.TrailingZeros64(special)>>3
		}
	}
	for ; i < len(text); i++ {
		if c := text[i]; c < 0x20 || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

// str reads the string whose opening quote is before i. The result points into the text, or into scratch if there
// were escapes.
func (s *scanner) str(text []byte, i int) (value []byte, next int) {
	end := plainEnd(text, i)
	if end < len(text) && text[end] == '"' {
		return text[i:end], end + 1
	}
	return s.oddString(text, i, end)
}

// oddString reads a string with escapes or with characters beyond ASCII; everything from i up to at is ordinary.
func (s *scanner) oddString(text []byte, i, at int) (value []byte, next int) {
	start, copied := len(s.scratch), i // text[i:copied] is in scratch from start on
	for at < len(text) {
		switch c := text[at]; {
		case c == '"':
			if copied == i {
				return text[i:at], at + 1
			}
			s.scratch = append(s.scratch, text[copied:at]...)
			return s.scratch[start:], at + 1
		case c == '\\':
			s.scratch = append(s.scratch, text[copied:at]...)
			r, behind := unescape(text, at)
			if behind == bad {
				return nil, bad
			}
			s.scratch = utf8.AppendRune(s.scratch, r)
			at, copied = behind, behind
		case c < 0x20:
			return nil, bad
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRune(text[at:])
			if r == utf8.RuneError && size == 1 {
				return nil, bad
			}
			at += size
		default:
			at = plainEnd(text, at)
		}
	}
	return nil, bad
}

// unescape reads the escape sequence at i. Half of a surrogate pair becomes U+FFFD, as in encoding/json.
func unescape(text []byte, i int) (r rune, next int) {
	if i+1 >= len(text) {
		return 0, bad
	}
	switch c := text[i+1]; c {
	case '"', '\\', '/':
		return rune(c), i + 2
	case 'b':
		return '\b', i + 2
	case 'f':
		return '\f', i + 2
	case 'n':
		return '\n', i + 2
	case 'r':
		return '\r', i + 2
	case 't':
		return '\t', i + 2
	case 'u':
		r, next = hex4(text, i+2)
		if next == bad || !utf16.IsSurrogate(r) {
			return r, next
		}
		if next+1 < len(text) && text[next] == '\\' && text[next+1] == 'u' {
			if low, behind := hex4(text, next+2); behind != bad {
				if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
					return pair, behind
				}
			}
		}
		return utf8.RuneError, next
	}
	return 0, bad
}

func hex4(text []byte, i int) (r rune, next int) {
	if i+4 > len(text) {
		return 0, bad
	}
	for _, c := range text[i : i+4] {
		switch {
		case c-'0' <= 9:
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, bad
		}
	}
	return r, i + 4
}

// numberEnd checks the grammar of the number at i.
func numberEnd(text []byte, i int) int {
	if i < len(text) && text[i] == '-' {
		i++
	}
	start := i
	if i = digitsEnd(text, i); i == start || i > start+1 && text[start] == '0' {
		return bad
	}
	if i < len(text) && text[i] == '.' {
		start = i + 1
		if i = digitsEnd(text, start); i == start {
			return bad
		}
	}
	if i < len(text) && text[i]|0x20 == 'e' {
		i++
		if i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		start = i
		if i = digitsEnd(text, start); i == start {
			return bad
		}
	}
	return i
}

func digitsEnd(text []byte, i int) int {
	for i < len(text) && text[i]-'0' <= 9 {
		i++
	}
	return i
}

// scalarEnd checks the value at i, which is no object and no array.
func (s *scanner) scalarEnd(text []byte, i int) int {
	switch text[i] {
	case '"':
		mark := len(s.scratch)
		_, i = s.str(text, i+1)
		s.scratch = s.scratch[:mark]
		return i
	case 't':
		return literalEnd(text, i, "true")
	case 'f':
		return literalEnd(text, i, "false")
	case 'n':
		return literalEnd(text, i, "null")
	}
	return numberEnd(text, i)
}

func literalEnd(text []byte, i int, literal string) int {
	if end := i + len(literal); end <= len(text) && string(text[i:end]) == literal {
		return end
	}
	return bad
}

// name reads a member's name and the colon behind it, from white space before the name to the first byte of the value.
func (s *scanner) name(text []byte, i int) (name []byte, next int) {
	i = skipSpace(text, i)
	if i >= len(text) || text[i] != '"' {
		return nil, bad
	}
	name, i = s.str(text, i+1)
	if i == bad {
		return nil, bad
	}
	i = skipSpace(text, i)
	if i >= len(text) || text[i] != ':' {
		return nil, bad
	}
	if i = skipSpace(text, i+1); i == len(text) {
		return nil, bad
	}
	return name, i
}

// skip checks the value at i, whatever it is, and goes behind it. Depth is the number of objects and arrays around it.
func (s *scanner) skip(text []byte, i, depth int) int {
	outside := depth
	for {
		if i = skipSpace(text, i); i >= len(text) {
			return bad
		}
		if c := text[i]; c == '{' || c == '[' {
			if depth++; depth > maxDepth {
				return bad
			}
			s.open(depth, c == '[')
			if i = skipSpace(text, i+1); i >= len(text) {
				return bad
			}
			if text[i] != c+2 { // the closing bracket is two behind the opening one
				if c == '{' {
					i = s.skipName(text, i)
				}
				if i == bad {
					return bad
				}
				continue
			}
			depth--
			i++
		} else if i = s.scalarEnd(text, i); i == bad {
			return bad
		}

		// A value has ended: close what ends with it.
		for {
			if depth == outside {
				return i
			}
			if i = skipSpace(text, i); i >= len(text) {
				return bad
			}
			array := s.inArray(depth)
			if text[i] == ',' {
				if i++; !array {
					i = s.skipName(text, i)
				}
				if i == bad {
					return bad
				}
				break
			}
			if array && text[i] != ']' || !array && text[i] != '}' {
				return bad
			}
			depth--
			i++
		}
	}
}

func (s *scanner) skipName(text []byte, i int) int {
	mark := len(s.scratch)
	_, i = s.name(text, i)
	s.scratch = s.scratch[:mark]
	return i
}

func (s *scanner) open(depth int, array bool) {
	word, bit := depth/64, uint64(1)<<(depth%64)
	if array {
		s.arrays[word] |= bit
	} else {
		s.arrays[word] &^= bit
	}
}

func (s *scanner) inArray(depth int) bool { return s.arrays[depth/64]>>(depth%64)&1 == 1 }
