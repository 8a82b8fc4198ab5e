package consumers

import (
	"context"
	"fmt"
	"slices"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/clickhouse"
)

// A rejectedRow is a row of a batch that becomes a dead letter.
type rejectedRow struct {
	row       int
	rejection *events.Rejection
}

// conflict rejects a row that carries the identity of an event that came before it, with other data.
func conflict(row int, first int64) rejectedRow {
	return rejectedRow{row, events.Reject(events.Conflict,
		"an event with the same source and id and other data came before it, at offset %d; a resend must repeat the data, a new event needs a new id", first)}
}

// letterChunk is how many bytes of dead letters are gathered before they are published. They are read from the log once
// more, so that the batch need not hold the bytes of events that may yet be rejected.
const letterChunk = 1 << 20

// reject publishes dead letters of rows and takes them out, with the copies that share their fate. The records are read
// from the log in one go, however many there are, and published a chunk at a time.
func (p *usagePartition) reject(ctx context.Context, b *usageBatch, rejected []rejectedRow) error {
	if len(rejected) == 0 {
		return nil
	}
	letters := make(map[int64]*events.Rejection, len(rejected))
	for _, r := range rejected {
		for _, row := range append([]int{r.row}, b.copies[r.row]...) {
			letters[b.block.Offset(row)] = r.rejection
			b.block.Drop(row)
		}
		delete(b.copies, r.row)
	}
	var chunk []kafka.DeadLetter
	var size int64
	flush := func() error {
		err := p.DeadLetter(ctx, chunk)
		chunk, size = chunk[:0], 0
		p.Waiting(nil) // many letters take a while; this is progress
		return err
	}
	add := func(r events.Record) error {
		chunk = append(chunk, kafka.DeadLetter{Record: r, Rejection: letters[r.Offset], Attempts: 1})
		size += kafka.RecordBytes(&r)
		delete(letters, r.Offset)
		if size < letterChunk {
			return nil
		}
		return flush()
	}
	offsets := make([]int64, 0, len(letters))
	for offset := range letters {
		offsets = append(offsets, offset)
	}
	if err := p.ReadOffsets(ctx, offsets, func(r *events.Record) error { return add(kafka.CopyRecord(r)) }); err != nil {
		return fmt.Errorf("read the records of %d dead letters: %w", len(offsets), err)
	}
	// Retention was faster. The place in the log is all that is left of these.
	slices.Sort(offsets)
	for _, offset := range offsets {
		if letters[offset] == nil {
			continue
		}
		if err := add(events.Record{Topic: p.Topic(), Partition: p.ID(), Offset: offset}); err != nil {
			return err
		}
	}
	return flush()
}

// isolate narrows down which rows the store refuses, by halves.
func (p *usagePartition) isolate(ctx context.Context, b *usageBatch, r kafka.Range, first, last int, cause error) error {
	live := b.live(first, last)
	switch len(live) {
	case 0:
		return nil
	case 1:
		return p.refuse(ctx, b, r, live[0], cause)
	}
	half := live[len(live)/2]
	if err := p.insert(ctx, b, r, first, half); err != nil {
		return err
	}
	return p.insert(ctx, b, r, half, last)
}

// refusalsToStop is how many rows the store may refuse one after the other, and accept none, before it is asked whether it
// refuses all.
const refusalsToStop = 100

// refuse takes a row out that the store refuses. It becomes a dead letter when the rest of the batch is stored: only then
// is it known that it is the row that is at fault, and not the table.
func (p *usagePartition) refuse(ctx context.Context, b *usageBatch, r kafka.Range, row int, cause error) error {
	b.block.Drop(row)
	b.refused = append(b.refused, rejectedRow{row, events.Reject(events.RejectedByStore, "ClickHouse refuses the row: %s", clickhouse.Refusal(cause))})
	p.refused++
	if b.accepted || b.probed || p.refused < refusalsToStop {
		return nil
	}
	b.probed = true
	return p.probe(ctx, b, r, cause)
}

// probe asks the store about a few rows from all over the rest of the batch. If it refuses each of them, too, it refuses
// everything, and the partition stops before the topic is emptied into the dead letters. One company's bad rows may be
// many, and side by side; those of others among them are accepted.
func (p *usagePartition) probe(ctx context.Context, b *usageBatch, r kafka.Range, cause error) error {
	const samples = 16
	live := b.live(0, b.block.Len())
	for i := range min(samples, len(live)) {
		row := live[i*len(live)/min(samples, len(live))]
		if err := p.insert(ctx, b, r, row, row+1); err != nil {
			return err
		}
		if b.accepted {
			b.block.Drop(row) // it is in the table
			return nil
		}
	}
	return p.refusesAll(cause)
}

func (p *usagePartition) refusesAll(cause error) error {
	return &kafka.StopError{Kind: "rejected_by_store", Err: fmt.Errorf("ClickHouse has refused the last %d rows of %s/%d and accepted none: a constraint, a view or a column of usage_tracking "+
		"must have changed. The partition is stopped, and its events stay in the log. Correct the table, then restart the service. The last refusal: %w",
		p.refused, p.Topic(), p.ID(), cause)}
}

// rejectRefused publishes the dead letters of the rows that the store has refused while it took others, or that are few.
func (p *usagePartition) rejectRefused(ctx context.Context, b *usageBatch) error {
	if len(b.refused) == 0 {
		return nil
	}
	if !b.accepted && p.refused >= refusalsToStop {
		return p.refusesAll(b.refused[len(b.refused)-1].rejection)
	}
	return p.reject(ctx, b, b.refused)
}
