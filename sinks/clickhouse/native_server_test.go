package clickhouse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
	chgo "github.com/ClickHouse/clickhouse-go/v2"
)

// A nativeServer speaks the server's side of ClickHouse's native protocol, just enough to take an insert and to answer
// three queries. It is written from the protocol's description with ch-go's types, and it is no ClickHouse: it checks
// no SQL, enforces no setting, evaluates no constraint, deduplicates nothing and stores nothing but what it was sent.
type nativeServer struct {
	t        *testing.T
	listener net.Listener
	serving  sync.WaitGroup
	columns  []proto.InputColumn // the sample block: what the table is taken to have

	mu      sync.Mutex
	conns   []net.Conn
	inserts []*nativeInsert
	tables  map[string]proto.Results // external tables received
	react   func(w *nativeConn) bool // after the last block of an insert; false closes the connection
}

// A nativeInsert is an INSERT as it arrived.
type nativeInsert struct {
	query      proto.Query
	settings   map[string]string
	blocks     []proto.Results // those with rows
	rows       []int           // of each block
	types      []string        // of the first block's columns, as written on the wire
	compressed bool
	ended      bool // the empty block came
}

// nativeRevision is the newest one clickhouse-go speaks; a real server is newer and steps down to it.
const nativeRevision = 54460

// usageSample is the head of usage_tracking as a server sends it for an INSERT with a column list.
func usageSample() []proto.InputColumn {
	word := func() proto.ColInput { return new(proto.ColStr).LowCardinality() }
	instant := func() proto.ColInput { return new(proto.ColDateTime64).WithPrecision(3).WithLocation(time.UTC) }
	return []proto.InputColumn{
		{Name: "event_id", Data: new(proto.ColStr)}, {Name: "event_source", Data: word()}, {Name: "user_id", Data: new(proto.ColStr)},
		{Name: "company_id", Data: new(proto.ColStr)}, {Name: "timestamp", Data: instant()}, {Name: "subscription_tier", Data: word()},
		{Name: "service_name", Data: word()}, {Name: "api_endpoint", Data: word()}, {Name: "data_points_consumed", Data: new(proto.ColUInt32)},
		{Name: "processing_time_ms", Data: proto.Alias(new(proto.ColDecimal64), "Decimal(18, 3)")}, {Name: "billing_period", Data: word()},
		{Name: "revenue_attributed", Data: proto.Alias(new(proto.ColDecimal64), "Decimal(18, 6)")}, {Name: "_topic", Data: word()},
		{Name: "_partition", Data: new(proto.ColUInt16)}, {Name: "_offset", Data: new(proto.ColInt64)}, {Name: "_insert_by", Data: instant()},
	}
}

// startNative starts a server that ends with the test.
func startNative(t *testing.T) *nativeServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends with the test
	if err != nil {
		t.Fatal(err)
	}
	s := &nativeServer{t: t, listener: listener, columns: usageSample(), tables: map[string]proto.Results{}}
	t.Cleanup(s.stop)
	s.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			s.mu.Unlock()
			s.serving.Go(func() {
				defer conn.Close()
				if err := s.serve(conn); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
					t.Errorf("native server: %v", err)
				}
			})
		}
	})
	return s
}

// open opens a store on the server; parameters go into the DSN.
func (s *nativeServer) open(parameters string) *Store {
	s.t.Helper()
	options, err := chgo.ParseDSN("clickhouse://user:secret@" + s.listener.Addr().String() + "/tenantflow?" + parameters)
	if err != nil {
		s.t.Fatal(err)
	}
	store, err := Open(s.t.Context(), Config{Options: options, InsertTimeout: 10 * time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = store.Close() })
	return store
}

// reacting sets what becomes of inserts whose data has arrived.
func (s *nativeServer) reacting(react func(w *nativeConn) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.react = react
}

// received are the inserts so far.
func (s *nativeServer) received() []*nativeInsert {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*nativeInsert(nil), s.inserts...)
}

// connections is how many there were so far.
func (s *nativeServer) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// stop closes the port and all connections, and waits until nothing is served any more.
func (s *nativeServer) stop() {
	_ = s.listener.Close()
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
}

// A nativeConn is one connection.
type nativeConn struct {
	net.Conn
	r          *proto.Reader
	compressed bool
}

func (s *nativeServer) serve(conn net.Conn) error {
	w := &nativeConn{Conn: conn, r: proto.NewReader(conn)}
	if code, err := w.r.UVarInt(); err != nil || proto.ClientCode(code) != proto.ClientCodeHello {
		return errors.Join(err, fmt.Errorf("packet %d instead of a hello", code))
	}
	var hello proto.ClientHello
	if err := hello.Decode(w.r); err != nil {
		return err
	}
	if hello.User != "user" || hello.Password != "secret" || hello.Database != "tenantflow" || hello.ProtocolVersion < nativeRevision {
		return fmt.Errorf("hello %+v", hello)
	}
	mine := proto.ServerHello{Name: "ClickHouse", Major: 26, Minor: 7, Patch: 3, Revision: nativeRevision, Timezone: "UTC", DisplayName: "test"}
	if err := w.write(func(b *proto.Buffer) { mine.EncodeAware(b, nativeRevision) }); err != nil {
		return err
	}
	if _, err := w.r.Str(); err != nil { // the addendum: a quota key
		return err
	}
	for {
		code, err := w.r.UVarInt()
		if err != nil {
			return err
		}
		switch proto.ClientCode(code) {
		case proto.ClientCodePing:
			err = w.write(proto.ServerCodePong.Encode)
		case proto.ClientCodeQuery:
			var more bool
			if more, err = s.query(w); err == nil && !more {
				return nil
			}
		default:
			err = fmt.Errorf("packet %d instead of a query", code)
		}
		if err != nil {
			return err
		}
	}
}

// query takes one query with its external tables and answers it. The connection is closed when it returns false.
func (s *nativeServer) query(w *nativeConn) (bool, error) {
	var q proto.Query
	if err := q.DecodeAware(w.r, nativeRevision); err != nil {
		return false, err
	}
	w.compressed = q.Compression == proto.CompressionEnabled
	for {
		name, block, end, err := w.readBlock()
		if err != nil {
			return false, err
		}
		if end {
			break
		}
		s.mu.Lock()
		s.tables[name] = block.results
		s.mu.Unlock()
	}
	switch {
	case strings.HasPrefix(q.Body, "INSERT INTO usage_tracking ("):
		return s.insert(w, q)
	case strings.HasPrefix(q.Body, "SELECT toUnixTimestamp64Milli(now64(3))"):
		return true, w.answer(proto.InputColumn{Name: "now", Data: proto.ColInt64{time.Now().UnixMilli()}})
	case q.Body == "SELECT 1":
		return true, w.answer(proto.InputColumn{Name: "1", Data: proto.ColUInt8{1}})
	case strings.Contains(q.Body, "INNER JOIN keys AS k"):
		topic := new(proto.ColStr)
		topic.Append("usage")
		return true, w.answer(proto.InputColumn{Name: "n", Data: proto.ColUInt32{1}}, proto.InputColumn{Name: "same", Data: proto.ColUInt8{1}},
			proto.InputColumn{Name: "topic", Data: topic}, proto.InputColumn{Name: "partition", Data: proto.ColUInt16{7}}, proto.InputColumn{Name: "offset", Data: proto.ColInt64{42}})
	default:
		return false, fmt.Errorf("unknown query %q", q.Body)
	}
}

func (s *nativeServer) insert(w *nativeConn, q proto.Query) (bool, error) {
	in := &nativeInsert{query: q, settings: map[string]string{}, compressed: w.compressed}
	for _, v := range q.Settings {
		in.settings[v.Key] = v.Value
	}
	s.mu.Lock()
	s.inserts = append(s.inserts, in)
	react := s.react
	s.mu.Unlock()
	if err := w.data(s.columns); err != nil {
		return false, err
	}
	for {
		_, block, end, err := w.readBlock()
		if errors.Is(err, io.EOF) {
			return false, nil // the client gave it up
		}
		if err != nil {
			return false, err
		}
		s.mu.Lock()
		switch {
		case end:
			in.ended = true
		case block.rows > 0:
			in.blocks, in.rows = append(in.blocks, block.results), append(in.rows, block.rows)
			in.types = block.types
		}
		s.mu.Unlock()
		if end {
			break
		}
	}
	if react != nil {
		return react(w), nil
	}
	return true, w.write(proto.ServerCodeEndOfStream.Encode)
}

// A nativeBlock is a block that arrived.
type nativeBlock struct {
	results proto.Results
	types   []string
	rows    int
}

// DecodeResult reads the columns of a block, whatever they are, and keeps the types as written.
func (n *nativeBlock) DecodeResult(r *proto.Reader, _ int, b proto.Block) error {
	n.rows = b.Rows
	for range b.Columns {
		name, err := r.Str()
		if err != nil {
			return err
		}
		kind, err := r.Str()
		if err != nil {
			return err
		}
		if custom, err := r.Bool(); err != nil || custom {
			return fmt.Errorf("column %s: custom serialization %t: %w", name, custom, err)
		}
		var col proto.ColAuto
		if err := col.Infer(proto.ColumnType(kind)); err != nil {
			return err
		}
		if state, ok := col.Data.(proto.StateDecoder); ok && b.Rows > 0 {
			if err := state.DecodeState(r); err != nil {
				return err
			}
		}
		if err := col.Data.DecodeColumn(r, b.Rows); err != nil {
			return fmt.Errorf("column %s: %w", name, err)
		}
		n.results, n.types = append(n.results, proto.ResultColumn{Name: name, Data: col.Data}), append(n.types, kind)
	}
	return nil
}

// readBlock reads a data packet; end tells that it was the empty one.
func (w *nativeConn) readBlock() (table string, n *nativeBlock, end bool, err error) {
	code, err := w.r.UVarInt()
	if err != nil {
		return "", nil, false, err
	}
	if proto.ClientCode(code) != proto.ClientCodeData {
		return "", nil, false, fmt.Errorf("packet %d instead of data", code)
	}
	if table, err = w.r.Str(); err != nil {
		return "", nil, false, err
	}
	if w.compressed {
		w.r.EnableCompression()
		defer w.r.DisableCompression()
	}
	n = &nativeBlock{}
	var b proto.Block
	if err := b.DecodeBlock(w.r, nativeRevision, n); err != nil {
		return "", nil, false, err
	}
	return table, n, b.End(), nil
}

func (w *nativeConn) write(encode func(*proto.Buffer)) error {
	var b proto.Buffer
	encode(&b)
	_, err := w.Write(b.Buf)
	return err
}

// data sends one block.
func (w *nativeConn) data(columns []proto.InputColumn) error {
	var head, body proto.Buffer
	proto.ServerCodeData.Encode(&head)
	head.PutString("")
	block := proto.Block{Columns: len(columns), Rows: columns[0].Data.Rows(), Info: proto.BlockInfo{BucketNum: -1}}
	if err := block.EncodeBlock(&body, nativeRevision, columns); err != nil {
		return err
	}
	if w.compressed {
		c := compress.NewWriter(compress.LevelZero, compress.LZ4)
		if err := c.Compress(body.Buf); err != nil {
			return err
		}
		body.Buf = c.Data
	}
	_, err := w.Write(bytes.Join([][]byte{head.Buf, body.Buf}, nil))
	return err
}

// answer sends a result of one block and ends it.
func (w *nativeConn) answer(columns ...proto.InputColumn) error {
	if err := w.data(columns); err != nil {
		return err
	}
	return w.write(proto.ServerCodeEndOfStream.Encode)
}

// exception sends an error and closes, as a server does after it has lost the place in the stream.
func (w *nativeConn) exception(code int32, message string) bool {
	e := proto.Exception{Code: proto.Error(code), Name: "DB::Exception", Message: message}
	_ = w.write(func(b *proto.Buffer) {
		proto.ServerCodeException.Encode(b)
		e.EncodeAware(b, nativeRevision)
	})
	return false
}
