package chdb

import (
	"bytes"
	"testing"
	"unicode/utf8"
)

func TestAnInsertWithDataIsTakenApart(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ target, settings, format, data string }{
		"INSERT INTO t VALUES (1)":                                      {"INSERT INTO t", "", "Values", " (1)"},
		"insert into t values(1);":                                      {"insert into t", "", "Values", "(1);"},
		"INSERT INTO t (a, b) FORMAT Native\n\x01\x02":                  {"INSERT INTO t (a, b)", "", "Native", "\x01\x02"},
		"INSERT INTO t FORMAT CSV\n\n1":                                 {"INSERT INTO t", "", "CSV", "\n1"},
		"INSERT INTO t FORMAT CSV \t1":                                  {"INSERT INTO t", "", "CSV", "1"},
		"INSERT INTO t FORMAT CSV\r\n1":                                 {"INSERT INTO t", "", "CSV", "1"},
		"INSERT INTO db.t(a) FORMAT TSV":                                {"INSERT INTO db.t(a)", "", "TSV", ""},
		"INSERT INTO `d``b` . \"t\" FORMAT TSV":                         {"INSERT INTO `d``b` . \"t\"", "", "TSV", ""},
		"INSERT INTO format FORMAT TSV":                                 {"INSERT INTO format", "", "TSV", ""},
		"INSERT INTO t (format, values, `select`) FORMAT TSV\nx":        {"INSERT INTO t (format, values, `select`)", "", "TSV", "x"},
		"INSERT INTO TABLE FUNCTION file('FORMAT CSV') VALUES 1":        {"INSERT INTO TABLE FUNCTION file('FORMAT CSV')", "", "Values", " 1"},
		"INSERT t VALUES (1)":                                           {"INSERT t", "", "Values", " (1)"},
		"INSERT INTO t":                                                 {"INSERT INTO t", "", "", ""},
		"INSERT INTO t (a) SETTINGS x = 1, y = 'FORMAT' FORMAT TSV\n1":  {"INSERT INTO t (a)", "SETTINGS x = 1, y = 'FORMAT' ", "TSV", "1"},
		"/* FORMAT */ INSERT -- VALUES\nINTO t # VALUES\nFORMAT TSV\n1": {"/* FORMAT */ INSERT -- VALUES\nINTO t", "", "TSV", "1"},
		"INSERT INTO t (* EXCEPT(a)) FORMAT JSONEachRow {\"a\": \"(\"}": {"INSERT INTO t (* EXCEPT(a))", "", "JSONEachRow", "{\"a\": \"(\"}"},
	} {
		in, ok := parseInsert([]byte(text))
		if !ok {
			t.Errorf("%q is not taken for an insert with data", text)
			continue
		}
		if got := text[in.data:]; in.target != want.target || in.settings != want.settings || in.format != want.format || got != want.data {
			t.Errorf("%q is cut into %q, %q, %q, %q", text, in.target, in.settings, in.format, got)
		}
	}
	for _, text := range []string{
		"", "INSERT", "INSERT INTO", "SELECT 1", "INSERT INTO t SELECT 1", "INSERT INTO t (a) WITH x AS (SELECT 1) SELECT * FROM x",
		"INSERT INTO t (SELECT 1)", "INSERT INTO t SETTINGS a = 1 SELECT 1", "INSERT INTO t FROM INFILE 'x' FORMAT CSV",
		"WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", "INSERT INTO t FORMAT", "EXPLAIN INSERT INTO t VALUES (1)", "'INSERT INTO t VALUES'",
	} {
		if in, ok := parseInsert([]byte(text)); ok {
			t.Errorf("%q is taken for an insert with data: %+v", text, in)
		}
	}
}

func TestTheFormatOfAnAnswerIsTheLastClauseOfTheStatement(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"SELECT 1":                                       "",
		"SELECT 1 FORMAT JSON":                           "JSON",
		"SELECT 1 format json;":                          "json",
		"SELECT 1 FORMAT JSON SETTINGS a = 1":            "JSON",
		"SELECT 1 SETTINGS a = 1 FORMAT JSON":            "JSON",
		"SELECT 1 FORMAT JSON -- FORMAT CSV":             "JSON",
		"SELECT 'FORMAT CSV'":                            "",
		"SELECT format FROM t":                           "",
		"SELECT a format FROM t":                         "",
		"SELECT * FROM (SELECT 1 FORMAT CSV)":            "",
		"SELECT $x$ FORMAT CSV $x$":                      "",
		"SELECT 'it''s \\' FORMAT CSV' /* FORMAT TSV */": "",
		"SELECT format('{}', 1) FORMAT Vertical":         "Vertical",
	} {
		if got := outputFormat([]byte(text)); got != want {
			t.Errorf("%q has the format %q, want %q", text, got, want)
		}
	}
}

// Whatever the text is, the pieces must be pieces of it, in order, and the search must end.
func FuzzAStatementIsCutInsideItsText(f *testing.F) {
	for _, text := range []string{"INSERT INTO t (a) SETTINGS x = 1 FORMAT CSV\n1", "INSERT INTO `t", "SELECT $a$ x $a$ FORMAT JSON", "/* -- '", "INSERT INTO t))) VALUES ((("} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		in, ok := parseInsert(text)
		if ok && (in.data < len(in.target) || in.data > len(text) || !bytes.HasPrefix(text, []byte(in.target)) || !bytes.Contains(text, []byte(in.settings))) {
			t.Fatalf("%q is cut into %+v", text, in)
		}
		if format := outputFormat(text); !bytes.Contains(text, []byte(format)) {
			t.Fatalf("%q has the format %q", text, format)
		}
		for _, part := range splitTypes(string(text)) {
			if !utf8.ValidString(part) && utf8.Valid(text) {
				t.Fatalf("%q is split inside a character: %q", text, part)
			}
		}
	})
}

func TestErrorsOfTheEngineAreReadWithTheirCode(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Exception{
		"Code: 60. DB::Exception: Unknown table 'x'. (UNKNOWN_TABLE)":                                                 {60, "Unknown table 'x'. (UNKNOWN_TABLE)"},
		"Code: 27. DB::Exception: Code: 27. DB::Exception: Bad (row 1)\nline (CANNOT) (version 26.7.2.1). (CANNOT)\n": {27, "Bad (row 1)\nline (CANNOT)"},
		"Code: 27. DB::Exception: Code: 60. DB::Exception: other (A) (version 26.7.2.1). (B)":                         {27, "Code: 60. DB::Exception: other (A) (version 26.7.2.1). (B)"},
		"something else":    {1002, "something else"},
		"Code: x. Whatever": {1002, "Code: x. Whatever"},
	} {
		if got := parseException(text); *got != want {
			t.Errorf("%q is read as %+v", text, *got)
		}
	}
}
