package chdb_test

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
)

func TestAQueryIsJoinedWithItsExternalTables(t *testing.T) {
	t.Parallel()
	conn := database(t)
	exec(t, conn, "CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a",
		"INSERT INTO t SELECT number, concat('row ', toString(number)) FROM numbers(100000)")
	const keys = 40_000
	table, err := ext.NewTable("keys", ext.Column("a", "UInt64"), ext.Column("s", "LowCardinality(String)"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		if err := table.Append(uint64(2*i), fmt.Sprint("row ", 2*i)); err != nil {
			t.Fatal(err)
		}
	}
	more, err := ext.NewTable("more", ext.Column("x", "UInt8"))
	if err != nil {
		t.Fatal(err)
	}
	if err := more.Append(uint8(7)); err != nil {
		t.Fatal(err)
	}
	ctx := clickhouse.Context(t.Context(), clickhouse.WithExternalTable(table, more),
		clickhouse.WithSettings(clickhouse.Settings{"max_execution_time": 10}), clickhouse.WithParameters(clickhouse.Parameters{"low": "10"}))
	var n uint64
	var x uint8
	query := "SELECT count(), any((SELECT x FROM more)) FROM t WHERE (a, s) IN (SELECT a, s FROM keys) AND a >= {low:UInt64}"
	if err := conn.QueryRow(ctx, query).Scan(&n, &x); err != nil || n != keys-5 || x != 7 {
		t.Fatalf("%d rows, x %d, error %v", n, x, err)
	}
	// It was there for that query only.
	wantCode(t, conn.Exec(t.Context(), "SELECT count() FROM keys"), 60)
}

func TestExternalDataIsReadAsTheFormSaysIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		parameters, fields url.Values
		data, want         string
	}{
		"structure": {url.Values{"e_structure": {"a UInt8, s String"}, "query": {"SELECT s, a FROM e"}}, nil, "1\tx\n2\ty\n", "x\t1\ny\t2\n"},
		"types":     {url.Values{"e_types": {"UInt8, Decimal(10, 2)"}}, url.Values{"query": {"SELECT _2 FROM e"}}, "1\t2.5\n", "2.5\n"},
		"format":    {nil, url.Values{"e_format": {"CSV"}, "e_structure": {"a UInt8"}, "query": {"SELECT sum(a) FROM e"}}, "1\n2\n", "3\n"},
		"nothing":   {nil, url.Values{"e_structure": {"a UInt8"}, "query": {"SELECT count() FROM e"}}, "", "0\n"},
	} {
		status, body := form(t, c.parameters, c.fields, c.data)
		if status != http.StatusOK || body != c.want {
			t.Errorf("%s: %d %q, want %q", name, status, body, c.want)
		}
	}
	if status, body := form(t, nil, url.Values{"query": {"SELECT * FROM e"}}, "1"); status != http.StatusBadRequest {
		t.Errorf("without structure: %d %s", status, body)
	}
	if status, body := form(t, nil, url.Values{"query": {"SELECT * FROM e"}, "e_structure": {"a UInt8"}}, "x\n"); status != http.StatusBadRequest {
		t.Errorf("with bad data: %d %s", status, body)
	}
}

// form sends a query with an external table named e.
func form(t *testing.T, parameters, fields url.Values, data string) (int, string) {
	t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for name := range fields {
		if err := w.WriteField(name, fields.Get(name)); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile("e", "e.tsv")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, shared.url+"/?"+parameters.Encode(), &body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", w.FormDataContentType())
	status, _, answer := do(t, request)
	return status, answer
}
