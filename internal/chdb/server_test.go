package chdb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/chdb"
	"tenantflow/internal/engine/enginetest"
)

// childVariable makes the test binary a ClickHouse process on the directory it names (see restart_test.go).
const childVariable = "TENANTFLOW_TEST_CLICKHOUSE_DIR"

// One engine per process: the tests share it, each in a database of its own.
var shared struct {
	url, scratch string
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		os.Exit(runChild(dir))
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "clickhouse-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	engine, err := chdb.Open(chdb.Options{Library: libraryPath(), Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, "open ClickHouse (is it installed? try: make stack):", err)
		return 1
	}
	if shared.scratch, err = os.MkdirTemp("/dev/shm", "clickhouse-test-"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(shared.scratch)
	server, err := chdb.NewServer(engine, shared.scratch, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	web := httptest.NewServer(server)
	shared.url = web.URL
	code := m.Run()
	web.Close()
	ctx, cancel := context.WithTimeout(context.Background(), enginetest.Patience)
	defer cancel()
	if err := server.Close(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "close ClickHouse:", err)
		return 1
	}
	engine.Close()
	return code
}

// libraryPath is where `localstack install` puts the engine, or what TENANTFLOW_CHDB_LIB says.
func libraryPath() string {
	if path := os.Getenv("TENANTFLOW_CHDB_LIB"); path != "" {
		return path
	}
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "..")
	return filepath.Join(root, ".local", "chdb", "node_modules", "@chdb", "lib-linux-x64-gnu", "libchdb.so")
}

// database makes a database for one test and opens it with clickhouse-go.
func database(t *testing.T, change ...func(*clickhouse.Options)) clickhouse.Conn {
	t.Helper()
	conn, err := clickhouse.Open(options(t, change...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func options(t *testing.T, change ...func(*clickhouse.Options)) *clickhouse.Options {
	t.Helper()
	name := databaseName(t)
	post(t, "CREATE DATABASE IF NOT EXISTS "+name, nil)
	o, err := clickhouse.ParseDSN(strings.Replace(shared.url, "http://", "http://default@", 1) + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(o)
	}
	return o
}

var names sync.Map

// databaseName is the test's own database name.
func databaseName(t *testing.T) string {
	name, _ := names.LoadOrStore(t.Name(), fmt.Sprintf("test_%d", time.Now().UnixNano()))
	return name.(string)
}

// post runs a query as curl would and wants success.
func post(t *testing.T, query string, parameters url.Values) string {
	t.Helper()
	status, header, body := send(t, query, parameters)
	if status != http.StatusOK {
		t.Fatalf("%.300s: status %d, code %s: %s", query, status, header.Get("X-ClickHouse-Exception-Code"), body)
	}
	return body
}

func send(t *testing.T, query string, parameters url.Values) (int, http.Header, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, shared.url+"/?"+parameters.Encode(), strings.NewReader(query))
	if err != nil {
		t.Fatal(err)
	}
	return do(t, request)
}

func do(t *testing.T, request *http.Request) (int, http.Header, string) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(body)
}

// wantCode checks that an error carries ClickHouse's code.
func wantCode(t *testing.T, err error, code int32) {
	t.Helper()
	var e *clickhouse.Exception
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got error %v, want a clickhouse.Exception with code %d", err, code)
	}
}

func exec(t *testing.T, conn clickhouse.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%.200s: %v", s, err)
		}
	}
}

func one[T any](t *testing.T, conn clickhouse.Conn, query string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%.200s: %v", query, err)
	}
	return v
}

func TestABatchOfClickHouseGoComesBackFromASelect(t *testing.T) {
	t.Parallel()
	conn := database(t)
	exec(t, conn, "CREATE TABLE t (a UInt32, s String) ENGINE = MergeTree ORDER BY a")
	batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO t (a, s)")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if err := batch.Append(uint32(i), fmt.Sprint("row ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
	if n := one[uint64](t, conn, "SELECT count() FROM t WHERE s = concat('row ', toString(a))"); n != 1000 {
		t.Fatalf("%d rows came back, want 1000", n)
	}
	if n := one[uint64](t, conn, "SELECT count() FROM system.parts WHERE database = currentDatabase() AND active"); n != 1 {
		t.Fatalf("one block became %d parts", n)
	}
	wantCode(t, conn.Exec(t.Context(), "SELECT * FROM nope"), 60)
}

func TestDatabaseSQLRunsStatementsAndQueries(t *testing.T) {
	t.Parallel()
	db := clickhouse.OpenDB(options(t))
	defer db.Close()
	for _, s := range []string{"CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a", "INSERT INTO t VALUES (1), (2)"} {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	var sum uint64
	if err := db.QueryRowContext(t.Context(), "SELECT sum(a) FROM t WHERE a < ?", 10).Scan(&sum); err != nil || sum != 3 {
		t.Fatalf("sum %d, error %v", sum, err)
	}
	if err := db.QueryRowContext(t.Context(), "SELECT a FROM t WHERE a > 10").Scan(&sum); !errors.Is(err, sql.ErrNoRows) {
		t.Fatalf("got %v, want no rows", err)
	}
}

func dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(shared.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, yes func() bool) {
	t.Helper()
	enginetest.Await(t, "what is expected", yes)
}

// slowly are settings under which sleepEachRow may sleep for as long as a test wants: long enough for the test to look at what goes on
// meanwhile, on a busy machine as well.
func slowly(settings clickhouse.Settings) clickhouse.Settings {
	settings["function_sleep_max_microseconds_per_block"] = 0
	return settings
}
