package token

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lookInterval is how often a request looks whether the file has changed.
	lookInterval = time.Second
	// maxFileBytes bounds what is read. A token with a few companies takes 200 bytes.
	maxFileBytes = 16 << 20
)

// A File is a file of tokens that may be edited or replaced while it is in use. A request that comes a second or more
// after the last look takes another one; there is nothing to stop or close. If the file is gone or broken, what it
// said before stays in force.
type File struct {
	path string
	log  *slog.Logger
	now  func() time.Time

	set   atomic.Pointer[Set]
	next  atomic.Int64 // when the next look is due, in Unix nanoseconds
	stale atomic.Bool

	mu        sync.Mutex
	seen      os.FileInfo // of the content last read; nil: it could not be read, so every look tries again
	complaint string      // what was last said to be wrong, so that it is said once
}

// same reports whether two states of a file have the same content, without reading it. A file that was renamed into
// place may be as old and as long as the one before.
func same(a, b os.FileInfo) bool {
	return a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && os.SameFile(a, b)
}

// Open reads the file at path. The error names everything that is wrong with it.
func Open(path string, log *slog.Logger) (*File, error) { return open(path, log, time.Now) }

func open(path string, log *slog.Logger, now func() time.Time) (*File, error) {
	f := &File{path: path, log: log, now: now}
	set, seen, err := f.read()
	if err != nil {
		return nil, err
	}
	f.set.Store(set)
	f.seen = seen
	f.next.Store(now().Add(lookInterval).UnixNano())
	return f, nil
}

// Find returns the grant of a token, given as its bearer sends it.
func (f *File) Find(bearer string) (*Grant, bool) {
	f.look()
	return f.set.Load().Find(bearer)
}

// Stale says whether the file has changed into something that can't be used, so that an older content is in force.
func (f *File) Stale() bool {
	f.look()
	return f.stale.Load()
}

// look reads the file again if it has changed. One caller does; the others meanwhile use the tokens read before.
func (f *File) look() {
	if f.now().UnixNano() < f.next.Load() || !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	if f.now().UnixNano() < f.next.Load() {
		return // another caller was quicker
	}
	defer func() { f.next.Store(f.now().Add(lookInterval).UnixNano()) }()

	if info, err := os.Stat(f.path); err == nil && f.seen != nil && same(info, f.seen) {
		return
	}
	set, seen, err := f.read()
	f.seen = seen
	if err != nil {
		f.stale.Store(true)
		if err.Error() != f.complaint {
			f.log.Error("the changed tokens file can't be used; the tokens of before stay valid", "error", err)
		}
		f.complaint = err.Error()
		return
	}
	f.complaint = ""
	f.set.Store(set)
	f.stale.Store(false)
	f.log.Info("tokens file read again", "file", f.path, "tokens", set.Len())
}

// read reads the file. The state belongs to what was read, not to what may have been renamed over it meanwhile.
func (f *File) read() (*Set, os.FileInfo, error) {
	opened, err := os.Open(f.path)
	if err != nil {
		return nil, nil, fmt.Errorf("open the tokens file: %w", err)
	}
	defer opened.Close()
	seen, err := opened.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("open the tokens file: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(opened, maxFileBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read the tokens file: %w", err)
	}
	if len(text) > maxFileBytes {
		return nil, seen, fmt.Errorf("read the tokens file %s: it is larger than %d bytes", f.path, maxFileBytes)
	}
	set, err := Parse(text)
	if err != nil {
		return nil, seen, fmt.Errorf("read the tokens file %s: %w", f.path, err)
	}
	return set, seen, nil
}
