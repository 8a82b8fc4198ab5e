package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/fetch"
	"tenantflow/internal/retry"
)

// ErrEnough ends a reading early, from the function that it calls. It is no error of the reading.
var ErrEnough = errors.New("enough is read")

// ReadLog calls each for the records of r that the log of a partition holds, in order, outside of any consumer group.
// Offsets that the log does not hold, any more or yet, are passed over; what lies behind the beginning of an open
// transaction is not in the log yet. The record is valid during the call only. What is transient is tried again for as
// long as ctx lasts; an error of each ends the reading and is returned as it is, but for ErrEnough.
func ReadLog(ctx context.Context, client *kafkago.Client, topic string, partition int, r Range, each func(*events.Record) error) error {
	f := fetch.New(client, topic, partition)
	defer f.Close()
	log, err := Bounds(ctx, client, topic, partition)
	if err != nil {
		return err
	}
	return enough(readRange(ctx, f, log, r, each))
}

// enough takes ErrEnough for what it is.
func enough(err error) error {
	if errors.Is(err, ErrEnough) {
		return nil
	}
	return err
}

// readRange does what ReadLog says, with a reader of the partition, whose log holds what log says.
func readRange(ctx context.Context, f *fetch.Reader, log, r Range, each func(*events.Record) error) error {
	const usual = 2 << 10 // bytes of a record; of larger ones it takes more fetches
	delays := retry.New()
	for at := max(r.From, log.From); at < min(r.To, log.To); {
		f.MaxBytes = int(min(fetch.MaxBytes, (r.To-at)*usual))
		var eachErr error
		got, err := f.Fetch(ctx, at, 500*time.Millisecond, func(rec *events.Record) error {
			if rec.Offset >= r.To {
				return ErrEnough
			}
			if eachErr = each(rec); eachErr != nil {
				return eachErr
			}
			at = rec.Offset + 1
			return nil
		})
		switch {
		case eachErr != nil:
			return eachErr
		case errors.Is(err, ErrEnough):
			return nil
		case errors.Is(err, kafkago.OffsetOutOfRange):
			return nil // truncated while we were reading
		case err != nil && (ctx.Err() != nil || !kafkaTransient(err)):
			return err
		case err != nil:
			if delays.Wait(ctx) != nil {
				return err
			}
			continue
		}
		delays.Reset()
		if at = max(at, got.Next); at >= got.LastStable {
			return nil
		}
	}
	return nil
}

// readOffsets calls each for those records at the given offsets that the log of a partition holds, in order. Errors are ReadLog's.
func readOffsets(ctx context.Context, client *kafkago.Client, topic string, partition int, offsets []int64, each func(*events.Record) error) error {
	// What lies between two of them is read as well, if it is little: to ask for each alone takes longer.
	const near = 1000
	if len(offsets) == 0 {
		return nil
	}
	f := fetch.New(client, topic, partition)
	defer f.Close()
	log, err := Bounds(ctx, client, topic, partition)
	if err != nil {
		return err
	}
	offsets = slices.Sorted(slices.Values(offsets))
	for len(offsets) > 0 {
		n := 1
		for n < len(offsets) && offsets[n]-offsets[n-1] <= near {
			n++
		}
		run := offsets[:n]
		err := readRange(ctx, f, log, Range{From: run[0], To: run[n-1] + 1}, func(r *events.Record) error {
			if _, wanted := slices.BinarySearch(run, r.Offset); !wanted {
				return nil
			}
			return each(r)
		})
		if err != nil {
			return enough(err)
		}
		offsets = offsets[n:]
	}
	return nil
}

// Bounds reads which offsets the log of a partition holds.
func Bounds(ctx context.Context, client *kafkago.Client, topic string, partition int) (Range, error) {
	of, err := boundsOf(ctx, client, kafkago.ReadUncommitted, topic, []int{partition})
	return of[partition], err
}

// StableEnd is where what can be read of a partition ends: where its first open transaction begins, or the end of its log.
func StableEnd(ctx context.Context, client *kafkago.Client, topic string, partition int) (int64, error) {
	of, err := boundsOf(ctx, client, kafkago.ReadCommitted, topic, []int{partition})
	return of[partition].To, err
}

// Ends reads the bounds of all partitions of a topic.
func Ends(ctx context.Context, client *kafkago.Client, topic string) (map[int]Range, error) {
	meta, err := client.Metadata(ctx, &kafkago.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil, fmt.Errorf("find the partitions of %s: %w", topic, err)
	}
	var partitions []int
	for _, t := range meta.Topics {
		if t.Error != nil {
			return nil, fmt.Errorf("find the partitions of %s: %w", topic, t.Error)
		}
		for _, p := range t.Partitions {
			partitions = append(partitions, p.ID)
		}
	}
	return boundsOf(ctx, client, kafkago.ReadUncommitted, topic, partitions)
}

// boundsOf reads the bounds of some partitions. It asks for all at once: a broker that takes a while for each answer would be asked for
// too long. Without an error it has all of them. Of what is committed only, the end is where the first open transaction begins.
func boundsOf(ctx context.Context, client *kafkago.Client, isolation kafkago.IsolationLevel, topic string, partitions []int) (map[int]Range, error) {
	of := make(map[int]Range, len(partitions))
	if len(partitions) == 0 {
		return of, nil
	}
	name := topic
	if len(partitions) == 1 {
		name = fmt.Sprintf("%s/%d", topic, partitions[0])
	}
	requests := make([]kafkago.OffsetRequest, 0, 2*len(partitions))
	for _, id := range partitions {
		requests = append(requests, kafkago.FirstOffsetOf(id), kafkago.LastOffsetOf(id))
	}
	res, err := client.ListOffsets(ctx, &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{topic: requests}, IsolationLevel: isolation})
	if err != nil {
		return nil, fmt.Errorf("read the bounds of %s: %w", name, err)
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("read the bounds of %s/%d: %w", topic, p.Partition, p.Error)
		}
		of[p.Partition] = Range{From: p.FirstOffset, To: p.LastOffset}
	}
	for _, id := range partitions {
		if _, there := of[id]; !there {
			return nil, fmt.Errorf("read the bounds of %s/%d: the answer does not name it", topic, id)
		}
	}
	return of, nil
}

// A Position is what a group has committed for a partition.
type Position struct {
	Offset   int64  // everything before it has had its effects; -1: nothing is committed
	Metadata string // the handler's
	Mark     Mark   // the runtime's
}

// Committed reads what a group has committed for some partitions of a topic. A group that does not exist has committed nothing.
func Committed(ctx context.Context, client *kafkago.Client, group, topic string, partitions []int) (map[int]Position, error) {
	all, err := fetchCommitted(ctx, client, group, topic, partitions)
	if errors.Is(err, kafkago.GroupIdNotFound) { // some brokers say so, others give -1 for each partition
		all, err = make(map[int]Position, len(partitions)), nil
		for _, id := range partitions {
			all[id] = Position{Offset: -1}
		}
	}
	return all, err
}

// fetchCommitted does that for a group that exists.
func fetchCommitted(ctx context.Context, client *kafkago.Client, group, topic string, partitions []int) (map[int]Position, error) {
	res, err := client.OffsetFetch(ctx, &kafkago.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: partitions}})
	if err == nil {
		err = res.Error
	}
	all := make(map[int]Position, len(partitions))
	if err != nil {
		return nil, fmt.Errorf("read the offsets of group %s: %w", group, err)
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("read the offset of group %s in %s/%d: %w", group, topic, p.Partition, p.Error)
		}
		at := Position{Offset: p.CommittedOffset}
		at.Mark, at.Metadata = SplitMark(p.Metadata)
		all[p.Partition] = at
	}
	return all, nil
}

// Unread counts the events of each partition, up to the ends that were read before, that a group has not committed.
func Unread(ctx context.Context, client *kafkago.Client, group, topic string, ends map[int]Range) (map[int]int64, error) {
	committed, err := Committed(ctx, client, group, topic, slices.Collect(maps.Keys(ends)))
	if err != nil {
		return nil, err
	}
	unread := make(map[int]int64, len(ends))
	for id, log := range ends {
		unread[id] = max(0, log.To-max(committed[id].Offset, log.From))
	}
	return unread, nil
}

// OffsetAt is the offset of the first record of a partition that is not older than a time, or end if there is none.
func OffsetAt(ctx context.Context, client *kafkago.Client, topic string, partition int, at time.Time, end int64) (int64, error) {
	what := fmt.Sprintf("find the offset of %s in %s/%d", at.Format(time.RFC3339), topic, partition)
	res, err := client.ListOffsets(ctx, &kafkago.ListOffsetsRequest{
		Topics: map[string][]kafkago.OffsetRequest{topic: {kafkago.TimeOffsetOf(partition, at)}},
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	for _, one := range res.Topics[topic] {
		if one.Partition != partition {
			continue
		}
		if one.Error != nil {
			return 0, fmt.Errorf("%s: %w", what, one.Error)
		}
		for offset := range one.Offsets {
			if offset >= 0 {
				return offset, nil
			}
		}
		return end, nil
	}
	return 0, fmt.Errorf("%s: the answer does not name it", what)
}
