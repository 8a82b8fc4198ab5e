package verify

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/sinks/clickhouse"
)

// A position is how far the group is in one partition, and what its log holds.
type position struct {
	partition int
	committed int64 // -1: nothing
	pendingTo int64 // end of the range that a pending insert covers, from committed on; committed when there is none
	log       consumers.Range
}

// judged is the range of offsets that can be judged.
func (p *position) judged() consumers.Range {
	from := p.log.From
	return consumers.Range{From: from, To: max(from, min(p.committed, p.log.To))}
}

// positions is where the group was at one moment.
type positions struct {
	partitions []position // by number
	now        time.Time  // by ClickHouse's clock, before the positions were read
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
	ids, err := v.partitionsOf(ctx, v.cfg.Topic)
	if err != nil {
		return nil, err
	}
	res, err := v.committed(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, p := range res {
		to := p.CommittedOffset
		if _, metadata := consumers.SplitMark(p.Metadata); metadata != "" {
			in, err := clickhouse.ParseIntent(v.cfg.Topic, p.Partition, p.CommittedOffset, metadata)
			if err != nil {
				// What can't be read could mean any range.
				at.notes = append(at.notes, fmt.Sprintf("everything from the committed offset on counts as pending: %v", err))
				to = math.MaxInt64
			} else {
				to = in.To
			}
		}
		at.partitions = append(at.partitions, position{partition: p.Partition, committed: p.CommittedOffset, pendingTo: to})
	}
	slices.SortFunc(at.partitions, func(a, b position) int { return a.partition - b.partition })
	for i := range at.partitions {
		p := &at.partitions[i]
		if p.log, err = consumers.Bounds(ctx, v.cfg.Client, v.cfg.Topic, p.partition); err != nil {
			return nil, err
		}
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

// partitionsOf lists the partitions of a topic.
func (v *Verifier) partitionsOf(ctx context.Context, topic string) ([]int, error) {
	meta, err := v.cfg.Client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil, fmt.Errorf("read the partitions of topic %s: %w", topic, err)
	}
	var ids []int
	for _, t := range meta.Topics {
		if t.Name != topic {
			continue
		}
		if errors.Is(t.Error, kafka.UnknownTopicOrPartition) {
			return nil, fmt.Errorf("read the partitions of topic %s: %w", topic, ErrNotThere)
		}
		if t.Error != nil {
			return nil, fmt.Errorf("read the partitions of topic %s: %w", topic, t.Error)
		}
		for _, p := range t.Partitions {
			ids = append(ids, p.ID)
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("read the partitions of topic %s: %w", topic, ErrNotThere)
	}
	slices.Sort(ids)
	return ids, nil
}

// committed reads the group's offsets. A coordinator that is only just taking over is asked again for a while.
func (v *Verifier) committed(ctx context.Context, ids []int) ([]kafka.OffsetFetchPartition, error) {
	fetch := func() ([]kafka.OffsetFetchPartition, error) {
		res, err := v.cfg.Client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: v.cfg.Group, Topics: map[string][]int{v.cfg.Topic: ids}})
		if err == nil {
			err = res.Error
		}
		if errors.Is(err, kafka.GroupIdNotFound) { // some brokers say so, others give -1 for each partition
			none := make([]kafka.OffsetFetchPartition, len(ids))
			for i, id := range ids {
				none[i] = kafka.OffsetFetchPartition{Partition: id, CommittedOffset: -1}
			}
			return none, nil
		}
		if err != nil {
			return nil, err
		}
		got := res.Topics[v.cfg.Topic]
		for _, p := range got {
			if p.Error != nil {
				return nil, p.Error
			}
		}
		if len(got) != len(ids) {
			return nil, fmt.Errorf("the answer names %d of %d partitions", len(got), len(ids))
		}
		return got, nil
	}
	const patience, step = 30 * time.Second, 200 * time.Millisecond
	give, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		got, err := fetch()
		var code kafka.Error
		if err == nil {
			return got, nil
		}
		if !errors.As(err, &code) || !code.Temporary() || wait(give, step) != nil {
			return nil, fmt.Errorf("read what group %s has committed of %s: %w", v.cfg.Group, v.cfg.Topic, err)
		}
	}
}

// wait waits for d, or for ctx.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pending is the SQL condition that a row belongs to an insert whose outcome is not settled: its place lies in the
// range of a pending intent.
func (at *positions) pending(topic string) (condition string, args []any) {
	var ranges []string
	for _, p := range at.partitions {
		if p.pendingTo > p.committed {
			ranges = append(ranges, "_partition = ? AND _offset >= ? AND _offset < ?")
			args = append(args, p.partition, p.committed, p.pendingTo)
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
		ids, starts, committed = append(ids, p.partition), append(starts, p.log.From), append(committed, max(0, p.committed))
	}
	rows, err := v.conn.Query(ctx, `
SELECT toString(_topic), _partition, count(),
       countIf(_offset < transform(toInt64(_partition), ?, ?, toInt64(0))),
       countIf(_offset >= transform(toInt64(_partition), ?, ?, toInt64(0))),
       max(_offset)
FROM usage_tracking GROUP BY _topic, _partition`, int64s(ids), starts, int64s(ids), committed)
	if err != nil {
		return nil, 0, fmt.Errorf("count the rows by partition: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	byPartition = map[int]stored{}
	for rows.Next() {
		var topic string
		var partition uint16
		var s stored
		if err := rows.Scan(&topic, &partition, &s.rows, &s.before, &s.after, &s.newest); err != nil {
			return nil, 0, fmt.Errorf("count the rows by partition: %w", err)
		}
		if topic != v.cfg.Topic {
			other += s.rows
			continue
		}
		byPartition[int(partition)] = s
	}
	return byPartition, other, rows.Err()
}

func int64s(in []int) []int64 {
	out := make([]int64, len(in))
	for i, n := range in {
		out[i] = int64(n)
	}
	return out
}
