package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/fetch"
	"tenantflow/internal/kafka"
)

type eventsRecord = events.Record

// A writing is the archiving of one partition under way.
type writing struct {
	*archiver
	p       *plan
	encoder *zstd.Encoder

	segment  *segmentWriter // nil: the next record begins one
	file     *os.File
	replaces *File // the former last file, which the segment contains

	added, records int64 // of this run; records that progress does not know yet
	seen           int64 // the offset up to which progress knows
}

// partition archives one partition up to where its plan says.
func (a *archiver) partition(ctx context.Context, p plan) (PartitionReport, error) {
	w := &writing{archiver: a, p: &p, seen: p.To}
	if err := w.run(ctx); err != nil {
		w.abandon()
		return PartitionReport{}, fmt.Errorf("%s/%d: %w", a.Topic, p.Partition.Partition, err)
	}
	r := reportOf(&p.Partition)
	r.Added = w.added
	if p.To >= a.log[r.Partition].To {
		r.upTo = a.began
	}
	return r, nil
}

func (w *writing) run(ctx context.Context) (err error) {
	p := w.p
	if err := w.tidy(p); err != nil {
		return err
	}
	if p.fresh || p.gap {
		if err := w.commit(p.To, p.mark(), nil); err != nil {
			return err
		}
	}
	if p.To >= p.until {
		return nil
	}
	if w.encoder, err = newEncoder(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.encoder.Close()) }()
	at := kafka.Cursor{Next: p.To, Mark: p.mark()}
	err = kafka.ReadLogFrom(ctx, w.Client, w.Topic, p.Partition.Partition, &at, p.until, w.take)
	var changed *fetch.ChangedError
	switch {
	case errors.As(err, &changed):
		return w.recreated("partition %d holds another record at offset %d than the one that was archived", p.Partition.Partition, changed.Offset)
	case errors.Is(err, kafkago.OffsetOutOfRange):
		if log, err := kafka.Bounds(ctx, w.Client, w.Topic, p.Partition.Partition); err == nil && log.To < at.Next {
			return w.recreated("partition %d was archived up to offset %d, and its log ends at %d", p.Partition.Partition, at.Next, log.To)
		}
		return refuse("retention has deleted records before they were archived, while the archive was written: offset %d is gone. Run it again: "+
			"it will name what is missing", at.Next)
	case err != nil:
		return err
	}
	if w.segment != nil {
		return w.finish(at.Next, at.Mark)
	}
	if at.Next > p.To {
		return w.commit(at.Next, at.Mark, nil)
	}
	return nil
}

// take adds a record from the log.
func (w *writing) take(r *events.Record) error {
	if w.segment == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	if err := w.segment.add(r); err != nil {
		return err
	}
	w.added++
	if w.records++; w.records == 1000 {
		w.tell(r.Offset+1, 0)
	}
	if w.segment.raw() >= w.SegmentBytes {
		return w.finish(r.Offset+1, fetch.MarkOf(r))
	}
	return nil
}

// tell reports progress up to an offset.
func (w *writing) tell(to, bytes int64) {
	w.note(to-w.seen, w.records, bytes)
	w.seen, w.records = to, 0
}

// open begins a segment. One that is not full is written once more, so that segments do not depend on when they are written.
func (w *writing) open() error {
	p := w.p
	from := p.end()
	if tail := p.tail(w.SegmentBytes); tail != nil {
		from, w.replaces = tail.From, tail
	}
	var err error
	w.file, err = os.OpenFile(filepath.Join(w.dir, segmentName(p.Partition.Partition, from, from)+temporary), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w.OnStep(SegmentOpened)
	w.segment, err = newSegmentWriter(w.file, w.encoder, w.SegmentBytes, head{w.Topic, p.Partition.Partition, from})
	if err != nil || w.replaces == nil {
		return err
	}
	files, err := newFileReader(w.dir, w.Topic)
	if err != nil {
		return err
	}
	defer files.close()
	return files.read(p.Partition.Partition, *w.replaces, from, w.segment.add)
}

// finish completes the segment, and has the manifest name it. The partition is archived up to an offset, and the mark
// is its last record's.
func (w *writing) finish(to int64, mark fetch.Mark) error {
	file, err := w.segment.finish()
	if err != nil {
		return err
	}
	w.OnStep(SegmentWritten)
	if err := w.file.Sync(); err != nil {
		return err
	}
	if err := w.file.Close(); err != nil {
		return err
	}
	w.OnStep(SegmentSynced)
	file.Name = segmentName(w.p.Partition.Partition, file.From, file.To)
	if err := os.Rename(w.file.Name(), filepath.Join(w.dir, file.Name)); err != nil {
		return err
	}
	w.OnStep(SegmentRenamed)
	if err := syncDirectory(w.dir); err != nil {
		return err
	}
	w.OnStep(SegmentDone)
	old := ""
	if w.replaces != nil {
		old = w.replaces.Name
		w.p.Files = w.p.Files[:len(w.p.Files)-1]
	}
	w.segment, w.file, w.replaces = nil, nil, nil
	if err := w.commit(to, mark, &file); err != nil {
		return err
	}
	w.tell(to, file.Bytes)
	if old == "" {
		return nil
	}
	// A reader that had the former manifest reads the new one when it does not find the file.
	if err := os.Remove(filepath.Join(w.dir, old)); err != nil {
		return err
	}
	w.OnStep(Removed)
	return nil
}

// commit writes the manifest with what is known of the partition.
func (w *writing) commit(to int64, mark fetch.Mark, file *File) error {
	p := w.p
	if file != nil {
		p.Files = append(p.Files, *file)
	}
	p.To, p.Mark = to, markOf(mark)
	p.sum()
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := p.Partition
	kept.Files = append([]File{}, p.Files...)
	w.manifest.put(kept)
	return w.save()
}

// abandon gives up a segment that is not finished. What was read for it is read again.
func (w *writing) abandon() {
	if w.file != nil {
		_ = w.file.Close()
		_ = os.Remove(w.file.Name()) // or the next run does
	}
}

// upTo is the earliest of the times up to which the partitions are archived, by their last records; zero: there are none.
func (m *Manifest) upTo() time.Time {
	var least time.Time
	for i := range m.Partitions {
		if p := &m.Partitions[i]; p.Records > 0 && (least.IsZero() || p.LastTime.Before(least)) {
			least = p.LastTime
		}
	}
	return least
}
