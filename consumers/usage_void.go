package consumers

import (
	"context"
	"slices"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/clickhouse"
)

// A void is taken only if the usage that it takes back is in the table. That usage stands before it in the log, perhaps in the same
// batch. So a batch with voids is inserted in two steps: first the usage, then, when it is known what became of that, the voids. Both
// name the whole range in their intents, as the inserts of a batch that is bisected do, and a range that is read again after a crash
// between them finds the usage in the table.

// holdVoids takes the voids out of what is inserted first, and returns them.
func (b *usageBatch) holdVoids() []int {
	voids := b.block.LiveVoids()
	for _, row := range voids {
		b.block.Drop(row)
	}
	return voids
}

// insertVoids inserts the voids of a batch whose usage is in the table, and makes dead letters of the others. It returns by how
// many fewer rows are stored because of that. Everything else of the batch must be stored.
func (p *usagePartition) insertVoids(ctx context.Context, b *usageBatch, r kafka.Range, voids []int) (refused int, err error) {
	if len(voids) == 0 {
		return 0, nil
	}
	taken, letters, err := p.judgeVoids(ctx, b, voids)
	if err != nil {
		return 0, err
	}
	if err := p.reject(ctx, b, letters); err != nil {
		return 0, err
	}
	b.block.Only(taken)
	if err := p.insert(ctx, b, r, 0, b.block.Len()); err != nil {
		return 0, err
	}
	return len(voids) - len(taken), nil
}

// judgeVoids finds out which voids have their usage: a row of sign 1 with the same data that was there before them. A copy that stands
// behind the usage is taken where the first one stands before it.
func (p *usagePartition) judgeVoids(ctx context.Context, b *usageBatch, voids []int) (taken []int, letters []rejectedRow, err error) {
	has, rest := make(map[int]bool, len(voids)), slices.Clone(voids)
	for _, row := range voids {
		rest = append(rest, b.copies[row]...)
	}
	for len(rest) > 0 {
		n := min(len(rest), findRows)
		matches, err := keepTrying(ctx, p, func() ([]clickhouse.Match, error) { return p.usage.store.FindVoided(ctx, b.block, rest[:n]) })
		if err != nil {
			return nil, nil, err
		}
		for _, m := range matches {
			// The table may hold usage from behind the void, of this batch or of one before a crash. The verdict does not depend on that.
			behind := m.Topic == p.Topic() && m.Partition == p.ID() && m.Offset > b.block.Offset(m.Row)
			has[m.Row] = has[m.Row] || m.Same && !behind
		}
		rest = rest[n:]
	}
	for _, row := range voids {
		same := append([]int{row}, b.copies[row]...)
		first := slices.IndexFunc(same, func(row int) bool { return has[row] })
		if first < 0 {
			letters = append(letters, unfounded(row)) // and with it its copies
			continue
		}
		taken = append(taken, same[first])
		for _, row := range same[:first] {
			letters = append(letters, unfounded(row))
		}
		if first > 0 {
			delete(b.copies, row)
			b.copies[same[first]] = same[first+1:]
		}
	}
	return taken, letters, nil
}

func unfounded(row int) rejectedRow {
	return rejectedRow{row, events.Reject(events.MalformedEnvelope,
		"no usage with the source, id and data that this %s repeats is stored from before it", events.TypeUsageVoided)}
}
