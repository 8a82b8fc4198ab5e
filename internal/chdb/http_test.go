package chdb_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
)

func TestCurlGetsAnAnswer(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/":                           "Ok.\n",
		"/ping":                       "Ok.\n",
		"/?query=SELECT+1":            "1\n",
		"/?query=SELECT+1+FORMAT+CSV": "1\n",
		"/?query=SELECT+timezone()":   "UTC\n",
		"/?query=SELECT+1%3B":         "1\n",
		"/?query=SELECT+{x:String}&param_x=a'b%5C%5Cc": "a\\'b\\\\c\n",
		"/?query=SELECT+{x:UInt8}%2B1&param_x=41":      "42\n",
		"/?query=SELECT+{x:String}=''&param_x=":        "1\n",
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, shared.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if status, _, body := do(t, request); status != http.StatusOK || body != want {
			t.Errorf("GET %s: %d %q, want %q", path, status, body, want)
		}
	}
	if got := post(t, "+ 1", url.Values{"query": {"SELECT 1"}}); got != "2\n" {
		t.Errorf("a query continued in the body answers %q", got)
	}
}

func TestAGetChangesNothing(t *testing.T) {
	t.Parallel()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, shared.url+"/?max_threads=1&query=CREATE+DATABASE+by_get", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, header, body := do(t, request); header.Get("X-ClickHouse-Exception-Code") != "164" {
		t.Errorf("CREATE by GET: %s", body)
	}
}

func TestErrorsCarryClickHousesOwnCodeAndStatus(t *testing.T) {
	t.Parallel()
	name := databaseName(t)
	conn := database(t)
	exec(t, conn, "CREATE TABLE t (a UInt32, CONSTRAINT small CHECK a < 10) ENGINE = MergeTree ORDER BY a")
	for _, c := range []struct {
		query        string
		parameters   url.Values
		status, code int
	}{
		{"SELECT * FROM nope", nil, 404, 60},
		{"INSERT INTO nope FORMAT TSV\n1", nil, 404, 60},
		{"SELECT nope", nil, 404, 47},
		{"SELECT nope()", nil, 404, 46},
		{"SELEC 1", nil, 400, 62},
		{"SELECT 1; SELECT 2", nil, 400, 62},
		{"exit", nil, 400, 62},
		{"-- nothing", nil, 400, 62},
		{"SELECT 1", url.Values{"database": {"nope"}}, 404, 81},
		{"USE nope", nil, 404, 81},
		{"SELECT 1", url.Values{"nosuch": {"1"}}, 404, 115},
		{"SELECT 1", url.Values{"a = 1, max_threads": {"1"}}, 404, 115},
		{"SELECT 1 SETTINGS nosuch = 1", nil, 404, 115},
		{"SELECT 1 FORMAT Nosuch", nil, 404, 73},
		{"SELECT throwIf(1)", nil, 500, 395},
		{"SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_block_size = 1", url.Values{"max_execution_time": {"0.5"}}, 408, 159},
		{"SELECT groupArray(number) FROM numbers(10000000)", url.Values{"max_memory_usage": {"10000000"}}, 500, 241},
		{"SELECT 1, 2, 3, 4, 5, 6", url.Values{"max_ast_elements": {"3"}}, 400, 168},
		{"SELECT '" + strings.Repeat("x", 300_000) + "'", nil, 400, 62},
		{"SELECT {x:UInt32}", nil, 500, 456},
		{"SELECT {x:UInt32}", url.Values{"param_x": {"one"}}, 500, 457},
		{"INSERT INTO t VALUES (1), (10)", nil, 500, 469},
		{"INSERT INTO t FORMAT TSV\nx", nil, 400, 27},
		{"CREATE TABLE t (a UInt8) ENGINE = Memory", nil, 500, 57},
		{"SELECT 1", url.Values{"user": {"nobody"}}, 403, 516},
		{"SELECT 1", url.Values{"session_id": {"s"}}, 501, 48},
	} {
		parameters := url.Values{"database": {name}}
		for k, v := range c.parameters {
			parameters[k] = v
		}
		status, header, body := send(t, c.query, parameters)
		want := fmt.Sprintf("Code: %d. DB::Exception: ", c.code)
		if status != c.status || header.Get("X-ClickHouse-Exception-Code") != fmt.Sprint(c.code) || !strings.HasPrefix(body, want) {
			t.Errorf("%.80s %v: status %d, code %s, want %d and %d: %.300s", c.query, c.parameters, status,
				header.Get("X-ClickHouse-Exception-Code"), c.status, c.code, body)
		}
	}
	wantCode(t, conn.Exec(t.Context(), "INSERT INTO t VALUES (10)"), 469)
	o := options(t)
	o.Auth.Database = "nope"
	other, err := clickhouse.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	wantCode(t, other.Ping(t.Context()), 81)
}

func TestAHugeQueryIsTakenWhenItsSettingsAllowIt(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("SELECT count() FROM numbers(50000) WHERE toString(number) IN (''")
	for i := range 40_000 {
		fmt.Fprintf(&b, ", '%d'", i)
	}
	b.WriteString(")")
	if got := post(t, b.String(), url.Values{"max_query_size": {"10000000"}, "max_ast_elements": {"1000000"}}); got != "40000\n" {
		t.Errorf("got %q", got)
	}
}

func TestNothingOfARequestReachesTheNext(t *testing.T) {
	t.Parallel()
	conn := database(t)
	ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"max_threads": 1, "log_comment": "mine"}))
	var comment string
	if err := conn.QueryRow(ctx, "SELECT getSetting('log_comment')").Scan(&comment); err != nil || comment != "mine" {
		t.Fatalf("log_comment %q, error %v", comment, err)
	}
	exec(t, conn, "SET log_comment = 'set'", "USE system", "CREATE TEMPORARY TABLE leak (a UInt8)")
	for range 2 * 16 {
		if comment := one[string](t, conn, "SELECT getSetting('log_comment')"); comment != "" {
			t.Fatalf("log_comment %q came from another request", comment)
		}
		if name := one[string](t, conn, "SELECT currentDatabase()"); name != databaseName(t) {
			t.Fatalf("the current database is %s", name)
		}
		wantCode(t, conn.Exec(t.Context(), "SELECT * FROM leak"), 60)
	}
}

func TestHeadersTellTheQuery(t *testing.T) {
	t.Parallel()
	status, header, body := send(t, "SELECT getSetting('log_comment')", url.Values{"query_id": {"q-1"}})
	if status != http.StatusOK || body != "q-1\n" || header.Get("X-ClickHouse-Query-Id") != "q-1" || header.Get("X-ClickHouse-Timezone") != "UTC" ||
		header.Get("X-ClickHouse-Format") != "TabSeparated" || header.Get("X-ClickHouse-Server-Display-Name") == "" {
		t.Errorf("%d %q %v", status, body, header)
	}
	if _, _, body = send(t, "SELECT getSetting('log_comment')", url.Values{"query_id": {"q-1"}, "log_comment": {"c"}}); body != "c\n" {
		t.Errorf("log_comment %q, want the request's own", body)
	}
	_, header, _ = send(t, "SELECT count() FROM numbers(1000) WHERE NOT ignore(number)", nil)
	var summary map[string]string
	if err := json.Unmarshal([]byte(header.Get("X-ClickHouse-Summary")), &summary); err != nil || summary["read_rows"] != "1000" || summary["result_rows"] != "1" {
		t.Errorf("summary %s, error %v", header.Get("X-ClickHouse-Summary"), err)
	}
	if header.Get("X-ClickHouse-Query-Id") == "" {
		t.Error("a query without an id got none")
	}
}
