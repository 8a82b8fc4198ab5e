package replay

import (
	"context"
	"errors"
	"time"

	"tenantflow/events"
	"tenantflow/internal/archive"
	"tenantflow/internal/kafka"
	"tenantflow/internal/task"
)

// archiveSource is an archive of the topic's log: what the topic holds no more, and what it still holds.
type archiveSource struct{ archive *archive.Archive }

// OpenArchive opens the archive of a topic below the directory that the spec names, and compares every file with its checksum: of a
// damaged archive nothing is published. It implements OpenSource.
func OpenArchive(ctx context.Context, topic string, spec SourceSpec) (Source, error) {
	a, err := archive.Open(spec.Path, topic)
	if err == nil {
		err = a.Check(ctx, nil)
	}
	if err != nil {
		return nil, unusable(err)
	}
	return &archiveSource{a}, nil
}

// unusable makes errors fatal that come back however often it is tried.
func unusable(err error) error {
	var damaged *archive.DamagedError
	var refused *archive.RefusedError
	if errors.As(err, &damaged) || errors.As(err, &refused) {
		return &task.FatalError{Err: err}
	}
	return err
}

// Ranges implements Source: all that the archive holds.
func (s *archiveSource) Ranges(context.Context) ([]Range, error) {
	var all []Range
	for _, p := range s.archive.Manifest().Partitions {
		all = append(all, Range{p.Partition, p.From, p.To})
	}
	return all, nil
}

// Read implements Source. An archive only grows, so one that does not hold the range is not the one that was planned with.
func (s *archiveSource) Read(ctx context.Context, r Range, each func(*events.Record) error) error {
	if held := s.archive.Bounds()[r.Partition]; r.From < held.From || r.To > held.To {
		return task.Fatalf("read offsets %d to %d of partition %d from the archive in %s: it holds %d to %d. It is not the archive that was planned "+
			"with; give this process the same one, and `tenantflow task resume` the task", r.From, r.To-1, r.Partition, s.archive.Dir(), held.From, held.To-1)
	}
	return unusable(s.archive.Read(ctx, r.Partition, kafka.Range{From: r.From, To: r.To}, each))
}

// offsetAt implements timed.
func (s *archiveSource) offsetAt(ctx context.Context, r Range, at time.Time) (int64, error) {
	offset, err := s.archive.OffsetAt(ctx, r.Partition, at)
	return offset, unusable(err)
}

// Close implements Source.
func (s *archiveSource) Close() error { return nil }
