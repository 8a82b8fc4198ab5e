package consumers

import (
	"context"
	"fmt"
	"slices"

	"tenantflow/sinks/clickhouse"
)

// findRows bounds one look-up in the table.
const findRows = 100_000

// dropKnown takes the events out of a batch that are stored already or stand in it twice, and publishes dead letters of
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
	var conflicts []rejectedRow
	var unresolved []int
	for _, row := range b.suspects {
		m, stored := best[row]
		first, repeated := earlier[row]
		switch {
		case stored && m.Topic == p.Topic() && m.Partition == p.ID() && m.Offset == b.block.Offset(row):
			b.block.Drop(row)
			p.usage.metrics.redelivered.Inc()
		case stored && m.Same:
			b.block.Drop(row)
			p.usage.metrics.duplicates.Inc()
		case stored:
			conflicts = append(conflicts, conflict(row, m.Offset))
		case repeated && b.block.SameContent(first, row):
			b.dropCopy(first, row)
		case repeated:
			conflicts = append(conflicts, conflict(row, b.block.Offset(first)))
		case b.unmeant[row]:
			conflicts = append(conflicts, rejectedRow{row, notMeant()})
		case b.seen[row]:
			unresolved = append(unresolved, row)
		}
	}
	moved, err := p.findMoved(ctx, b, unresolved)
	if err != nil {
		return err
	}
	return p.reject(ctx, b, append(conflicts, moved...))
}

// dropCopy takes a row out that repeats an earlier one of the batch. What becomes of that is not known yet, and the copy
// shares it.
func (b *usageBatch) dropCopy(first, row int) {
	b.block.Drop(row)
	if b.copies == nil {
		b.copies = map[int][]int{}
	}
	b.copies[first] = append(b.copies[first], row)
}

// find looks rows up in the table.
func (p *usagePartition) find(ctx context.Context, b *usageBatch, rows []int) ([]clickhouse.Match, error) {
	var all []clickhouse.Match
	for len(rows) > 0 {
		n := min(len(rows), findRows)
		matches, err := keepTrying(ctx, p, func() ([]clickhouse.Match, error) { return p.usage.store.Find(ctx, b.block, rows[:n]) })
		if err != nil {
			return nil, err
		}
		all = append(all, matches...)
		rows = rows[n:]
	}
	return all, nil
}

// earlierInBatch finds, for each suspect, the first row of the batch with the same identity, if that is another one.
func (p *usagePartition) earlierInBatch(b *usageBatch) map[int]int {
	wanted := make(map[uint64]bool, len(b.suspects))
	suspect := make(map[int]bool, len(b.suspects))
	for _, row := range b.suspects {
		wanted[b.block.Identity(row)], suspect[row] = true, true
	}
	firsts := make(map[uint64][]int, len(wanted)) // by hash: mostly one
	earlier := map[int]int{}
	for row := range b.block.Len() {
		h := b.block.Identity(row)
		if !wanted[h] {
			continue
		}
		at := slices.IndexFunc(firsts[h], func(first int) bool { return b.block.SameEvent(first, row) })
		switch {
		case at < 0:
			firsts[h] = append(firsts[h], row)
		case suspect[row]:
			earlier[row] = firsts[h][at]
		}
	}
	return earlier
}

// findMoved deals with identities that this owner has seen but that are not stored with the same company, user and
// timestamp. Either an event was stored with others of these, which is a conflict; or the one seen never got there
// (it was a conflict itself), or the filter has taken a new identity for a known one: then the row is new.
func (p *usagePartition) findMoved(ctx context.Context, b *usageBatch, rows []int) ([]rejectedRow, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	matches, err := keepTrying(ctx, p, func() ([]clickhouse.Match, error) {
		return p.usage.store.FindIdentity(ctx, p.Topic(), p.ID(), p.seenFrom, b.block, rows)
	})
	if err != nil {
		return nil, err
	}
	moved := make([]rejectedRow, 0, len(matches))
	found := make(map[int]bool, len(matches))
	for _, m := range matches {
		if !found[m.Row] {
			found[m.Row] = true
			moved = append(moved, conflict(m.Row, m.Offset))
		}
	}
	return moved, nil
}

// dropStored takes out those live rows first..last-1 that are in the table: what an insert has left there that did not
// succeed as a whole.
func (p *usagePartition) dropStored(ctx context.Context, b *usageBatch, first, last int) error {
	rows := b.live(first, last)
	matches, err := p.find(ctx, b, rows)
	if err != nil {
		return fmt.Errorf("find what the insert left: %w", err)
	}
	for _, m := range matches {
		if m.Topic == p.Topic() && m.Partition == p.ID() && m.Offset == b.block.Offset(m.Row) {
			b.block.Drop(m.Row)
			b.accepted = true
		}
	}
	return nil
}
