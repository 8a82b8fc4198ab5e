package totals

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/kafka"
	"tenantflow/internal/retry"
	"tenantflow/sinks/clickhouse"
)

// A Position is how far the group is in one partition.
type Position struct {
	Partition int
	Committed int64 // -1: nothing
	PendingTo int64 // end of the range that a pending insert covers, from Committed on; Committed when there is none
}

// ReadPositions reads what a group has committed of a topic, in the order of the partitions. Whatever the positions
// cover has had its effects by then. Notes say what of the metadata could not be understood.
func ReadPositions(ctx context.Context, client *kafkago.Client, group, topic string) (positions []Position, notes []string, err error) {
	ids, err := PartitionsOf(ctx, client, topic)
	if err != nil {
		return nil, nil, err
	}
	all, err := committed(ctx, client, group, topic, ids)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		p := all[id]
		to := p.Offset
		if p.Metadata != "" {
			in, err := clickhouse.ParseIntent(topic, id, p.Offset, p.Metadata)
			if err != nil {
				// What can't be read could mean any range.
				notes = append(notes, fmt.Sprintf("everything from the committed offset on counts as pending: %v", err))
				to = math.MaxInt64
			} else {
				to = in.To
			}
		}
		positions = append(positions, Position{Partition: id, Committed: p.Offset, PendingTo: to})
	}
	return positions, notes, nil
}

// PartitionsOf lists the partitions of a topic. The error is ErrNotThere when there is no such topic.
func PartitionsOf(ctx context.Context, client *kafkago.Client, topic string) ([]int, error) {
	meta, err := client.Metadata(ctx, &kafkago.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil, fmt.Errorf("read the partitions of topic %s: %w", topic, err)
	}
	var ids []int
	for _, t := range meta.Topics {
		if t.Name != topic {
			continue
		}
		if errors.Is(t.Error, kafkago.UnknownTopicOrPartition) {
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
func committed(ctx context.Context, client *kafkago.Client, group, topic string, ids []int) (all map[int]kafka.Position, err error) {
	const patience = 30 * time.Second
	trying, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = retry.Do(trying, func() error {
		if all, err = kafka.Committed(ctx, client, group, topic, ids); err == nil && len(all) != len(ids) {
			return fmt.Errorf("read what group %s has committed of %s: the answer names %d of %d partitions", group, topic, len(all), len(ids))
		}
		return err
	}, func(err error) error {
		if code := kafkago.Error(0); errors.As(err, &code) && code.Temporary() {
			return nil
		}
		return err
	})
	return all, err
}

// moved reports whether the group has gone on in a partition between two readings.
func moved(before, after []Position, partition uint16) bool {
	at := func(all []Position) Position {
		if i := slices.IndexFunc(all, func(p Position) bool { return p.Partition == int(partition) }); i >= 0 {
			return all[i]
		}
		return Position{Partition: -1}
	}
	return at(before) != at(after)
}

// underWay are SQL expressions over a row: whether its place lies in the range of a pending insert, and whether it lies
// behind all that was committed or pending: then its insert began after the positions were read, or offsets were set back.
func underWay(topic string, positions []Position) (pending, beyond string, args []any) {
	ids, from, to := make([]int64, 0), make([]int64, 0), make([]int64, 0)
	for _, p := range positions {
		if p.Committed < 0 {
			continue // the group has begun nothing here
		}
		ids, from, to = append(ids, int64(p.Partition)), append(from, p.Committed), append(to, max(p.Committed, p.PendingTo))
	}
	if len(ids) == 0 {
		return "0", "0", nil
	}
	const never = "toInt64(9223372036854775807)"
	at := "_offset >= transform(toInt64(_partition), CAST(?, 'Array(Int64)'), CAST(?, 'Array(Int64)'), " + never + ")"
	behind := "(_topic = ? AND " + at + ")"
	return "(_topic = ? AND " + at + " AND NOT " + behind + ")", behind, []any{topic, ids, from, topic, ids, to, topic, ids, to}
}
