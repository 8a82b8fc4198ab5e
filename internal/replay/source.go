package replay

import (
	"context"
	"fmt"

	"tenantflow/events"
)

// A Source is where the records of a replay come from: the log of the topic itself, an archive of it, or a file of events.
// It holds the records of one topic by partition and offset.
type Source interface {
	// Ranges lists what the source holds, in the order of the partitions, at most one range for each. It is asked once, when
	// the task is made.
	Ranges(ctx context.Context) ([]Range, error)

	// Read calls each for the records of r that the source holds, in the order of their offsets. A record's topic, partition,
	// offset, time, key, value and headers are those that it had in the log, byte for byte; where it never was in one,
	// Partition is AnyPartition and Offset its place in the source. Offsets that never were records (transaction markers, what
	// compaction has taken) are passed over. The record is valid during the call only; an error of each ends the reading and is
	// returned as it is. The same range, read again, gives the same records.
	//
	// Errors: a *GoneError where the next records were there and are deleted, a *task.FatalError where reading again would not help
	// (a damaged archive, or one that does not hold the range), anything else is transient.
	Read(ctx context.Context, r Range, each func(*events.Record) error) error

	// Close closes what is open.
	Close() error
}

// A GoneError says that retention has deleted records of a range before they were read: those with offsets [From, To). What is behind
// them can still be read.
type GoneError struct{ From, To int64 }

func (e *GoneError) Error() string {
	return fmt.Sprintf("retention has deleted the records from offset %d to %d", e.From, e.To-1)
}

// AnyPartition is the partition of records that were never in the log: their key decides where they go.
const AnyPartition = -1

// A Range is the offsets [From, To) of a partition.
type Range struct {
	Partition int   `json:"partition"`
	From      int64 `json:"from"`
	To        int64 `json:"to"`
}

// Len is how many offsets the range has.
func (r Range) Len() int64 { return max(0, r.To-r.From) }

// A SourceSpec names a source in the spec of a task, so that another process finds it again.
type SourceSpec struct {
	Kind string `json:"kind"`           // SourceKafka, SourceArchive or SourceFile
	Path string `json:"path,omitempty"` // of an archive or a file, as the process that works on the task sees it
}

// The kinds of sources.
const (
	SourceKafka   = "kafka"
	SourceArchive = "archive"
	SourceFile    = "file"
)

// An OpenSource opens a source of the topic, which is given with its prefix. Errors are those of [Source.Read].
type OpenSource func(ctx context.Context, topic string, spec SourceSpec) (Source, error)
