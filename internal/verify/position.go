package verify

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tenantflow/internal/kafka"
	"tenantflow/internal/totals"
)

// A position is how far the group is in one partition, and what its log holds.
type position struct {
	totals.Position
	log  kafka.Range
	from int64 // the first offset that is judged
}

// judged is the range of offsets that can be judged.
func (p *position) judged() kafka.Range {
	from := max(p.from, p.log.From)
	return kafka.Range{From: from, To: max(from, min(p.Committed, p.log.To))}
}

// positions is where the group was at one moment.
type positions struct {
	partitions []position // by number
	now        time.Time  // by ClickHouse's clock, before the positions were read
	booked     time.Time  // by Postgres' clock, likewise
	notes      []string
}

// positions reads the committed offsets. It comes before everything else is read: whatever they cover has had its
// effects, and those can be seen from now on.
func (v *Verifier) positions(ctx context.Context) (*positions, error) {
	at := &positions{}
	var err error
	if at.now, err = v.serverNow(ctx); err != nil {
		return nil, err
	}
	if v.cfg.Tenants != nil {
		if at.booked, err = v.cfg.Tenants.Now(ctx); err != nil {
			return nil, err
		}
	}
	all, notes, err := totals.ReadPositions(ctx, v.cfg.Client, v.cfg.Group, v.cfg.Topic)
	if err != nil {
		return nil, err
	}
	at.notes = notes
	for _, p := range all {
		log, err := kafka.Bounds(ctx, v.cfg.Client, v.cfg.Topic, p.Partition)
		if err != nil {
			return nil, err
		}
		from, err := v.begins(ctx, v.cfg.Topic, p.Partition, log, 0)
		if err != nil {
			return nil, err
		}
		at.partitions = append(at.partitions, position{Position: p, log: log, from: from})
	}
	return at, nil
}

// serverNow reads ClickHouse's clock.
func (v *Verifier) serverNow(ctx context.Context) (time.Time, error) {
	var ms int64
	if err := v.conn.QueryRow(ctx, "SELECT toUnixTimestamp64Milli(now64(3))").Scan(&ms); err != nil {
		return time.Time{}, fmt.Errorf("read ClickHouse's clock: %w", err)
	}
	return time.UnixMilli(ms), nil
}

// pending is the SQL condition that a row belongs to an insert whose outcome is not settled: its place lies in the
// range of a pending intent.
func (at *positions) pending(topic string) (condition string, args []any) {
	var ranges []string
	for _, p := range at.partitions {
		if p.PendingTo > p.Committed {
			ranges = append(ranges, "_partition = ? AND _offset >= ? AND _offset < ?")
			args = append(args, p.Partition, p.Committed, p.PendingTo)
		}
	}
	if len(ranges) == 0 {
		return "0", nil
	}
	return "(_topic = ? AND (" + strings.Join(ranges, " OR ") + "))", append([]any{topic}, args...)
}

// stored is what the table holds of one partition.
type stored struct {
	rows, before, after uint64
	newest              int64 // the largest offset
}

// storedRows counts the rows by partition, and those of other topics.
func (v *Verifier) storedRows(ctx context.Context, at *positions) (byPartition map[int]stored, other uint64, err error) {
	ids, starts, committed := make([]int, 0), make([]int64, 0), make([]int64, 0)
	for _, p := range at.partitions {
		ids, starts, committed = append(ids, p.Partition), append(starts, p.log.From), append(committed, max(0, p.Committed))
	}
	answer, err := totals.Ask(ctx, v.conn, statement("stored", nil), totals.End{Row: "'', toUInt16(0), toUInt64(0), toUInt64(0), toUInt64(0), toInt64(0)"},
		int64s(ids), starts, committed)
	if err != nil {
		return nil, 0, fmt.Errorf("count the rows by partition: %w", err)
	}
	byPartition = map[int]stored{}
	for {
		var topic string
		var partition uint16
		var s stored
		if !answer.Next(&topic, &partition, &s.rows, &s.before, &s.after, &s.newest) {
			break
		}
		if topic != v.cfg.Topic {
			other += s.rows
			continue
		}
		byPartition[int(partition)] = s
	}
	if err := answer.Close(); err != nil {
		return nil, 0, fmt.Errorf("count the rows by partition: %w", err)
	}
	return byPartition, other, nil
}

func int64s(in []int) []int64 {
	out := make([]int64, len(in))
	for i, n := range in {
		out[i] = int64(n)
	}
	return out
}
