package clickhouse

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	chgo "github.com/ClickHouse/clickhouse-go/v2"
)

// These tests hold the native path against the protocol, not against ClickHouse: no native port of a real server was
// at hand. They show what clickhouse-go puts on the wire for us and what we make of each way an answer can go. They
// can't show what a server does with it: that it takes the settings, deduplicates by the token, compares the deadline
// with the time the query began, or lists the query until it has ended. All of that is tested over HTTP.

// wireRows are the rows of a received block, in the order in which they came.
func wireRows(t *testing.T, columns proto.Results) []row {
	t.Helper()
	text := func(name string) (values []string) {
		switch c := wireColumn(t, columns, name).(type) {
		case *proto.ColStr:
			for i := range c.Rows() {
				values = append(values, c.Row(i))
			}
		case *proto.ColLowCardinality[string]:
			for i := range c.Rows() {
				values = append(values, c.Row(i))
			}
		default:
			t.Fatalf("column %s is a %T", name, c)
		}
		return values
	}
	id, source, user, company := text("event_id"), text("event_source"), text("user_id"), text("company_id")
	tier, service, endpoint, period := text("subscription_tier"), text("service_name"), text("api_endpoint"), text("billing_period")
	at := wireColumn(t, columns, "timestamp").(*proto.ColDateTime64)
	points := *wireColumn(t, columns, "data_points_consumed").(*proto.ColUInt32)
	processing := *wireColumn(t, columns, "processing_time_ms").(*proto.ColDecimal64)
	revenue := *wireColumn(t, columns, "revenue_attributed").(*proto.ColDecimal64)
	offset := *wireColumn(t, columns, "_offset").(*proto.ColInt64)
	rows := make([]row, len(id))
	for i := range rows {
		rows[i] = row{
			id: id[i], source: source[i], user: user[i], company: company[i], tier: tier[i], service: service[i], endpoint: endpoint[i],
			period: period[i], at: int64(at.Data[i]), points: points[i], processing: int64(processing[i]), revenue: int64(revenue[i]), offset: offset[i],
		}
	}
	return rows
}

func wireColumn(t *testing.T, columns proto.Results, name string) proto.ColResult {
	t.Helper()
	for _, c := range columns {
		if c.Name == name {
			return c.Data
		}
	}
	t.Fatalf("no column %s", name)
	return nil
}

// wild are rows with everything that could be lost on the way: empty and long texts, bytes that are no text, what is
// written like NULL, the largest decimals, and more different values than a key of one byte can tell apart.
func wild(n int) []row {
	texts := []string{"", "\x00", "a\x00b", "größe", "事件", "🦉", `\N`, "NULL", "'", "\\", "\xff\xfe", strings.Repeat("x", 300)}
	amounts := []int64{0, 1, 999, 1000, maxDecimal18 - 1, maxDecimal18}
	base := plain(0).monthsAgo(1)
	rows := make([]row, n)
	for i := range rows {
		pick := func(shift int) string { return texts[(i+shift)%len(texts)] }
		rows[i] = row{
			id: fmt.Sprintf("%d%s", i, pick(0)), source: pick(1), user: pick(2), company: pick(3), tier: pick(4),
			service: fmt.Sprintf("%s%d", pick(5), i%1000), endpoint: pick(6), period: pick(7), at: base.at + int64(i*7919%86_400_000),
			points: maxPoints - uint32(i), processing: amounts[i%len(amounts)], revenue: amounts[(i+1)%len(amounts)], offset: int64(i),
		}
	}
	return rows
}

func byOffset(rows []row) []row {
	slices.SortFunc(rows, func(a, b row) int { return int(a.offset - b.offset) })
	return rows
}

func TestANativeInsertIsOneBlockOfTheSameColumnsAndValues(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		parameters string
		compressed bool
	}{"plain": {"", false}, "LZ4": {"compress=lz4", true}, "flushed column by column": {"compress=lz4&max_compression_buffer=1024", true}} {
		for _, n := range []int{1, 254, 3000} {
			t.Run(fmt.Sprintf("%s, %d rows", name, n), func(t *testing.T) {
				t.Parallel()
				server := startNative(t)
				s := server.open(c.parameters)
				rows := wild(n)
				b := blockOf(rows...)
				in := b.Intent("usage", 7, 0, int64(n), 0, n)
				in.InsertBy = s.Deadline()
				if err := s.Insert(t.Context(), in, b, 0, n); err != nil {
					t.Fatal(err)
				}
				inserts := server.received()
				if len(inserts) != 1 || len(inserts[0].blocks) != 1 || !inserts[0].ended || inserts[0].compressed != c.compressed {
					t.Fatalf("received %d inserts, the first %+v", len(inserts), inserts[0])
				}
				got := inserts[0]
				var names []string
				for _, v := range got.blocks[0] {
					names = append(names, v.Name)
				}
				if strings.Join(names, ", ") != usageColumns || got.query.Body != "INSERT INTO usage_tracking ("+usageColumns+") FORMAT Native" {
					t.Errorf("columns %v of %q", names, got.query.Body)
				}
				var types []string
				for _, v := range usageSample() {
					types = append(types, string(v.Data.Type()))
				}
				if !slices.Equal(got.types, types) {
					t.Errorf("types %q, want %q", got.types, types)
				}
				same(t, byOffset(wireRows(t, got.blocks[0])), rows)
				partitions := *wireColumn(t, got.blocks[0], "_partition").(*proto.ColUInt16)
				topics := wireColumn(t, got.blocks[0], "_topic").(*proto.ColLowCardinality[string])
				deadlines := wireColumn(t, got.blocks[0], "_insert_by").(*proto.ColDateTime64)
				for i := range n {
					if partitions[i] != 7 || topics.Row(i) != "usage" || int64(deadlines.Data[i]) != in.InsertBy.UnixMilli() {
						t.Fatalf("row %d is of %s/%d until %d", i, topics.Row(i), partitions[i], deadlines.Data[i])
					}
				}
			})
		}
	}
}

// Rows go out in the same order whatever the protocol: the table's.
func TestANativeInsertSendsTheRowsInTheOrderOfTheTable(t *testing.T) {
	t.Parallel()
	server := startNative(t)
	s := server.open("")
	b := blockOf(wild(100)...)
	s.insert(t, b)
	var o order
	var want []int64
	for _, r := range o.of(b, b.parts(0, b.Len())[0].rows) {
		want = append(want, b.Offset(int(r)))
	}
	var got []int64
	for _, r := range wireRows(t, server.received()[0].blocks[0]) {
		got = append(got, r.offset)
	}
	if !slices.Equal(got, want) {
		t.Errorf("offsets %v, want %v", got, want)
	}
}

func TestANativeInsertCarriesTokenMarkAndDeadline(t *testing.T) {
	t.Parallel()
	server := startNative(t)
	s := server.open("max_execution_time=3600")
	b := blockOf(plain(1))
	in := s.insert(t, b)
	got := server.received()[0]
	token := in.token(in.Parts[0])
	for name, want := range map[string]string{
		"insert_deduplication_token": token, "log_comment": token, "insert_deduplicate": "1", "deduplicate_insert": "enable", "async_insert": "0",
		"max_insert_threads": "1", "deduplicate_blocks_in_dependent_materialized_views": "1", "materialized_views_ignore_errors": "0", "optimize_on_insert": "1",
	} {
		if got.settings[name] != want {
			t.Errorf("%s is %q, want %q", name, got.settings[name], want)
		}
	}
	// Ten seconds, in whole ones: 9 or 10, not what clickhouse-go makes of a context's deadline, nor what the DSN says.
	if v := got.settings["max_execution_time"]; v != "9" && v != "10" {
		t.Errorf("max_execution_time is %q", v)
	}
	for _, v := range got.query.Settings {
		if !v.Important { // otherwise a server that doesn't know it ignores it silently
			t.Errorf("%s may be ignored", v.Key)
		}
	}
}

func TestANativeInsertOfTwoMonthsIsTwoInserts(t *testing.T) {
	t.Parallel()
	server := startNative(t)
	s := server.open("")
	first, second, third := plain(0), plain(1).monthsAgo(1), plain(2)
	b := blockOf(first, second, third)
	b.Drop(2)
	in := s.insert(t, b)
	inserts := server.received()
	if len(inserts) != 2 || len(in.Parts) != 2 {
		t.Fatalf("%d inserts of %d parts", len(inserts), len(in.Parts))
	}
	for i, want := range []row{first, second} {
		if len(inserts[i].blocks) != 1 || inserts[i].settings["insert_deduplication_token"] != in.token(in.Parts[i]) {
			t.Fatalf("insert %d: %d blocks, token %s", i, len(inserts[i].blocks), inserts[i].settings["insert_deduplication_token"])
		}
		same(t, wireRows(t, inserts[i].blocks[0]), []row{want})
	}
	if server.connections() != 1 {
		t.Errorf("%d connections", server.connections())
	}
}

// What a server may do instead of ending the stream, and what we know then.
func TestTheOutcomeOfANativeInsert(t *testing.T) {
	t.Parallel()
	const late = "Constraint `in_time` for table tenantflow.usage_tracking (f69953cc) is violated at row 1. Expression: (_insert_by >= now64(3))"
	for name, c := range map[string]struct {
		react   func(w *nativeConn) bool
		class   Class
		outcome Outcome
	}{
		"late":                              {func(w *nativeConn) bool { return w.exception(469, late) }, Late, Answered},
		"a bad value":                       {func(w *nativeConn) bool { return w.exception(407, "Decimal overflow") }, Poison, Answered},
		"out of memory":                     {func(w *nativeConn) bool { return w.exception(241, "Memory limit exceeded") }, Transient, Answered},
		"closed before the end of stream":   {func(*nativeConn) bool { return false }, Transient, Unknown},
		"reset before the end of stream":    {func(w *nativeConn) bool { _ = w.Conn.(*net.TCPConn).SetLinger(0); return false }, Transient, Unknown},
		"half an exception":                 {func(w *nativeConn) bool { _ = w.write(proto.ServerCodeException.Encode); return false }, Transient, Unknown},
		"an answer that is no packet":       {func(w *nativeConn) bool { _, _ = w.Write([]byte("HTTP/1.1 502")); return false }, Transient, Unknown},
		"a packet that doesn't belong here": {func(w *nativeConn) bool { _ = w.write(proto.ServerCodePong.Encode); return false }, Transient, Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startNative(t)
			s := server.open("")
			server.reacting(c.react)
			b := blockOf(wild(10)...)
			got := asInsertError(t, s.Insert(t.Context(), s.intent(b), b, 0, b.Len()))
			if got.Class != c.class || got.Outcome != c.outcome {
				t.Errorf("class %d, outcome %d: %v", got.Class, got.Outcome, got)
			}
			// The client sends nothing again by itself, and goes on with another connection.
			if inserts := server.received(); len(inserts) != 1 || len(inserts[0].blocks) != 1 {
				t.Errorf("%d inserts", len(inserts))
			}
			server.reacting(nil)
			s.insert(t, b)
			if n := len(server.received()); n != 2 || server.connections() != 2 {
				t.Errorf("%d inserts over %d connections", n, server.connections())
			}
		})
	}
}

func TestANativeInsertWithoutAConnectionIsNotSent(t *testing.T) {
	t.Parallel()
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		server := startNative(t)
		s := server.open("")
		server.stop() // the kept connection as well
		b := blockOf(plain(1))
		got := asInsertError(t, s.Insert(t.Context(), s.intent(b), b, 0, 1))
		if got.Class != Transient || got.Outcome != NotSent {
			t.Errorf("class %d, outcome %d: %v", got.Class, got.Outcome, got)
		}
	})
	t.Run("none free", func(t *testing.T) {
		t.Parallel()
		server := startNative(t)
		s := server.open("max_open_conns=1&max_idle_conns=1&dial_timeout=200ms")
		held, err := s.conn.PrepareBatch(t.Context(), "INSERT INTO usage_tracking ("+usageColumns+")")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = held.Abort() }()
		b := blockOf(plain(1))
		got := asInsertError(t, s.Insert(t.Context(), s.intent(b), b, 0, 1))
		if got.Class != Transient || got.Outcome != NotSent {
			t.Errorf("class %d, outcome %d: %v", got.Class, got.Outcome, got)
		}
	})
}

func TestANativeServerThatDoesNotAnswerInTimeLeavesTheOutcomeUnknown(t *testing.T) {
	t.Parallel()
	server := startNative(t)
	s := server.open("")
	given := make(chan struct{})
	server.reacting(func(*nativeConn) bool { <-given; return false })
	t.Cleanup(func() { close(given) })
	s.timeout = 100 * time.Millisecond
	b := blockOf(plain(1))
	got := asInsertError(t, s.Insert(t.Context(), s.intent(b), b, 0, 1))
	if got.Class != Transient || got.Outcome != Unknown {
		t.Errorf("class %d, outcome %d: %v", got.Class, got.Outcome, got)
	}
	if s.patience.Load() != 2 {
		t.Errorf("patience %d: the next insert gets no longer", s.patience.Load())
	}
}

// The client would fit the values to any table, and cut off the digits that have no place there.
func TestANativeInsertIntoAnotherTableSendsNothing(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*nativeServer){
		"fewer digits": func(s *nativeServer) { s.columns[9].Data = proto.Alias(new(proto.ColDecimal64), "Decimal(18, 2)") },
		"seconds":      func(s *nativeServer) { s.columns[4].Data = &proto.ColDateTime{Location: time.UTC} },
		"wider":        func(s *nativeServer) { s.columns[8].Data = new(proto.ColUInt64) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startNative(t)
			change(server)
			s := server.open("")
			b := blockOf(plain(1))
			got := asInsertError(t, s.Insert(t.Context(), s.intent(b), b, 0, 1))
			if got.Class != Fatal || got.Outcome != Answered {
				t.Errorf("class %d, outcome %d: %v", got.Class, got.Outcome, got)
			}
			if in := server.received()[0]; len(in.blocks) != 0 || in.ended {
				t.Errorf("%d blocks sent, ended: %t", len(in.blocks), in.ended)
			}
		})
	}
}

func TestLookUpsCarryTheirKeysOverTheNativeProtocol(t *testing.T) {
	t.Parallel()
	for _, parameters := range []string{"", "compress=lz4"} {
		server := startNative(t)
		s := server.open(parameters)
		if err := s.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		b := blockOf(wild(3)...)
		found, err := s.Find(t.Context(), b, []int{1, 2})
		if err != nil {
			t.Fatal(err)
		}
		if want := []Match{{Row: 1, Same: true, Topic: "usage", Partition: 7, Offset: 42}}; !slices.Equal(found, want) {
			t.Errorf("found %+v, want %+v", found, want)
		}
		keys, ok := server.tables["keys"]
		if !ok {
			t.Fatalf("no keys among %v", server.tables)
		}
		if n := *wireColumn(t, keys, "n").(*proto.ColUInt32); !slices.Equal(n, proto.ColUInt32{1, 2}) {
			t.Errorf("rows %v", n)
		}
		ids := wireColumn(t, keys, "event_id").(*proto.ColStr)
		at := wireColumn(t, keys, "at").(*proto.ColDateTime64)
		for i, r := range []int{1, 2} {
			if ids.Row(i) != string(b.eventID.at(r)) || int64(at.Data[i]) != b.timestamp[r] {
				t.Errorf("key %d is %q at %d", i, ids.Row(i), at.Data[i])
			}
		}
	}
}

func TestOpenTellsThatANativePortDoesNotAnswer(t *testing.T) {
	t.Parallel()
	server := startNative(t)
	_ = server.listener.Close()
	options := &chgo.Options{Protocol: chgo.Native, Addr: []string{server.listener.Addr().String()}}
	if _, err := Open(t.Context(), Config{Options: options}); err == nil {
		t.Error("no error")
	}
}

func TestAnInsertThatTheServerEndsForItsTimeGetsMoreOfIt(t *testing.T) {
	t.Parallel()
	server := startNative(t)
	s := server.open("")
	server.reacting(func(w *nativeConn) bool {
		return w.exception(159, "Timeout exceeded: elapsed 10.1 seconds, maximum: 10")
	})
	b := blockOf(plain(1))
	if got := asInsertError(t, s.Insert(t.Context(), s.intent(b), b, 0, 1)); got.Class != Transient || got.Outcome != Answered {
		t.Errorf("class %d, outcome %d: %v", got.Class, got.Outcome, got)
	}
	if s.patience.Load() != 2 {
		t.Errorf("patience %d", s.patience.Load())
	}
}
