package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"tenantflow/internal/kafka"
)

// Config is what a run of the archiver needs.
type Config struct {
	Client *kafkago.Client
	Topic  string // with its prefix
	Root   string // the archive is the directory below it that is named like the topic; both are made

	// From is where the archive of a partition begins that has none yet: at the first record that is not older. Zero: where
	// the log begins. In an archive that is there it changes nothing, and an error says so where it would leave a gap.
	From time.Time
	// To ends the run before the first record that is not older. Zero: at the end of the log as it is at the beginning.
	To time.Time

	// AcceptGap goes on where retention has deleted records before they were archived. The manifest names what is missing.
	AcceptGap bool

	// SegmentBytes is how many bytes a segment has before compression, and the rest of its last block. Default: 64 MiB.
	SegmentBytes int64
	// Workers is how many partitions are read at once. Default: one for each processor.
	Workers int

	// OnStep, if set, is called at each border between steps of writing, by several goroutines at once.
	OnStep func(Step)
	// Progress, if set, is called now and then, one call at a time.
	Progress func(Progress)
	Now      func() time.Time // default: time.Now
	Logger   *slog.Logger
}

const defaultSegmentBytes = 64 << 20

// A Step is a border between two steps of writing an archive. A process may die at any of them.
type Step string

// The steps, in their order: those of a segment, and those of the manifest that names it. Removed comes once for each file
// that the manifest does not name any more.
const (
	SegmentOpened   Step = "segment_opened"   // under its temporary name, empty
	SegmentWritten  Step = "segment_written"  // whole, not synced
	SegmentSynced   Step = "segment_synced"   // under its temporary name
	SegmentRenamed  Step = "segment_renamed"  // in place, the directory not synced
	SegmentDone     Step = "segment_done"     // in place; the manifest does not name it
	ManifestWritten Step = "manifest_written" // under its temporary name, not synced
	ManifestSynced  Step = "manifest_synced"  // under its temporary name
	ManifestRenamed Step = "manifest_renamed" // in place, the directory not synced
	ManifestDone    Step = "manifest_done"
	Removed         Step = "removed" // a file that was replaced
)

// Progress is how far a run is.
type Progress struct {
	Done, Total int64 // offsets
	Records     int64 // read by this run
	Bytes       int64 // written by this run, compressed
}

// A Report is what a run did.
type Report struct {
	Topic      string            `json:"topic"`
	Dir        string            `json:"dir"`
	Records    int64             `json:"records"` // read from the log by this run
	Bytes      int64             `json:"bytes"`   // written by this run: what it has rewritten is in it
	Partitions []PartitionReport `json:"partitions"`
	Seconds    float64           `json:"seconds"`

	// UpTo is the time up to which everything is archived, by the times of the records: of each partition that of its last
	// record, or when the run began, where nothing lay behind that. Of the partitions the earliest.
	UpTo time.Time `json:"up_to"`
}

// A PartitionReport is what the archive of a partition holds after a run.
type PartitionReport struct {
	Partition int   `json:"partition"`
	From      int64 `json:"from"`
	To        int64 `json:"to"`
	Records   int64 `json:"records"` // in the archive
	Added     int64 `json:"added"`   // by this run
	TooLarge  int64 `json:"too_large"`
	Missing   int64 `json:"missing"` // offsets of accepted gaps
	Files     int   `json:"files"`
	Bytes     int64 `json:"bytes"`

	upTo time.Time
}

// A RefusedError says that the archive can't be continued from this topic, and nothing was changed.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return e.Err.Error() }

func (e *RefusedError) Unwrap() error { return e.Err }

func refuse(format string, args ...any) error { return &RefusedError{fmt.Errorf(format, args...)} }

// An archiver is a run under way.
type archiver struct {
	Config
	dir   string
	began time.Time
	log   map[int]kafka.Range // what the topic holds, at the beginning

	mu       sync.Mutex
	manifest *Manifest
	progress Progress
	last     time.Time // when progress was reported
}

// Run archives what the topic holds and the archive does not, and returns when it is on disk. It may end anywhere: what
// it leaves behind, the next run continues.
//
// Errors: a *LockedError where another process writes the archive, a *DamagedError where a file of it is not what was
// written, a *RefusedError where the topic is not the one that was archived, or where a gap is not accepted.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	a := &archiver{Config: cfg, dir: filepath.Join(cfg.Root, cfg.Topic)}
	a.setDefaults()
	a.began = a.Now()
	start := time.Now()
	fail := func(err error) (*Report, error) { return nil, fmt.Errorf("archive %s: %w", cfg.Topic, err) }
	if err := checkTopicName(cfg.Topic); err != nil {
		return fail(err)
	}
	if err := makeDirectory(a.dir); err != nil {
		return fail(err)
	}
	held, err := acquire(a.dir)
	if err != nil {
		return fail(err)
	}
	defer held.release()
	if err := a.load(); err != nil {
		return fail(err)
	}
	if a.log, err = kafka.Ends(ctx, cfg.Client, cfg.Topic); err != nil {
		return fail(err)
	}
	plans, err := a.plan(ctx)
	if err != nil {
		return fail(err)
	}
	reports := make([]PartitionReport, len(plans))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(a.Workers)
	for i := range plans {
		group.Go(func() (err error) {
			reports[i], err = a.partition(ctx, plans[i])
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fail(err)
	}
	r := &Report{Topic: cfg.Topic, Dir: a.dir, Partitions: reports, Records: a.progress.Records, Bytes: a.progress.Bytes, Seconds: time.Since(start).Seconds()}
	for _, p := range reports {
		if r.UpTo.IsZero() || p.upTo.Before(r.UpTo) {
			r.UpTo = p.upTo
		}
	}
	return r, nil
}

func (c *Config) setDefaults() {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = defaultSegmentBytes
	}
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.OnStep == nil {
		c.OnStep = func(Step) {}
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// checkTopicName refuses a topic that can't name a directory. Kafka's own rules allow no other.
func checkTopicName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") {
		return refuse("%q is not the name of a topic", name)
	}
	return nil
}

// load reads the manifest, or writes the first one: from then on segments without a manifest are a sign of damage.
func (a *archiver) load() error {
	if err := os.Remove(filepath.Join(a.dir, manifestName+temporary)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m, err := readManifest(a.dir)
	switch {
	case err == nil:
		if m.Topic != a.Topic {
			return refuse("%s holds the archive of topic %s; choose another directory", a.dir, m.Topic)
		}
		a.manifest = m
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	strays, err := segments(a.dir)
	if err != nil {
		return err
	}
	if len(strays) > 0 {
		return &DamagedError{Path: filepath.Join(a.dir, manifestName), Err: fmt.Errorf("it is not there, and %d segments are", len(strays))}
	}
	a.manifest = &Manifest{Topic: a.Topic, Partitions: []Partition{}}
	return a.save()
}

// save writes the manifest. The caller holds a.mu, or is alone.
func (a *archiver) save() error {
	b, err := a.manifest.encode()
	if err == nil {
		err = a.manifest.check() // a manifest that would be refused must not replace one that is not
	}
	if err == nil {
		err = replace(a.dir, manifestName, b, a.OnStep)
	}
	if err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	a.OnStep(ManifestDone)
	return nil
}

// note counts what a partition has read and reports progress.
func (a *archiver) note(offsets, records, bytes int64) {
	const often = 100 * time.Millisecond
	a.mu.Lock()
	defer a.mu.Unlock()
	a.progress.Done += offsets
	a.progress.Records += records
	a.progress.Bytes += bytes
	if time.Since(a.last) > often {
		a.last = time.Now()
		a.Progress(a.progress)
	}
}
