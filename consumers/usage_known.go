package consumers

import (
	"context"
	"fmt"

	"tenantflow/events"
	"tenantflow/sinks/clickhouse"
)

// findRows bounds one look-up in the table.
const findRows = 100_000

// dropKnown takes the events out of a batch that are stored already or stand in it twice, and makes dead letters of
// those that carry a known identity with other data. Only the suspects can be either. It runs when everything before
// the batch is in the table.
func (p *usagePartition) dropKnown(ctx context.Context, b *usageBatch) error {
	if len(b.suspects) == 0 {
		return nil
	}
	p.usage.metrics.checked.Add(float64(len(b.suspects)))
	matches, err := p.find(ctx, b, b.suspects)
	if err != nil {
		return err
	}
	best := map[int]clickhouse.Match{} // by row; the same content before other content
	for _, m := range matches {
		if known, ok := best[m.Row]; !ok || m.Same && !known.Same {
			best[m.Row] = m
		}
	}
	earlier := p.earlierInBatch(b)
	var unresolved []int
	for _, row := range b.suspects {
		if m, ok := best[row]; ok {
			if err := p.known(ctx, b, row, m); err != nil {
				return err
			}
			continue
		}
		if first, ok := earlier[row]; ok {
			if b.block.SameContent(first, row) {
				b.block.Drop(row)
				p.usage.metrics.duplicates.Inc()
			} else if err := p.conflict(ctx, b, row, b.block.Offset(first)); err != nil {
				return err
			}
			continue
		}
		if b.seen[row] {
			unresolved = append(unresolved, row)
		}
	}
	return p.dropMoved(ctx, b, unresolved)
}

// find looks rows up in the table.
func (p *usagePartition) find(ctx context.Context, b *usageBatch, rows []int) ([]clickhouse.Match, error) {
	var all []clickhouse.Match
	for len(rows) > 0 {
		n := min(len(rows), findRows)
		matches, err := retry(ctx, p, func() ([]clickhouse.Match, error) { return p.usage.store.Find(ctx, b.block, rows[:n]) })
		if err != nil {
			return nil, err
		}
		all = append(all, matches...)
		rows = rows[n:]
	}
	return all, nil
}

// known deals with a row whose identity, company, user and timestamp are stored.
func (p *usagePartition) known(ctx context.Context, b *usageBatch, row int, m clickhouse.Match) error {
	switch {
	case m.Topic == p.Topic() && m.Partition == p.ID() && m.Offset == b.block.Offset(row):
		p.usage.metrics.redelivered.Inc()
	case m.Same:
		p.usage.metrics.duplicates.Inc()
	default:
		return p.conflict(ctx, b, row, m.Offset)
	}
	b.block.Drop(row)
	return nil
}

// earlierInBatch finds, for each suspect, the first row of the batch with the same identity, if that is another one.
func (p *usagePartition) earlierInBatch(b *usageBatch) map[int]int {
	wanted := make(map[uint64][]int, len(b.suspects))
	for _, row := range b.suspects {
		h := b.block.Identity(row)
		wanted[h] = append(wanted[h], row)
	}
	earlier := map[int]int{}
	for i := range b.block.Len() {
		for _, row := range wanted[b.block.Identity(i)] {
			if _, ok := earlier[row]; !ok && i < row && b.block.SameEvent(i, row) {
				earlier[row] = i
			}
		}
	}
	return earlier
}

// dropMoved deals with identities that this owner has seen but that are not stored with the same company, user and
// timestamp. Either an event was stored with others of these, which is a conflict; or the one seen never got there
// (it was a conflict itself), or the filter has taken a new identity for a known one: then the row is new.
func (p *usagePartition) dropMoved(ctx context.Context, b *usageBatch, rows []int) error {
	if len(rows) == 0 {
		return nil
	}
	matches, err := retry(ctx, p, func() ([]clickhouse.Match, error) {
		return p.usage.store.FindIdentity(ctx, p.Topic(), p.ID(), p.seenFrom, b.block, rows)
	})
	if err != nil {
		return err
	}
	for _, m := range matches {
		if !b.block.Dropped(m.Row) {
			if err := p.conflict(ctx, b, m.Row, m.Offset); err != nil {
				return err
			}
		}
	}
	return nil
}

// conflict makes a dead letter of a row. The record is read once more.
func (p *usagePartition) conflict(ctx context.Context, b *usageBatch, row int, first int64) error {
	record, err := p.reread(ctx, b, row)
	if err != nil {
		return err
	}
	b.letters = append(b.letters, DeadLetter{Record: record, Attempts: 1, Rejection: events.Reject(events.Conflict,
		"an event with the same source and id and other data is stored, from offset %d; a resend must repeat the data, a new event needs a new id", first)})
	b.block.Drop(row)
	return nil
}

// dropStored takes out those live rows first..last-1 that are in the table: what an insert has left there that did not
// succeed as a whole.
func (p *usagePartition) dropStored(ctx context.Context, b *usageBatch, first, last int) error {
	var rows []int
	for i := first; i < last; i++ {
		if !b.block.Dropped(i) {
			rows = append(rows, i)
		}
	}
	matches, err := p.find(ctx, b, rows)
	if err != nil {
		return fmt.Errorf("find what the insert left: %w", err)
	}
	for _, m := range matches {
		if m.Topic == p.Topic() && m.Partition == p.ID() && m.Offset == b.block.Offset(m.Row) {
			b.block.Drop(m.Row)
		}
	}
	return nil
}
