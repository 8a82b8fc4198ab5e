package chdb

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is libchdb.so, loaded once per process: its C interface as Go functions.
// Handles are opaque C pointers; none of them is ever looked into, save that
// chdb_connect answers a pointer to the connection pointer.
type library struct {
	connect           func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	closeConn         func(conn unsafe.Pointer)
	query             func(conn, text unsafe.Pointer, textLen uintptr, format unsafe.Pointer, formatLen uintptr) unsafe.Pointer
	queryParams       func(conn, text unsafe.Pointer, textLen uintptr, format unsafe.Pointer, formatLen uintptr, names, nameLens, values, valueLens unsafe.Pointer, count uintptr) unsafe.Pointer
	classify          func(conn, text unsafe.Pointer, textLen uintptr, target unsafe.Pointer, targetLen uintptr, out unsafe.Pointer) int32
	resultError       func(result unsafe.Pointer) unsafe.Pointer
	resultBuffer      func(result unsafe.Pointer) unsafe.Pointer
	resultLength      func(result unsafe.Pointer) uintptr
	resultRows        func(result unsafe.Pointer) uint64
	resultBytes       func(result unsafe.Pointer) uint64
	resultStorageRows func(result unsafe.Pointer) uint64
	resultStorageSize func(result unsafe.Pointer) uint64
	resultRowsWritten func(result unsafe.Pointer) uint64
	resultSizeWritten func(result unsafe.Pointer) uint64
	destroyResult     func(result unsafe.Pointer)
	signalHandlers    func(enabled int32)
}

// loadLibrary loads the shared library at path and resolves every function used here,
// so that a library of another version fails at start and not in a query.
func loadLibrary(path string) (*library, error) {
	if err := useUTC(); err != nil {
		return nil, fmt.Errorf("set the time zone of ClickHouse: %w", err)
	}
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load ClickHouse library %s: %w", path, err)
	}
	l := &library{}
	for _, f := range []struct {
		name string
		fn   any
	}{
		{"chdb_connect", &l.connect},
		{"chdb_close_conn", &l.closeConn},
		{"chdb_query_n", &l.query},
		{"chdb_query_with_params_n", &l.queryParams},
		{"chdb_classify_query_n", &l.classify},
		{"chdb_result_error", &l.resultError},
		{"chdb_result_buffer", &l.resultBuffer},
		{"chdb_result_length", &l.resultLength},
		{"chdb_result_rows_read", &l.resultRows},
		{"chdb_result_bytes_read", &l.resultBytes},
		{"chdb_result_storage_rows_read", &l.resultStorageRows},
		{"chdb_result_storage_bytes_read", &l.resultStorageSize},
		{"chdb_result_rows_written", &l.resultRowsWritten},
		{"chdb_result_bytes_written", &l.resultSizeWritten},
		{"chdb_destroy_query_result", &l.destroyResult},
		{"chdb_set_signal_handlers_enabled", &l.signalHandlers},
	} {
		symbol, err := purego.Dlsym(handle, f.name)
		if err != nil {
			return nil, fmt.Errorf("load ClickHouse library %s: %w", path, err)
		}
		purego.RegisterFunc(f.fn, symbol)
	}
	// Go needs SIGSEGV, SIGPROF, SIGURG and the rest for itself: with the engine's own
	// handlers in place a nil dereference or a profile tick would end the process.
	l.signalHandlers(0)
	return l, nil
}

// useUTC sets the time zone in the C library's environment, where the engine looks for it:
// os.Setenv reaches that only in programs built with cgo.
func useUTC() error {
	symbol, err := purego.Dlsym(purego.RTLD_DEFAULT, "setenv")
	if err != nil {
		return err
	}
	var setenv func(name, value string, overwrite int32) int32
	purego.RegisterFunc(&setenv, symbol)
	if setenv("TZ", "UTC", 1) != 0 {
		return errors.New("setenv failed")
	}
	return nil
}

// open makes a connection with command-line arguments as clickhouse-local takes them.
// The first connection of the process starts the engine. Nil means that the engine refused;
// it says why on standard error only.
func (l *library) open(args []string) unsafe.Pointer {
	var pinned runtime.Pinner
	defer pinned.Unpin()
	argv := make([]unsafe.Pointer, 0, len(args)+1)
	for _, a := range args {
		text := append([]byte(a), 0)
		pinned.Pin(&text[0])
		argv = append(argv, unsafe.Pointer(&text[0]))
	}
	argv = append(argv, nil)
	pinned.Pin(&argv[0])
	return l.connect(int32(len(args)), unsafe.Pointer(&argv[0]))
}

// result is the outcome of one statement, in C memory.
type result struct {
	lib    *library
	handle unsafe.Pointer
}

// bytes are the formatted output. They are valid until close.
func (r result) bytes() []byte {
	n := r.lib.resultLength(r.handle)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(r.lib.resultBuffer(r.handle)), n)
}

// stats are the counts that ClickHouse shows in X-ClickHouse-Summary.
func (r result) stats() stats {
	return stats{
		ReadRows:     r.lib.resultStorageRows(r.handle),
		ReadBytes:    r.lib.resultStorageSize(r.handle),
		WrittenRows:  r.lib.resultRowsWritten(r.handle),
		WrittenBytes: r.lib.resultSizeWritten(r.handle),
		ResultRows:   r.lib.resultRows(r.handle),
		ResultBytes:  r.lib.resultBytes(r.handle),
	}
}

func (r result) close() { r.lib.destroyResult(r.handle) }

// stats counts what a statement read, wrote and answered.
type stats struct {
	ReadRows     uint64 `json:"read_rows,string"`
	ReadBytes    uint64 `json:"read_bytes,string"`
	WrittenRows  uint64 `json:"written_rows,string"`
	WrittenBytes uint64 `json:"written_bytes,string"`
	ResultRows   uint64 `json:"result_rows,string"`
	ResultBytes  uint64 `json:"result_bytes,string"`
}

// run executes one text on a connection. An error of the engine is an *Exception.
func (l *library) run(conn unsafe.Pointer, text, format string, params []param) (result, error) {
	var pinned runtime.Pinner
	defer pinned.Unpin()
	pin := func(s string) unsafe.Pointer {
		if s == "" {
			return nil
		}
		p := unsafe.StringData(s)
		pinned.Pin(p)
		return unsafe.Pointer(p)
	}

	var handle unsafe.Pointer
	if len(params) == 0 {
		handle = l.query(conn, pin(text), uintptr(len(text)), pin(format), uintptr(len(format)))
	} else {
		names, values := make([]unsafe.Pointer, len(params)), make([]unsafe.Pointer, len(params))
		nameLens, valueLens := make([]uintptr, len(params)), make([]uintptr, len(params))
		for i, p := range params {
			names[i], nameLens[i] = pin(p.name), uintptr(len(p.name))
			// A null pointer would be no value at all; an empty one is a value.
			values[i], valueLens[i] = pin(p.value+"\x00"), uintptr(len(p.value))
		}
		pinned.Pin(&names[0])
		pinned.Pin(&nameLens[0])
		pinned.Pin(&values[0])
		pinned.Pin(&valueLens[0])
		handle = l.queryParams(conn, pin(text), uintptr(len(text)), pin(format), uintptr(len(format)),
			unsafe.Pointer(&names[0]), unsafe.Pointer(&nameLens[0]), unsafe.Pointer(&values[0]), unsafe.Pointer(&valueLens[0]), uintptr(len(params)))
	}
	if handle == nil {
		return result{}, &Exception{Code: codeLogicalError, Message: "the engine gave no result"}
	}
	r := result{lib: l, handle: handle}
	if message := l.resultError(handle); message != nil {
		err := parseException(goString(message))
		r.close()
		return result{}, err
	}
	return r, nil
}

// analysis mirrors chdb_query_analysis_v1: what the engine's own parser finds in a text.
type analysis struct {
	size uint32
	// statements is zero when the text can't be parsed.
	statements uint32
	flags      uint32
	class      uint32
}

// The classes used here, of chdb_query_class.
const (
	classReadOnly = 0
	classUnknown  = 4
)

// classifyText analyses a text without running it.
func (l *library) classifyText(conn unsafe.Pointer, text string) analysis {
	out := &analysis{size: uint32(unsafe.Sizeof(analysis{})), class: classUnknown}
	if text == "" {
		return *out
	}
	var pinned runtime.Pinner
	defer pinned.Unpin()
	pinned.Pin(out)
	p := unsafe.StringData(text)
	pinned.Pin(p)
	if l.classify(conn, unsafe.Pointer(p), uintptr(len(text)), nil, 0, unsafe.Pointer(out)) != 0 {
		return analysis{class: classUnknown}
	}
	return *out
}

func goString(p unsafe.Pointer) string {
	n := 0
	for *(*byte)(unsafe.Add(p, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(p), n))
}
