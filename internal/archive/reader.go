package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tenantflow/events"
	"tenantflow/internal/kafka"
)

// An Archive is an archive that is read. It may be used by several goroutines at once, also while another process continues it.
type Archive struct {
	dir      string
	manifest *Manifest
}

// Open opens the archive of a topic, given with its prefix, below a root. It reads the manifest; Check looks at the rest.
//
// Errors: a *DamagedError where the manifest is not what was written, a *RefusedError where there is no archive of the topic.
func Open(root, topic string) (*Archive, error) {
	if err := checkTopicName(topic); err != nil {
		return nil, err
	}
	a := &Archive{dir: filepath.Join(root, topic)}
	var err error
	a.manifest, err = readManifest(a.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if strays, err := segments(a.dir); err == nil && len(strays) > 0 {
			return nil, &DamagedError{Path: filepath.Join(a.dir, manifestName), Err: errors.New("it is not there")}
		}
		return nil, noArchive(root, topic)
	case err != nil:
		return nil, err
	case a.manifest.Topic != topic:
		return nil, refuse("%s holds the archive of topic %s, not of %s", a.dir, a.manifest.Topic, topic)
	}
	return a, nil
}

// noArchive says which archives there are.
func noArchive(root, topic string) error {
	topics, err := Topics(root)
	if err != nil {
		return fmt.Errorf("look for archives: %w", err)
	}
	if len(topics) == 0 {
		return refuse("%s holds no archive; name the directory that was given to \"tenantflow archive\"", root)
	}
	return refuse("%s holds no archive of topic %s, but of %s", root, topic, strings.Join(topics, ", "))
}

// Topics lists the topics, with their prefixes, of which there are archives below a root, by name.
func Topics(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	var topics []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(root, e.Name(), manifestName)); err == nil {
			topics = append(topics, e.Name())
		}
	}
	return topics, nil
}

// Dir is the archive's directory.
func (a *Archive) Dir() string { return a.dir }

// Manifest says what the archive holds. It must not be changed.
func (a *Archive) Manifest() *Manifest { return a.manifest }

// Check compares the size and the SHA-256 of every file with the manifest. After it, all that Read shows is what was written,
// unless the files change meanwhile, which Read finds. The error is a *DamagedError for the first file that differs.
func (a *Archive) Check(ctx context.Context, progress func(done, total int64)) error {
	count := a.counter(progress)
	for _, p := range a.manifest.Partitions {
		err := a.walk(ctx, p.Partition, kafka.Range{From: p.From, To: p.To}, func(f File) error {
			if err := checkFile(a.dir, f); err != nil {
				return err
			}
			count(f)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// counter says how many bytes of all are done. A file that was replaced meanwhile may be larger than the one that was counted on.
func (a *Archive) counter(progress func(done, total int64)) func(File) {
	var done, total int64
	for _, p := range a.manifest.Partitions {
		for _, f := range p.Files {
			total += f.Bytes
		}
	}
	return func(f File) {
		if done = min(done+f.Bytes, total); progress != nil {
			progress(done, total)
		}
	}
}

// walk calls each for the files of a partition that hold offsets of r, in order. Where each finds a file missing that the archiver
// has replaced meanwhile, it is called for the one that holds the same offsets now. Any other error of each ends it.
func (a *Archive) walk(ctx context.Context, partition int, r kafka.Range, each func(File) error) error {
	m := a.manifest
	for r.From < r.To {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f := m.fileBehind(partition, r.From)
		if f == nil || f.From >= r.To {
			return nil
		}
		err := each(*f)
		if errors.Is(err, errMissing) {
			now, readErr := readManifest(a.dir)
			if readErr != nil {
				return readErr
			}
			if now.Topic != m.Topic {
				return refuse("%s holds the archive of another topic now, %s", a.dir, now.Topic)
			}
			// One that replaces another begins with it and goes on behind it. Another archive of the topic may begin anywhere.
			if g := now.fileBehind(partition, r.From); g != nil && g.Name != f.Name && g.From == f.From && g.To >= f.To {
				m = now
				continue
			}
		}
		if err != nil {
			return err
		}
		r.From = f.To
	}
	return nil
}

// errMissing is the error within a *DamagedError of a file that is not there.
var errMissing = errors.New("the file is missing")

// openFile opens a file that the manifest names.
func openFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &DamagedError{path, errMissing}
	}
	if err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	return f, nil
}

// checkFile compares size and SHA-256.
func checkFile(dir string, want File) error {
	path := filepath.Join(dir, want.Name)
	f, err := openFile(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() != want.Bytes {
		return &DamagedError{path, fmt.Errorf("it has %d bytes instead of %d", info.Size(), want.Bytes)}
	}
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	switch got := hex.EncodeToString(sum.Sum(nil)); {
	case err != nil:
		return &DamagedError{path, err}
	case n != want.Bytes || got != want.SHA256:
		return &DamagedError{path, fmt.Errorf("its SHA-256 is %s instead of %s", got, want.SHA256)}
	}
	return nil
}

// Bounds says which offsets of each partition the archive holds, gaps included.
func (a *Archive) Bounds() map[int]kafka.Range {
	bounds := make(map[int]kafka.Range, len(a.manifest.Partitions))
	for _, p := range a.manifest.Partitions {
		bounds[p.Partition] = kafka.Range{From: p.From, To: p.To}
	}
	return bounds
}

// Read calls each for the records of a partition with offsets in r that the archive holds, in order. The record and its
// bytes are valid during the call only. An error of each ends it and is returned as it is.
//
// Where the archiver has replaced a file meanwhile, it goes on in the new one.
func (a *Archive) Read(ctx context.Context, partition int, r kafka.Range, each func(*events.Record) error) error {
	files, err := newFileReader(a.dir, a.manifest.Topic)
	if err != nil {
		return err
	}
	defer files.close()
	at, stop := r.From, errors.New("enough")
	err = a.walk(ctx, partition, r, func(f File) error {
		return files.read(partition, f, at, func(rec *events.Record) error {
			switch {
			case rec.Offset >= r.To:
				return stop
			case ctx.Err() != nil:
				return context.Cause(ctx)
			}
			if err := each(rec); err != nil {
				return err
			}
			at = rec.Offset + 1
			return nil
		})
	})
	if errors.Is(err, stop) {
		return nil
	}
	return err
}

// OffsetAt is the offset of the first record of a partition that is not older than a time, or where the partition's archive
// ends if there is none.
func (a *Archive) OffsetAt(ctx context.Context, partition int, at time.Time) (int64, error) {
	p := a.manifest.partition(partition)
	if p == nil {
		return 0, nil
	}
	for _, f := range p.Files {
		if f.LastTime.Before(at) {
			continue
		}
		found, offset := errors.New("found"), int64(0)
		err := a.Read(ctx, partition, kafka.Range{From: f.From, To: f.To}, func(r *events.Record) error {
			if r.Time.Before(at) {
				return nil
			}
			offset = r.Offset
			return found
		})
		if errors.Is(err, found) {
			return offset, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return p.To, nil
}

// fileBehind is the first file that holds an offset or later ones; nil: there is none.
func (m *Manifest) fileBehind(partition int, offset int64) *File {
	p := m.partition(partition)
	if p == nil {
		return nil
	}
	for i := range p.Files {
		if p.Files[i].To > offset {
			return &p.Files[i]
		}
	}
	return nil
}

// A fileReader reads the files of an archive, one after the other.
type fileReader struct {
	dir, topic string
	segment    segmentReader
}

func newFileReader(dir, topic string) (*fileReader, error) {
	d, err := newDecoder()
	if err != nil {
		return nil, err
	}
	return &fileReader{dir: dir, topic: topic, segment: segmentReader{decoder: d}}, nil
}

func (r *fileReader) close() { r.segment.decoder.Close() }

// read calls each for the records of a file from an offset on. The error is a *DamagedError, within
// it errMissing, for a file that is not there, and a *DamagedError for one that is not what the manifest says.
func (r *fileReader) read(partition int, want File, from int64, each func(*events.Record) error) error {
	path := filepath.Join(r.dir, want.Name)
	f, err := openFile(path)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := r.segment.read(f, head{r.topic, partition, want.From}, from, each)
	var damage *segmentError
	switch {
	case errors.As(err, &damage):
		return &DamagedError{path, err}
	case err != nil:
		return err
	case got.To != want.To || got.Records != want.Records || got.RawBytes != want.RawBytes:
		return &DamagedError{path, fmt.Errorf("it holds %d records up to offset %d instead of %d up to %d", got.Records, got.To, want.Records, want.To)}
	}
	return nil
}
