package enginetest

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tenantflow/internal/engine"
)

// faultsSource is the library that is preloaded into a server. It is compiled when a test needs it, by the C compiler
// that the race detector needs, too. Not strace: that needs the right to trace and slows every call down.
//
//go:embed preload/faults.c
var faultsSource []byte

// Faults break a ClickHouse server at its own system calls, at points that a test can name: a kill between two requests
// never hits what lies between two calls of one insert.
//
//	ch, faults := enginetest.FaultyClickHouse(t)
//	...
//	faults.Arm(t, enginetest.Fault{Call: enginetest.Rename, Path: enginetest.DataDir(t, ch, "tenantflow", "usage_daily_store") + "tmp_insert_"})
//	...                 // an insert
//	<-ch.Exited()       // by now the server has written the part and its token, and died before it moved the part into place
type Faults struct {
	control *os.File
}

// A Fault is one system call that does not happen.
type Fault struct {
	Call Call

	// Path is contained in the path that the call is about: a rename's old path, the path of the file written.
	Path string

	// Nth is which of the matching calls is broken, counted from when the fault is armed. 0 is the first, as 1 is.
	Nth int

	// Error is what the call fails with; 0: the process is killed (SIGKILL) in its place. The engine library goes on as
	// if a write that fails had succeeded; a server would fail the insert. So fail renames, and kill at writes.
	Error syscall.Errno
}

// A Call is a system call that can be broken.
type Call int32

// The calls. The numbers are the library's.
const (
	Rename Call = 1
	Write  Call = 2
)

// The form of the file that the library reads: four numbers of 32 bits and the path with a zero byte at its end.
const (
	faultLeft = 4 * iota
	faultStruck
	faultCall
	faultError
	faultPath
	faultSize = 1024
)

// FaultyClickHouse starts a ClickHouse server whose system calls can be broken.
func FaultyClickHouse(t testing.TB, opts ...Option) (*engine.ClickHouse, *Faults) {
	t.Helper()
	dir := t.TempDir()
	control, err := os.Create(filepath.Join(dir, "control"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.Close() })
	if err := control.Truncate(faultSize); err != nil {
		t.Fatal(err)
	}
	preload := func(o *engine.Options) {
		o.Env = append(o.Env, "LD_PRELOAD="+compileFaults(t, dir), "FAULTS_CONTROL="+control.Name())
	}
	return ClickHouse(t, append(opts, preload)...), &Faults{control: control}
}

func compileFaults(t testing.TB, dir string) string {
	t.Helper()
	source, library := filepath.Join(dir, "faults.c"), filepath.Join(dir, "faults.so")
	if err := os.WriteFile(source, faultsSource, 0o600); err != nil {
		t.Fatal(err)
	}
	cc, err := exec.CommandContext(t.Context(), "go", "env", "CC").Output()
	if err != nil {
		t.Fatalf("find the C compiler: %v", err)
	}
	args := append(strings.Fields(string(cc)), "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source, "-ldl")
	if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil { // #nosec G204 -- the Go toolchain's own compiler
		t.Fatalf("compile the library that breaks system calls: %v\n%s", err, out)
	}
	return library
}

// Arm makes one call fail. One fault at a time: the one before it must have struck.
func (f *Faults) Arm(t testing.TB, fault Fault) {
	t.Helper()
	if left := f.read(t, faultLeft); left != 0 {
		t.Fatalf("a fault that was armed before has not struck yet; it is %d calls away", left)
	}
	if len(fault.Path) >= faultSize-faultPath {
		t.Fatalf("the path of a fault is too long: %s", fault.Path)
	}
	path := make([]byte, faultSize-faultPath)
	copy(path, fault.Path)
	f.write(t, faultPath, path)
	f.writeNumber(t, faultCall, int32(fault.Call))
	f.writeNumber(t, faultError, int32(fault.Error)) // #nosec G115 -- error numbers are small
	f.writeNumber(t, faultStruck, 0)
	// Last: it makes the rest count.
	f.writeNumber(t, faultLeft, int32(max(fault.Nth, 1))) // #nosec G115 -- a test counts to small numbers
}

// Struck reports whether the fault that was armed last has happened.
func (f *Faults) Struck(t testing.TB) bool {
	t.Helper()
	return f.read(t, faultStruck) != 0
}

func (f *Faults) read(t testing.TB, at int64) int32 {
	t.Helper()
	var b [4]byte
	if _, err := f.control.ReadAt(b[:], at); err != nil {
		t.Fatalf("read the state of a fault: %v", err)
	}
	return int32(binary.NativeEndian.Uint32(b[:])) // #nosec G115 -- written as such
}

func (f *Faults) writeNumber(t testing.TB, at int64, n int32) {
	t.Helper()
	f.write(t, at, binary.NativeEndian.AppendUint32(nil, uint32(n))) // #nosec G115 -- read as such
}

func (f *Faults) write(t testing.TB, at int64, b []byte) {
	t.Helper()
	if _, err := f.control.WriteAt(b, at); err != nil {
		t.Fatalf("arm a fault: %v", err)
	}
}

// DataDir is the directory in which a table keeps its parts, with a slash at its end.
func DataDir(t testing.TB, c *engine.ClickHouse, database, table string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	dir, err := c.Query(ctx, fmt.Sprintf("SELECT data_paths[1] FROM system.tables WHERE database = '%s' AND name = '%s'", database, table))
	if err != nil {
		t.Fatalf("find the directory of table %s: %v", table, err)
	}
	dir = strings.TrimSpace(dir)
	if dir == "" {
		t.Fatalf("table %s of database %s has no directory", table, database)
	}
	return dir
}
