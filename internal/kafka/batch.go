package kafka

import (
	"context"
	"fmt"

	"tenantflow/events"
)

// A BatchHandler consumes a topic in batches. Each batch is one contiguous range of offsets of one partition; at most
// one of a partition is being written, while the next is being formed.
type BatchHandler interface {
	// Open is called when a partition was assigned to this member, before its first record is read. It settles
	// what an earlier owner may have left half done, as the committed metadata says. Reading begins at p.Offset().
	Open(ctx context.Context, p *Partition) (BatchPartition, error)
}

// A BatchPartition is one partition in the hands of its handler, for as long as it is assigned.
type BatchPartition interface {
	// Begin returns an empty batch.
	Begin() Batch
}

// An Idler is a BatchPartition that wants to be asked about once a second, while there is nothing to write, to look after
// what it has in its store. An error ends the session, as one of Write does. It is never called beside Write.
type Idler interface {
	Idle(ctx context.Context) error
}

// An Annotator is a BatchPartition that has metadata committed with every offset, of at most 4096 bytes. It is called between
// two calls of Write. It is not called Metadata, which a handler's partition has from Partition: what was committed before.
type Annotator interface {
	Annotation() string
}

// A Closer is a BatchPartition that holds something. It is called when nothing else is called any more, with what is left of
// the time to drain. A BatchHandler may be one, too: it is closed when the member has left its group.
type Closer interface {
	Close(ctx context.Context)
}

// A Batch gathers the records of a range while they are read, and brings them into the stores.
type Batch interface {
	// Add takes the next record and copies what it keeps. What can't be understood is kept as well, as a dead
	// letter to be written with the batch.
	Add(r *events.Record)

	// Close does what Add has put off. It is called before the batch is handed over, by the goroutine that adds; if
	// no writer is free to take the batch, more may be added and Close called again.
	Close()

	// Rows is what counts towards the largest batch.
	Rows() int

	// Bytes is the memory held, which counts towards the budget.
	Bytes() int64

	// Write brings all effects of the batch, which is the range r and nothing else, into the stores. When it
	// returns nil they are durable, and r.To may be committed. It waits out what is transient. It may itself
	// commit offsets of the range, with metadata, if everything before them is durable.
	//
	// It is never called for two batches of a partition at once, and the batches come in the order of their offsets.
	Write(ctx context.Context, r Range) error

	// Release gives the batch's memory back, written or not. Nothing is called on the batch afterwards.
	Release()
}

// A Range is the offsets [From, To) of a partition.
type Range struct {
	From, To int64
}

func (r Range) String() string { return fmt.Sprintf("[%d, %d)", r.From, r.To) }
