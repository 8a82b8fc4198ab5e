package logs

import "strings"

// Alike returns a text in which numbers are masked, so that two errors that differ only in an offset, a partition or the port of
// their own end are the same trouble. Numbers that touch a dot or a colon stay: they are addresses, and which server is away
// matters.
func Alike(text string) string {
	i := strings.IndexAny(text, "0123456789")
	if i < 0 {
		return text
	}
	var b strings.Builder
	b.Grow(len(text))
	b.WriteString(text[:i])
	for i < len(text) {
		if !digit(text[i]) {
			b.WriteByte(text[i])
			i++
			continue
		}
		end := i
		for end < len(text) && digit(text[end]) {
			end++
		}
		if addressed(text, i, end) {
			b.WriteString(text[i:end])
		} else {
			b.WriteByte('#')
		}
		i = end
	}
	return b.String()
}

// addressed reports whether text[from:to] is a part of an address, but for the port of a connection's own end.
func addressed(text string, from, to int) bool {
	before, after := byte(' '), byte(' ')
	if from > 0 {
		before = text[from-1]
	}
	if to < len(text) {
		after = text[to]
	}
	if before == ':' && strings.HasPrefix(text[to:], "->") {
		return false
	}
	next := to+1 < len(text) && digit(text[to+1])
	return before == '.' || before == ':' || (after == '.' || after == ':') && next
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
