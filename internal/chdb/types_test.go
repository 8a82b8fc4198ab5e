package chdb_test

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/shopspring/decimal"
)

func TestEveryColumnTypeComesBackAsItWasInserted(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 2, 28, 23, 59, 59, 987_000_000, time.UTC)
	second := at.Truncate(time.Second)
	text := "zero\x00 quote' back\\slash ünïcode \xff\n\t"
	for _, c := range []struct {
		kind  string
		value any
	}{
		{"String", text},
		{"String", ""},
		{"LowCardinality(String)", text},
		{"LowCardinality(Nullable(String))", (*string)(nil)},
		{"FixedString(4)", "abcd"},
		{"DateTime64(3, 'UTC')", at},
		{"DateTime('UTC')", second},
		{"DateTime", second},
		{"Date", time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC)},
		{"Nullable(DateTime64(3, 'UTC'))", &at},
		{"UInt8", uint8(255)},
		{"UInt16", uint16(65535)},
		{"UInt32", uint32(4294967295)},
		{"UInt64", uint64(18446744073709551615)},
		{"Int64", int64(-9223372036854775808)},
		{"Float64", 0.1},
		{"Bool", true},
		{"Decimal(18, 3)", decimal.RequireFromString("-999999999999999.999")},
		{"Decimal(18, 6)", decimal.RequireFromString("999999999999.999999")},
		{"Decimal(38, 6)", decimal.RequireFromString("-99999999999999999999999999999999.000001")},
		{"Nullable(String)", &text},
		{"Nullable(UInt32)", (*uint32)(nil)},
		{"Array(String)", []string{"", text, "b"}},
		{"Array(String)", []string{}},
		{"Array(LowCardinality(String))", []string{"a", "a", "b"}},
		{"Array(Nullable(UInt32))", []*uint32{nil}},
		{"Map(String, UInt64)", map[string]uint64{"a": 1}},
		{"UUID", "7f1d1c1e-7c0a-4b7e-9a53-2f6f0c0d7a11"},
		{"Enum8('a' = 1, 'b' = 2)", "b"},
		{"SimpleAggregateFunction(sum, Int64)", int64(-5)},
		{"SimpleAggregateFunction(sum, Decimal(38, 6))", decimal.RequireFromString("1.5")},
		{"SimpleAggregateFunction(max, DateTime64(3, 'UTC'))", at},
	} {
		t.Run(fmt.Sprintf("%s %v", c.kind, reflect.TypeOf(c.value)), func(t *testing.T) {
			t.Parallel()
			conn := database(t)
			exec(t, conn, "CREATE TABLE t (v "+c.kind+") ENGINE = MergeTree ORDER BY tuple()")
			batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO t")
			if err != nil {
				t.Fatal(err)
			}
			const rows = 3
			for range rows {
				if err := batch.Append(c.value); err != nil {
					t.Fatal(err)
				}
			}
			if err := batch.Send(); err != nil {
				t.Fatal(err)
			}
			found, err := conn.Query(t.Context(), "SELECT v FROM t")
			if err != nil {
				t.Fatal(err)
			}
			defer found.Close()
			n := 0
			for ; found.Next(); n++ {
				got := reflect.New(reflect.TypeOf(c.value))
				if err := found.Scan(got.Interface()); err != nil {
					t.Fatal(err)
				}
				if !same(got.Elem().Interface(), c.value) {
					t.Fatalf("got %#v, want %#v", got.Elem().Interface(), c.value)
				}
			}
			if err := found.Err(); err != nil || n != rows {
				t.Fatalf("%d rows, error %v", n, err)
			}
		})
	}
}

func same(a, b any) bool {
	switch a := a.(type) {
	case time.Time:
		return a.Equal(b.(time.Time))
	case *time.Time:
		return a.Equal(*b.(*time.Time))
	case decimal.Decimal:
		return a.Equal(b.(decimal.Decimal))
	}
	return reflect.DeepEqual(a, b)
}

func TestALargeResultArrivesInSeveralBlocks(t *testing.T) {
	t.Parallel()
	for name, compression := range map[string]*clickhouse.Compression{
		"plain": nil,
		"lz4":   {Method: clickhouse.CompressionLZ4},
		"zstd":  {Method: clickhouse.CompressionZSTD, Level: 1},
		"gzip":  {Method: clickhouse.CompressionGZIP, Level: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := database(t, func(o *clickhouse.Options) { o.Compression = compression })
			rows, err := conn.Query(t.Context(), "SELECT number, toString(number), toLowCardinality(toString(number % 7)) FROM numbers(300000) ORDER BY number")
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			var n, number uint64
			var text, low string
			for ; rows.Next(); n++ {
				if err := rows.Scan(&number, &text, &low); err != nil {
					t.Fatal(err)
				}
				if number != n || text != fmt.Sprint(n) || low != fmt.Sprint(n%7) {
					t.Fatalf("row %d is %d, %q, %q", n, number, text, low)
				}
			}
			if err := rows.Err(); err != nil || n != 300_000 {
				t.Fatalf("%d rows, error %v", n, err)
			}
			// A compressed insert, and the error of a compressed query.
			exec(t, conn, "CREATE TABLE IF NOT EXISTS t (a UInt64) ENGINE = MergeTree ORDER BY a")
			batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO t")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 200_000 {
				if err := batch.Append(uint64(i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := batch.Send(); err != nil {
				t.Fatal(err)
			}
			if n := one[uint64](t, conn, "SELECT uniqExact(a) FROM t"); n != 200_000 {
				t.Fatalf("%d rows landed", n)
			}
			_, err = conn.Query(t.Context(), "SELECT nope FROM t")
			wantCode(t, err, 47)
		})
	}
}

func TestAnEmptyResultHasNoRowsAndNoError(t *testing.T) {
	t.Parallel()
	conn := database(t)
	exec(t, conn, "CREATE TABLE t (a UInt32, s LowCardinality(String)) ENGINE = MergeTree ORDER BY a")
	for _, query := range []string{"SELECT a, s FROM t", "SELECT number FROM numbers(100000) WHERE number > 200000", "SELECT a FROM t LIMIT 0"} {
		rows, err := conn.Query(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		if rows.Next() {
			t.Errorf("%s: a row", query)
		}
		if err := rows.Err(); err != nil {
			t.Errorf("%s: %v", query, err)
		}
	}
	// count() of nothing is a row all the same.
	if n := one[uint64](t, conn, "SELECT count() FROM t"); n != 0 {
		t.Errorf("count() is %d", n)
	}
}

func TestOtherFormatsPassThroughUnchanged(t *testing.T) {
	t.Parallel()
	conn := database(t)
	for format, want := range map[string]string{
		"TabSeparated": "0\ta\n1\ta\n",
		"CSV":          "0,\"a\"\n1,\"a\"\n",
		"JSONEachRow":  "{\"n\":0,\"s\":\"a\"}\n{\"n\":1,\"s\":\"a\"}\n",
	} {
		query := "SELECT toUInt8(number) AS n, 'a' AS s FROM numbers(2)"
		if got := post(t, query, url.Values{"default_format": {format}}); got != want {
			t.Errorf("default_format=%s answers %q", format, got)
		}
		if got := post(t, query+" FORMAT "+format, url.Values{"client_protocol_version": {"54460"}}); got != want {
			t.Errorf("FORMAT %s answers %q", format, got)
		}
		stream, err := conn.QueryFormat(t.Context(), format, query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(stream)
		if err != nil || string(got) != want {
			t.Errorf("QueryFormat %s reads %q, error %v", format, got, err)
		}
		stream.Close()
	}
	if body := post(t, "SELECT 1 AS x FORMAT JSON", nil); !strings.Contains(body, `"rows": 1`) {
		t.Errorf("FORMAT JSON answers %s", body)
	}
}

func TestRowsOfAnInsertInEveryTextFormatArrive(t *testing.T) {
	t.Parallel()
	conn := database(t)
	exec(t, conn, "CREATE TABLE t (a UInt32, s String) ENGINE = MergeTree ORDER BY a")
	in := url.Values{"database": {databaseName(t)}}
	post(t, "INSERT INTO t VALUES (1, 'one; two'), (2, concat('a', 'b'));", in)
	post(t, "INSERT INTO t (a, s) FORMAT JSONEachRow\n{\"a\":3,\"s\":\"three\"}\n{\"a\":4,\"s\":\"FORMAT CSV\"}", in)
	post(t, "-- a comment with FORMAT in it\ninsert into t(s, a) SETTINGS max_threads = 1 format TSV\nfive\t5\n", in)
	post(t, "6,six\n7,seven\n", url.Values{"database": in["database"], "query": {"INSERT INTO t FORMAT CSV"}})
	post(t, "(8, 'eight')", url.Values{"database": in["database"], "query": {"INSERT INTO t VALUES"}})
	post(t, "9\tnine\n", url.Values{"database": in["database"], "query": {"INSERT INTO `t` FORMAT TSV SETTINGS max_threads = 1"}})
	post(t, "INSERT INTO t SELECT 10, 'ten'", in)
	post(t, "INSERT INTO t VALUES ({x:UInt32}, 'eleven')", url.Values{"database": in["database"], "param_x": {"11"}})
	if err := conn.InsertFormat(context.Background(), "TabSeparated", "INSERT INTO t (a, s)", strings.NewReader("12\ttwelve\n")); err != nil {
		t.Error(err)
	}
	want := "1\tone; two\n2\tab\n3\tthree\n4\tFORMAT CSV\n5\tfive\n6\tsix\n7\tseven\n8\teight\n9\tnine\n10\tten\n11\televen\n12\ttwelve\n"
	if got := post(t, "SELECT a, s FROM t ORDER BY a", in); got != want {
		t.Errorf("the table holds\n%s", got)
	}
}
