package chdb_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
)

// nativeBlock is one block of columns a UInt64 and s String in plain Native form.
func nativeBlock(t *testing.T, first, rows int) []byte {
	t.Helper()
	var a chproto.ColUInt64
	var s chproto.ColStr
	for i := range rows {
		a.Append(uint64(first + i))
		s.Append(fmt.Sprint("row ", first+i))
	}
	var buf chproto.Buffer
	block := chproto.Block{Columns: 2, Rows: rows}
	if err := block.EncodeRawBlock(&buf, 0, chproto.Input{{Name: "a", Data: &a}, {Name: "s", Data: &s}}); err != nil {
		t.Fatal(err)
	}
	// EncodeRawBlock writes the two counts and the columns.
	return buf.Buf
}

func TestOneBlockOfAnInsertStaysOneBlock(t *testing.T) {
	t.Parallel()
	conn := database(t)
	exec(t, conn, "CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree PARTITION BY a % 2 ORDER BY a")
	exec(t, conn, "SYSTEM STOP MERGES t")
	// More than max_insert_block_size (1,048,449) rows, and more than a default read block (65,409).
	for _, rows := range []int{1, 70_000, 1_500_000} {
		exec(t, conn, "TRUNCATE TABLE t")
		if err := conn.InsertFormat(t.Context(), "Native", "INSERT INTO t (a, s)", bytes.NewReader(nativeBlock(t, 0, rows))); err != nil {
			t.Fatal(err)
		}
		if n := one[uint64](t, conn, "SELECT count() FROM t"); n != uint64(rows) {
			t.Errorf("%d of %d rows landed", n, rows)
		}
		parts := one[uint64](t, conn, "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 't' AND active")
		if want := uint64(min(rows, 2)); parts != want {
			t.Errorf("a block of %d rows became %d parts, want %d", rows, parts, want)
		}
	}
}

// insertSettings are the ones that make an insert idempotent.
func insertSettings(token string) clickhouse.Settings {
	return clickhouse.Settings{
		"async_insert": 0, "max_insert_threads": 1, "insert_deduplicate": 1, "deduplicate_insert": "enable",
		"deduplicate_blocks_in_dependent_materialized_views": 1, "insert_deduplication_token": token, "log_comment": token,
	}
}

func insertBlock(t *testing.T, conn clickhouse.Conn, token string, block []byte) error {
	t.Helper()
	ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(insertSettings(token)))
	return conn.InsertFormat(ctx, "Native", "INSERT INTO t (a, s)", bytes.NewReader(block))
}

func TestTheSameTokenTwiceChangesNeitherTableNorView(t *testing.T) {
	t.Parallel()
	conn := database(t)
	exec(t, conn,
		"CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100",
		"CREATE TABLE sums (k UInt8, n SimpleAggregateFunction(sum, Int64)) ENGINE = AggregatingMergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 100",
		"CREATE MATERIALIZED VIEW feed TO sums AS SELECT toUInt8(a % 3) AS k, toInt64(count()) AS n FROM t GROUP BY k")
	state := func() string {
		return fmt.Sprint(one[uint64](t, conn, "SELECT count() FROM t"), one[int64](t, conn, "SELECT sum(n) FROM sums"),
			one[uint64](t, conn, "SELECT count() FROM system.parts WHERE database = currentDatabase() AND active AND table = 't'"))
	}
	block := nativeBlock(t, 0, 7)
	for range 3 {
		if err := insertBlock(t, conn, "x", block); err != nil {
			t.Fatal(err)
		}
		if got := state(); got != "7 7 1" {
			t.Fatalf("rows, sum of the view, parts: %s", got)
		}
	}
	// The same rows under another token are other rows.
	if err := insertBlock(t, conn, "y", block); err != nil {
		t.Fatal(err)
	}
	if got := state(); got != "14 14 2" {
		t.Fatalf("rows, sum of the view, parts: %s", got)
	}
}

func TestALateInsertIsRefusedWholeWithCode469(t *testing.T) {
	t.Parallel()
	conn := database(t)
	exec(t, conn, `CREATE TABLE t (a UInt64, _insert_by DateTime64(3, 'UTC'), CONSTRAINT in_time CHECK _insert_by >= now64(3))
		ENGINE = MergeTree ORDER BY a`)
	send := func(by ...time.Time) error {
		batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO t (a, _insert_by)")
		if err != nil {
			t.Fatal(err)
		}
		for i, by := range by {
			if err := batch.Append(uint64(i), by); err != nil {
				t.Fatal(err)
			}
		}
		return batch.Send()
	}
	future, past := time.Now().Add(time.Hour), time.Now().Add(-time.Millisecond)
	wantCode(t, send(future, future, past), 469)
	if n := one[uint64](t, conn, "SELECT count() FROM t"); n != 0 {
		t.Errorf("a refused insert left %d rows", n)
	}
	if err := send(future, future); err != nil {
		t.Error(err)
	}
	if n := one[uint64](t, conn, "SELECT count() FROM t"); n != 2 {
		t.Errorf("%d rows after an insert in time", n)
	}
}

func TestAnInsertBeginsWhenItsWholeBodyHasArrived(t *testing.T) {
	t.Parallel()
	conn := database(t)
	exec(t, conn, "CREATE TABLE t (a UInt32, at DateTime64(3) DEFAULT now64(3)) ENGINE = MergeTree ORDER BY a")
	slow, held := newHeldBody("1\n2\n")
	done := make(chan time.Time)
	go func() {
		parameters := url.Values{"database": {databaseName(t)}, "query": {"INSERT INTO t (a) FORMAT TSV"}}
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, shared.url+"/?"+parameters.Encode(), slow)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Errorf("insert: %v", err)
		} else {
			if response.StatusCode != http.StatusOK {
				t.Errorf("insert: %s", response.Status)
			}
			_ = response.Body.Close()
		}
		close(done)
	}()
	<-held.waiting
	if n := one[uint64](t, conn, "SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO t (a)%' AND current_database = currentDatabase()"); n != 0 {
		t.Error("the insert runs before its body is there")
	}
	sent := time.Now()
	close(held.release)
	<-done
	if at := one[time.Time](t, conn, "SELECT min(at) FROM t"); at.Before(sent.Truncate(time.Millisecond)) {
		t.Errorf("now() of the insert is %v, its body was complete at %v", at, sent)
	}
}

// heldBody gives its text only when released.
type heldBody struct {
	text             *strings.Reader
	waiting, release chan struct{}
	begun            bool
}

func newHeldBody(text string) (*heldBody, *heldBody) {
	b := &heldBody{text: strings.NewReader(text), waiting: make(chan struct{}), release: make(chan struct{})}
	return b, b
}

func (b *heldBody) Read(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		return copy(p, "0\n"), nil
	}
	select {
	case <-b.waiting:
	default:
		close(b.waiting)
	}
	<-b.release
	return b.text.Read(p)
}

func TestABodyThatIsNotNativeIsRefusedAndLeavesNothing(t *testing.T) {
	t.Parallel()
	conn := database(t)
	exec(t, conn, "CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a")
	whole := nativeBlock(t, 0, 1000)
	for name, body := range map[string][]byte{
		"garbage":       []byte("this is no native block, it is a sentence"),
		"zeros":         make([]byte, 100_000),
		"ones":          bytes.Repeat([]byte{0xff}, 100_000),
		"huge counts":   {2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 'a', 6, 'U', 'I', 'n', 't', '6', '4'},
		"cut off":       whole[:len(whole)-1],
		"cut in half":   whole[:len(whole)/2],
		"only a header": whole[:10],
		"text behind":   append(bytes.Clone(whole), "and more"...),
	} {
		status, header, answer := insertNative(t, body)
		if name == "zeros" && status == http.StatusOK {
			continue // blocks without rows
		}
		if status == http.StatusOK || header.Get("X-ClickHouse-Exception-Code") == "" {
			t.Errorf("%s: status %d, code %q: %s", name, status, header.Get("X-ClickHouse-Exception-Code"), answer)
		}
	}
	if n := one[uint64](t, conn, "SELECT count() FROM t"); n != 0 {
		t.Errorf("%d rows landed", n)
	}
	if status, _, answer := insertNative(t, whole); status != http.StatusOK {
		t.Errorf("a good insert after the bad ones: %s", answer)
	}
	if n := one[uint64](t, conn, "SELECT count() FROM t"); n != 1000 {
		t.Errorf("%d rows landed", n)
	}
}

func insertNative(t *testing.T, body []byte) (int, http.Header, string) {
	t.Helper()
	parameters := url.Values{"database": {databaseName(t)}, "query": {"INSERT INTO t FORMAT Native"}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, shared.url+"/?"+parameters.Encode(), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return do(t, request)
}

func TestAnInsertWhoseBodyIsCutOffExecutesNothing(t *testing.T) {
	t.Parallel()
	conn := database(t)
	exec(t, conn, "CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a")
	raw := dial(t)
	fmt.Fprintf(raw, "POST /?database=%s&query=INSERT+INTO+t+FORMAT+TSV HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n1\n2\n3\n", databaseName(t))
	raw.Close()
	raw = dial(t)
	fmt.Fprintf(raw, "POST /?database=%s&query=INSERT+INTO+t+FORMAT+TSV HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1\n2\n\r\n", databaseName(t))
	raw.Close()
	// Other tests have their bodies there, too, but not for long.
	eventually(t, func() bool { return len(spooled(t)) == 0 })
	if n := one[uint64](t, conn, "SELECT count() FROM t"); n != 0 {
		t.Errorf("%d rows of a body that never came", n)
	}
}

// spooled lists the bodies that the server holds.
func spooled(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(shared.scratch, "*", "body-*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}
