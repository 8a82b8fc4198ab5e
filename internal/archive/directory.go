package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	manifestName = "manifest.json"
	lockName     = "lock"
	temporary    = ".tmp" // what is being written ends with it
	// maxManifest is more than the manifest of a thousand partitions over ten years.
	maxManifest = 256 << 20
)

// A LockedError says that another process writes the archive.
type LockedError struct{ Dir, Holder string }

func (e *LockedError) Error() string {
	return fmt.Sprintf("another process writes the archive in %s (%s)", e.Dir, e.Holder)
}

// A lock is held by the process that writes an archive. The kernel releases it when the process ends, however it ends.
type lock struct{ f *os.File }

func acquire(dir string) (*lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the archive: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) // #nosec G115 -- a small number
	if err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 256)) // only for the words
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &LockedError{dir, strings.TrimSpace(string(holder))}
		}
		return nil, fmt.Errorf("lock the archive in %s: %w", dir, err)
	}
	host, _ := os.Hostname() // only for the words
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "process %d on %s\n", os.Getpid(), host)
	}
	return &lock{f}, nil
}

func (l *lock) release() { _ = l.f.Close() }

// makeDirectory makes a directory and those above it, and makes sure that they outlive a loss of power.
func makeDirectory(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDirectory(parent); err != nil {
			return err
		}
	}
	// What an archive holds is for the service alone.
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDirectory(parent)
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// replace writes a file so that at any moment either the old one or the new one is there, whole.
func replace(dir, name string, content []byte, step func(Step)) error {
	f, err := os.OpenFile(filepath.Join(dir, name+temporary), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		step(ManifestWritten)
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	step(ManifestSynced)
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	step(ManifestRenamed)
	return syncDirectory(dir)
}

// readManifest reads the manifest of the archive in dir. fs.ErrNotExist: there is none.
func readManifest(dir string) (*Manifest, error) {
	path := filepath.Join(dir, manifestName)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil, &DamagedError{Path: path, Err: err}
	}
	m, err := decodeManifest(b)
	if err != nil {
		return nil, &DamagedError{Path: path, Err: err}
	}
	return m, nil
}

// segments lists the files in dir that are called like segments.
func segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, _, _, ok := parseSegmentName(e.Name()); ok {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// A DamagedError says that a file of an archive is not what was written, or is not there.
type DamagedError struct {
	Path string
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("the archive is damaged: %s: %v. Nothing of it is used. Put the file back from a copy of the archive; "+
		"if there is none and the topic still holds these offsets, move the archive away and make a new one", e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }
