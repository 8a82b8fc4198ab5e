package chdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/google/uuid"
)

// Sessions is how many statements run side by side; further requests wait for their turn.
const Sessions = 16

// maxBody bounds the body of one request in bytes, after decompression.
const maxBody = 4 << 30

// Server is ClickHouse's HTTP interface over an engine.
type Server struct {
	engine *Engine
	spool  *spool
	log    *slog.Logger
	turns  chan struct{}
	name   string
	// running counts sessions, so that the engine is closed only when none is left.
	running sync.WaitGroup
}

// NewServer makes a server. scratch is a directory in memory (/dev/shm) for the bodies of inserts;
// what killed processes left there is removed.
func NewServer(engine *Engine, scratch string, log *slog.Logger) (*Server, error) {
	spool, err := openSpool(scratch)
	if err != nil {
		return nil, err
	}
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	return &Server{engine: engine, spool: spool, log: log, turns: make(chan struct{}, Sessions), name: name}, nil
}

// Close waits for running statements until ctx ends, and removes the server's scratch files.
func (s *Server) Close(ctx context.Context) error {
	idle := make(chan struct{})
	go func() {
		s.running.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return s.spool.close()
	case <-ctx.Done():
		return fmt.Errorf("wait for running statements: %w", ctx.Err())
	}
}

// ServeHTTP answers a query, or Ok to a health check.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/ping" || r.URL.Path == "/replicas_status",
		r.URL.Path == "/" && r.URL.RawQuery == "" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		io.WriteString(w, "Ok.\n")
		return
	case r.URL.Path != "/" && r.URL.Path != "/query":
		http.Error(w, "There is no handle "+r.URL.Path, http.StatusNotFound)
		return
	}

	header := w.Header()
	header.Set("X-ClickHouse-Server-Display-Name", s.name)
	header.Set("X-ClickHouse-Timezone", "UTC")
	started := time.Now()
	id := ""
	q, err := parseRequest(r)
	if err == nil {
		id = q.id
		header.Set("X-ClickHouse-Query-Id", id)
		err = s.run(r.Context(), w, q)
	}
	if err != nil {
		s.fail(w, id, err)
	}
	s.log.Debug("query", "id", id, "elapsed", time.Since(started), "error", err)
}

// fail writes an error as ClickHouse does. The answer has not begun yet.
func (s *Server) fail(w http.ResponseWriter, id string, err error) {
	var e *Exception
	if !errors.As(err, &e) {
		s.log.Error("answer a query", "id", id, "error", err)
		e = exceptionf(codeUnknownException, "%v", err)
	}
	w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.Code))
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.WriteHeader(httpStatus(e.Code))
	fmt.Fprintf(w, "%s\n", e)
}

// run executes a request and writes its answer. After an error nothing has been written:
// the engine gives the whole result at once, so nothing can fail in the middle of an answer.
func (s *Server) run(ctx context.Context, w http.ResponseWriter, q *request) error {
	// The statement, and with it the time its now() answers, begins only when the whole body has arrived:
	// a body that is cut off, or comes slowly, executes nothing, or executes it late.
	work, err := s.receive(q)
	if err != nil {
		return err
	}
	defer work.remove(s.log)

	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-ctx.Done():
		return exceptionf(codeQueryWasCancelled, "The client left before its query began. (QUERY_WAS_CANCELLED)")
	}
	s.running.Add(1)
	defer s.running.Done()

	session, err := s.engine.session()
	if err != nil {
		return err
	}
	defer session.close()

	mark := uuid.NewString()
	if err := session.set(append(q.settings, setting{markSetting, mark})); err != nil {
		return err
	}
	if q.database != "" {
		if err := session.use(q.database); err != nil {
			return err
		}
	}
	for _, t := range q.external {
		if err := s.loadExternal(session, t); err != nil {
			return err
		}
	}
	statements := session.statements(work.text)
	if statements > 1 {
		return exceptionf(codeSyntaxError, "Syntax error (Multi-statements are not allowed). (SYNTAX_ERROR)")
	}
	if !work.insert {
		defer s.killWhenGone(ctx, mark)()
	}
	r, err := session.query(work.text, q.format, q.params...)
	if err != nil {
		return err
	}
	defer r.close()
	if statements == 0 && len(r.bytes()) == 0 {
		// The engine takes an empty text, and words such as "exit", for a command of clickhouse-local.
		return exceptionf(codeSyntaxError, "Syntax error: no query. (SYNTAX_ERROR)")
	}
	return s.answer(w, q, work, r)
}

// answer writes the result of a statement.
func (s *Server) answer(w http.ResponseWriter, q *request, work work, r result) error {
	format := first(work.format, q.format)
	header := w.Header()
	header.Set("X-ClickHouse-Format", format)
	header.Set("Content-Type", contentType(format))
	if summary, err := json.Marshal(r.stats()); err == nil {
		header.Set("X-ClickHouse-Summary", string(summary))
	}
	write := func(p []byte) error {
		_, err := w.Write(p)
		return err
	}
	if q.compress {
		write = compressed(write, q.method)
	}
	data := r.bytes()
	if q.revision == 0 || !strings.EqualFold(format, "Native") {
		return gone(write(data))
	}
	begun := false
	err := reencodeNative(data, q.revision, func(block []byte) error {
		begun = true
		return gone(write(block))
	})
	if err != nil && begun && !errors.Is(err, errGone) {
		// Half an answer must not look like a whole one: break the connection.
		s.log.Error("answer a query", "id", q.id, "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

var errGone = errors.New("the client is gone")

func gone(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

// compressed packs what is written into ClickHouse's compressed blocks of at most 1 MiB.
func compressed(write func([]byte) error, method compress.Method) func([]byte) error {
	packer := compress.NewWriter(compress.LevelZero, method)
	return func(p []byte) error {
		for len(p) > 0 {
			n := min(len(p), 1<<20)
			if err := packer.Compress(p[:n]); err != nil {
				return fmt.Errorf("compress an answer: %w", err)
			}
			if err := write(packer.Data); err != nil {
				return err
			}
			p = p[n:]
		}
		return nil
	}
}

func contentType(format string) string {
	switch strings.ToLower(format) {
	case "tabseparated", "tsv", "tabseparatedwithnames", "tsvwithnames", "tabseparatedwithnamesandtypes", "tsvwithnamesandtypes":
		return "text/tab-separated-values; charset=UTF-8"
	case "csv":
		return "text/csv; charset=UTF-8; header=absent"
	case "csvwithnames", "csvwithnamesandtypes":
		return "text/csv; charset=UTF-8; header=present"
	case "json", "jsoncompact", "jsonstrings":
		return "application/json; charset=UTF-8"
	case "jsoneachrow", "jsoncompacteachrow":
		return "application/x-ndjson; charset=UTF-8"
	case "native", "rowbinary", "parquet", "arrow":
		return "application/octet-stream"
	default:
		return "text/plain; charset=UTF-8"
	}
}
