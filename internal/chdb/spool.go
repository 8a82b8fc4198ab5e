package chdb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// spool holds bodies of requests as files in memory (tmpfs), because the engine reads the rows of an INSERT from a file.
// Every process has a directory of its own, which it keeps locked while it lives.
type spool struct {
	dir  string
	lock *os.File
}

const spoolPrefix = "tenantflow-clickhouse-"

// openSpool makes a directory under root and removes those of processes that are gone:
// a killed process can't clean up after itself, and tmpfs is memory.
func openSpool(root string) (*spool, error) {
	// One process at a time looks around, or it would take a directory made a moment ago,
	// and not locked yet, for an abandoned one.
	// Each user has a lock of their own: no user can open, or clean up after, another's.
	gate, err := os.OpenFile(filepath.Join(root, fmt.Sprintf("%slock-%d", spoolPrefix, os.Getuid())), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	defer gate.Close()
	if err := syscall.Flock(int(gate.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), spoolPrefix) {
			continue
		}
		dir := filepath.Join(root, e.Name())
		lock, err := lockDir(dir)
		if err != nil {
			continue // its process lives
		}
		removed := os.RemoveAll(dir)
		if err := errors.Join(removed, lock.Close()); err != nil {
			return nil, fmt.Errorf("remove the spool of an ended process: %w", err)
		}
	}
	dir, err := os.MkdirTemp(root, spoolPrefix)
	if err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	return &spool{dir: dir, lock: lock}, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s *spool) close() error { return errors.Join(os.RemoveAll(s.dir), s.lock.Close()) }

// write stores everything from r in a new file and returns its path. On an error nothing is left behind.
func (s *spool) write(r io.Reader) (path string, err error) {
	f, err := os.CreateTemp(s.dir, "body-*")
	if err != nil {
		return "", fmt.Errorf("spool a body: %w", err)
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("spool a body: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return f.Name(), nil
}
