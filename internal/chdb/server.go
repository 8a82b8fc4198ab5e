package chdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

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
	// running counts requests, so that the engine is closed only when none is left.
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
		fmt.Fprint(w, "Ok.\n")
		return
	case r.URL.Path != "/" && r.URL.Path != "/query":
		http.Error(w, "There is no handle "+r.URL.Path, http.StatusNotFound)
		return
	}
	s.running.Add(1)
	defer s.running.Done()

	header := w.Header()
	header.Set("X-ClickHouse-Server-Display-Name", s.name)
	header.Set("X-ClickHouse-Timezone", "UTC")
	q, err := parseRequest(r)
	if err != nil {
		s.fail(w, err)
		return
	}
	header.Set("X-ClickHouse-Query-Id", q.id)
	result, format, err := s.run(r.Context(), q)
	if err != nil {
		s.fail(w, err)
		return
	}
	defer result.close()
	if err := s.answer(w, q, format, result); err != nil {
		s.fail(w, err)
	}
}

// fail writes an error as ClickHouse does. The answer has not started yet: the engine gives the whole result
// at once, so nothing fails in the middle of one.
func (s *Server) fail(w http.ResponseWriter, err error) {
	var e *Exception
	if !errors.As(err, &e) {
		s.log.Error("answer a query", "error", err)
		e = exceptionf(codeUnknownException, "%v", err)
	}
	w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.Code))
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.WriteHeader(httpStatus(e.Code))
	fmt.Fprintf(w, "%s\n", e)
}

// run executes a request. It returns the result, which the caller closes, and the format it is in.
func (s *Server) run(ctx context.Context, q *request) (result, string, error) {
	// The statement, and with it the time its now() answers, begins only when the whole body has arrived:
	// a body that is cut off executes nothing, one that comes slowly executes late.
	work, err := s.receive(q)
	if err != nil {
		return result{}, "", err
	}
	defer work.remove(s.log)

	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-ctx.Done():
		return result{}, "", exceptionf(codeQueryWasCancelled, "The client left before its query began. (QUERY_WAS_CANCELLED)")
	}
	session, err := s.engine.session()
	if err != nil {
		return result{}, "", err
	}
	defer session.close()
	mark := uuid.NewString()
	if err := s.prepare(session, q, mark); err != nil {
		return result{}, "", err
	}

	found := session.classify(work.text)
	if found.statements > 1 {
		return result{}, "", exceptionf(codeSyntaxError, "Syntax error (Multi-statements are not allowed). (SYNTAX_ERROR)")
	}
	if found.class == classReadOnly {
		defer s.killWhenGone(ctx, mark)()
	}
	r, err := session.query(work.text, q.format, q.params...)
	if err != nil {
		return result{}, "", err
	}
	if found.statements == 0 && len(r.bytes()) == 0 {
		// The engine takes an empty text, and words such as "exit", for a command of clickhouse-local.
		r.close()
		return result{}, "", exceptionf(codeSyntaxError, "Syntax error: no query. (SYNTAX_ERROR)")
	}
	return r, first(work.format, q.format), nil
}

// prepare gives a new session what the request says about it.
func (s *Server) prepare(session *session, q *request, mark string) error {
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
	if q.readonly != "" {
		// Last, because it forbids what came before.
		return session.set([]setting{{"readonly", q.readonly}})
	}
	return nil
}

// answer writes the result of a statement.
// Its session is free again by then: a client that reads slowly, or not at all, holds none.
func (s *Server) answer(w http.ResponseWriter, q *request, format string, r result) error {
	header := w.Header()
	header.Set("X-ClickHouse-Format", format)
	header.Set("Content-Type", contentType(format))
	if summary, err := json.Marshal(r.stats()); err == nil {
		header.Set("X-ClickHouse-Summary", string(summary))
	}
	begun := false
	write := func(p []byte) error {
		begun = true
		_, err := w.Write(p)
		return err
	}
	if q.compress {
		write = compressed(write, q.method)
	}
	var err error
	if q.revision > 0 && strings.EqualFold(format, "Native") {
		err = reencodeNative(r.bytes(), q.revision, write)
	} else {
		err = write(r.bytes())
	}
	if err != nil && begun {
		// Half an answer must not look like a whole one: break the connection. Mostly it is broken already.
		s.log.Debug("answer a query", "id", q.id, "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
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
