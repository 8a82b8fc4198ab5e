package chdb

import (
	"bytes"
	"strings"
)

// insert is an INSERT whose rows come as data in some format, taken apart so that the rows
// can be handed over in a file: `INSERT INTO t (a, b)` + ` FROM INFILE '...'` + ` SETTINGS x = 1` + ` FORMAT F`.
type insert struct {
	// target is the text up to and including the list of columns.
	target string
	// settings is the SETTINGS clause, if any, with its keyword.
	settings string
	// format is the name after FORMAT, "Values" for VALUES and "" where neither is written.
	format string
	// data is the offset in the text where the rows begin.
	data int
}

// parseInsert finds out whether text is an INSERT with data. It looks only at the words that decide that
// and leaves everything else, and every error, to the engine.
func parseInsert(text []byte) (insert, bool) {
	lex := lexer{text: text}
	if !lex.next().is("INSERT") {
		return insert{}, false
	}
	t := lex.next()
	if t.is("INTO") {
		t = lex.next()
	}
	if t.is("TABLE") {
		t = lex.next()
	}
	if t.is("FUNCTION") {
		t = lex.next()
	}
	if t.kind == tokenEnd {
		return insert{}, false
	}
	// t is the first part of the target's name, which may be any word, "format" included.
	target := t.end
	settings := -1
	name := true
	for {
		t := lex.next()
		switch {
		case t.kind == tokenEnd:
			in := insert{target: string(text[:target]), data: len(text)}
			if settings >= 0 {
				in.settings = string(text[settings:])
			}
			return in, true
		case name && t.kind == tokenOther && string(t.text) == ".":
			target = lex.next().end
			continue
		case t.depth == 0 && (t.is("SELECT") || t.is("WITH") || t.is("FROM") || t.is("WATCH") || t.is("EXPLAIN")):
			return insert{}, false
		case t.depth == 1 && settings < 0 && (t.is("SELECT") || t.is("WITH")):
			// INSERT INTO t (SELECT ...), or a table function over a query.
			return insert{}, false
		case t.depth == 0 && t.is("SETTINGS") && settings < 0:
			settings = t.begin
		case t.depth == 0 && (t.is("FORMAT") || t.is("VALUES")):
			in := insert{target: string(text[:target])}
			if settings >= 0 {
				in.settings = string(text[settings:t.begin])
			}
			if t.is("VALUES") {
				in.format, in.data = "Values", t.end
				return in, true
			}
			f := lex.next()
			if f.kind != tokenWord {
				return insert{}, false
			}
			in.format, in.data = string(f.text), dataOffset(text, f.end)
			return in, true
		case settings < 0:
			target = t.end
		}
		name = false
	}
}

// dataOffset skips what may stand between the name of the format and the first byte of the data:
// blanks, then at most one line end. More would eat data.
func dataOffset(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '\f') {
		i++
	}
	if i < len(text) && text[i] == '\r' {
		i++
	}
	if i < len(text) && text[i] == '\n' {
		i++
	}
	return i
}

// outputFormat is the name in the FORMAT clause that ends a statement, or "".
func outputFormat(text []byte) string {
	lex := lexer{text: text}
	var before, last token
	format := ""
	for {
		t := lex.next()
		ends := t.kind == tokenEnd || t.is("SETTINGS") || string(t.text) == ";"
		if ends && last.kind == tokenWord && before.is("FORMAT") && before.depth == 0 {
			format = string(last.text)
		}
		if t.kind == tokenEnd {
			return format
		}
		before, last = last, t
	}
}

type tokenKind int

const (
	tokenEnd tokenKind = iota
	tokenWord
	tokenQuoted
	tokenOther
)

// token is a word, a quoted text or a single other byte of a statement.
type token struct {
	kind       tokenKind
	text       []byte
	begin, end int
	// depth counts the brackets around the token.
	depth int
}

func (t token) is(keyword string) bool {
	return t.kind == tokenWord && strings.EqualFold(string(t.text), keyword)
}

// lexer cuts a statement into tokens, over comments and white space. It never fails:
// an unfinished quote or comment reaches to the end of the text.
type lexer struct {
	text  []byte
	pos   int
	depth int
}

func (l *lexer) next() token {
	l.skipBlank()
	begin := l.pos
	if begin >= len(l.text) {
		return token{kind: tokenEnd, begin: begin, end: begin, depth: l.depth}
	}
	t := token{kind: tokenOther, begin: begin, depth: l.depth}
	switch c := l.text[begin]; {
	case c == '\'' || c == '"' || c == '`':
		t.kind = tokenQuoted
		l.skipQuoted(c)
	case c == '$' && l.skipHeredoc():
		t.kind = tokenQuoted
	case isWord(c):
		t.kind = tokenWord
		for l.pos < len(l.text) && isWord(l.text[l.pos]) {
			l.pos++
		}
	default:
		l.pos++
		switch c {
		case '(', '[', '{':
			l.depth++
		case ')', ']', '}':
			l.depth--
			t.depth = l.depth
		}
	}
	t.end = l.pos
	t.text = l.text[t.begin:t.end]
	return t
}

func (l *lexer) skipBlank() {
	for l.pos < len(l.text) {
		rest := l.text[l.pos:]
		switch {
		case rest[0] <= ' ':
			l.pos++
		case bytes.HasPrefix(rest, []byte("--")), bytes.HasPrefix(rest, []byte("#!")), bytes.HasPrefix(rest, []byte("# ")):
			l.skipThrough([]byte("\n"))
		case bytes.HasPrefix(rest, []byte("/*")):
			l.pos += 2
			l.skipThrough([]byte("*/"))
		default:
			return
		}
	}
}

func (l *lexer) skipThrough(mark []byte) {
	if i := bytes.Index(l.text[l.pos:], mark); i >= 0 {
		l.pos += i + len(mark)
		return
	}
	l.pos = len(l.text)
}

// skipQuoted passes a text in quotes: the quote itself may be in it doubled or after a backslash.
func (l *lexer) skipQuoted(quote byte) {
	for l.pos++; l.pos < len(l.text); l.pos++ {
		switch l.text[l.pos] {
		case '\\':
			l.pos++
		case quote:
			if l.pos+1 < len(l.text) && l.text[l.pos+1] == quote {
				l.pos++
				continue
			}
			l.pos++
			return
		}
	}
	l.pos = len(l.text)
}

// skipHeredoc passes $tag$ ... $tag$ and reports whether there was one.
func (l *lexer) skipHeredoc() bool {
	n := bytes.IndexByte(l.text[l.pos+1:], '$')
	if n < 0 {
		return false
	}
	tag := l.text[l.pos : l.pos+n+2]
	for _, c := range tag[1 : len(tag)-1] {
		if !isWord(c) {
			return false
		}
	}
	l.pos += len(tag)
	l.skipThrough(tag)
	return true
}

func isWord(c byte) bool {
	return c == '_' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
