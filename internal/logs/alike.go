package logs

import "strings"

// Alike returns a text in which numbers and times are masked, so that two errors that differ only in an offset, a partition, a duration or
// the port of their own end are the same trouble. Addresses stay: which server is away matters.
func Alike(text string) string {
	i := strings.IndexFunc(text, func(r rune) bool { return '0' <= r && r <= '9' })
	if i < 0 {
		return text
	}
	var b strings.Builder
	b.Grow(len(text))
	b.WriteString(text[:i])
	for i < len(text) {
		if text[i] < '0' || text[i] > '9' {
			b.WriteByte(text[i])
			i++
			continue
		}
		end := i + 1
		for end < len(text) && strings.IndexByte("0123456789.:", text[end]) >= 0 {
			end++
		}
		for text[end-1] == '.' || text[end-1] == ':' {
			end--
		}
		b.WriteString(mask(text, i, end))
		i = end
	}
	return b.String()
}

// mask returns what stands for text[from:to], which consists of digits, dots and colons.
func mask(text string, from, to int) string {
	number := text[from:to]
	own := strings.HasPrefix(text[to:], "->") // the other end of a connection follows
	switch host, _, port := strings.Cut(number, ":"); {
	case strings.Count(host, ".") == 3 && port && own:
		return host + ":#"
	case strings.Count(host, ".") == 3:
		return number
	case from > 0 && text[from-1] == ':' && !own:
		return number // the port of a name
	}
	return "#"
}
