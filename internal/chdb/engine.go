// Package chdb serves a real ClickHouse over ClickHouse's own HTTP interface, without a ClickHouse server:
// libchdb.so holds the engine, this package loads it into the process and answers requests as
// the server would, so that clickhouse-go (Protocol: clickhouse.HTTP), goose and curl use it unchanged.
//
//	engine, err := chdb.Open(chdb.Options{Library: ".local/chdb/libchdb.so", Dir: ".local/clickhouse"})
//	server := chdb.NewServer(engine, logger)
//	http.Serve(listener, server)
//
// The engine belongs into a process of its own: it can be opened once per process, it keeps its threads
// until the process ends, and a process can be killed where a library can't. Everything a server keeps is
// kept in the directory: databases, tables, parts, deduplication logs. It survives SIGKILL.
//
// Every request gets a session (an engine connection) of its own and gives it up at the end, so that settings,
// current database and temporary tables can't leak from one request into the next.
package chdb

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unsafe"
)

// Options say where the engine is and where it keeps its data.
type Options struct {
	// Library is the path of libchdb.so. Required.
	Library string
	// Dir is the data directory; it is made when missing. Required. One process at a time may use it.
	Dir string
	// Memory is the engine's memory limit in bytes (max_server_memory_usage). Default 0: half of the machine's memory.
	Memory uint64
	// Config is a configuration file of ClickHouse's own, for example with users; empty: none.
	Config string
}

// Engine is a running ClickHouse. Its methods may be used from many goroutines.
type Engine struct {
	lib *library
	// args make a connection. They are the same for all: a connection with another path would be refused.
	args []string
	// keeper stays open as long as the engine: closing the last connection shuts it down.
	keeper unsafe.Pointer
}

// Open starts the engine on a directory. It can be called once per process.
func Open(o Options) (*Engine, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse in %s: %w", o.Dir, err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("open ClickHouse: %w", err)
	}
	lib, err := loadLibrary(o.Library)
	if err != nil {
		return nil, err
	}
	e := &Engine{lib: lib, args: []string{
		"clickhouse",
		"--path=" + dir,
		// The engine library starts out as clickhouse-local does, where "foo" means "SELECT foo".
		// A server calls that a syntax error.
		"--implicit_select=0",
	}}
	if o.Memory > 0 {
		e.args = append(e.args, "--max_server_memory_usage="+strconv.FormatUint(o.Memory, 10))
	} else {
		e.args = append(e.args, "--max_server_memory_usage_to_ram_ratio=0.5")
	}
	if o.Config != "" {
		e.args = append(e.args, "--config-file="+o.Config)
	}
	if e.keeper = lib.open(e.args); e.keeper == nil {
		return nil, fmt.Errorf("open ClickHouse in %s: the engine refused (is another process using the directory?)", dir)
	}
	return e, nil
}

// Close stops the engine, which writes down what it holds in memory. All sessions must be closed before.
// Some of its threads stay until the process ends; they do nothing any more.
func (e *Engine) Close() {
	if e.keeper != nil {
		e.lib.closeConn(e.keeper)
		e.keeper = nil
	}
}

// session is one connection of the engine: it runs one statement at a time.
type session struct {
	lib  *library
	conn unsafe.Pointer
}

// param is a query parameter: the value of {name:Type}, escaped as in TabSeparated.
type param struct{ name, value string }

// session opens a connection; about 0.1 ms.
func (e *Engine) session() (*session, error) {
	conn := e.lib.open(e.args)
	if conn == nil {
		return nil, exceptionf(codeLogicalError, "the engine gave no connection")
	}
	return &session{lib: e.lib, conn: conn}, nil
}

func (s *session) close() { s.lib.closeConn(s.conn) }

// query runs one statement; the caller closes the result.
func (s *session) query(text, format string, params ...param) (result, error) {
	return s.lib.run(*(*unsafe.Pointer)(s.conn), text, format, params)
}

// exec runs one statement without looking at its result.
func (s *session) exec(text string) error {
	r, err := s.query(text, "Null")
	if err != nil {
		return err
	}
	r.close()
	return nil
}

// classify says what a statement would do, without running it.
func (s *session) classify(text string) analysis {
	return s.lib.classifyText(*(*unsafe.Pointer)(s.conn), text)
}

// use makes database the current one; code 81 when there is none of that name.
func (s *session) use(database string) error {
	return s.exec("USE " + quoteName(database))
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// set changes settings for the rest of the session, all of them or none.
func (s *session) set(settings []setting) error {
	if len(settings) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString("SET ")
	for i, c := range settings {
		if !settingName.MatchString(c.name) {
			return exceptionf(codeUnknownSetting, "Unknown setting %s. (UNKNOWN_SETTING)", quoteText(c.name))
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c.name + " = " + quoteText(c.value))
	}
	return s.exec(b.String())
}

// setting is one setting of a query, its value in the text form a URL carries.
type setting struct{ name, value string }

var escapes = strings.NewReplacer(`\`, `\\`, `'`, `\'`, "`", "\\`")

// quoteText makes a SQL string literal.
func quoteText(s string) string { return "'" + escapes.Replace(s) + "'" }

// quoteName makes a quoted SQL identifier.
func quoteName(s string) string { return "`" + escapes.Replace(s) + "`" }
