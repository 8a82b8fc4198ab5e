package kafka

import (
	"context"
	"fmt"
	"slices"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"tenantflow/internal/fetch"
)

// A Behind reads from the brokers alone how far a consumer group is behind in a topic, whichever processes its members are. It is
// for one goroutine. Close it.
type Behind struct {
	Client       *kafkago.Client
	Group, Topic string

	readers map[int]*fetch.Reader
	oldest  map[int]oldest
}

// oldest is when the first record at or behind an offset was appended. A log does not change, so it need not be asked again.
type oldest struct {
	from int64
	at   time.Time
}

// A Gap is how far a group is behind in one partition.
type Gap struct {
	Partition int
	Committed int64     // everything before it has had its effects; -1: nothing is committed
	End       int64     // of the log
	Records   int64     // between the two, and in the log
	Oldest    time.Time // when the oldest of them was appended, by the broker's clock; zero: there is none, or it is not known

	from int64 // where they begin
}

// StoredUntil returns a time before which everything that was appended to the partition has had its effects; where nothing waits that is at, a time before the
// look. It is not known of another log than the one that was committed of, where the log no longer has what was to be read next, and where the time of
// what waits is not known.
func (g *Gap) StoredUntil(at time.Time) (until time.Time, known bool) {
	switch {
	case g.Committed > g.End, g.Committed >= 0 && g.Committed < g.End-g.Records, g.Records > 0 && g.Oldest.IsZero():
		return time.Time{}, false
	case g.Records > 0 && g.Oldest.Before(at):
		return g.Oldest, true
	}
	return at, true
}

// Look returns the gaps of all partitions, in their order. It asks for the ends of the log first, so a group that keeps up may
// be shown further than it is, but not behind. The error is kafkago.UnknownTopicOrPartition where there is no such topic.
func (b *Behind) Look(ctx context.Context) ([]Gap, error) {
	ends, err := Ends(ctx, b.Client, b.Topic)
	if err != nil {
		return nil, err
	}
	gaps := make([]Gap, 0, len(ends))
	ids := make([]int, 0, len(ends))
	for id, log := range ends {
		gaps, ids = append(gaps, Gap{Partition: id, End: log.To}), append(ids, id)
	}
	slices.SortFunc(gaps, func(a, b Gap) int { return a.Partition - b.Partition })
	committed, err := Committed(ctx, b.Client, b.Group, b.Topic, ids)
	if err != nil {
		return nil, err
	}
	var looks errgroup.Group
	looks.SetLimit(looksAtOnce)
	for i := range gaps {
		g := &gaps[i]
		g.Committed = committed[g.Partition].Offset
		g.from = max(g.Committed, ends[g.Partition].From)
		g.Records = max(0, g.End-g.from)
		if g.Records == 0 {
			continue
		}
		if known, ok := b.oldest[g.Partition]; ok && known.from == g.from {
			g.Oldest = known.at
			continue
		}
		reader := b.reader(g.Partition)
		looks.Go(func() error {
			if seen, err := firstRecord(ctx, reader, g.from); err == nil && seen.found {
				g.Oldest = seen.at
			}
			return nil // how many they are is known all the same
		})
	}
	_ = looks.Wait() // never an error
	for i := range gaps {
		if g := &gaps[i]; !g.Oldest.IsZero() {
			b.oldest[g.Partition] = oldest{g.from, g.Oldest}
		}
	}
	return gaps, ctx.Err()
}

// StoredUntil looks, and returns a time before which everything that was appended to the topic has had its effects; where nothing waits, that is the time
// of the look, by this process's clock. The error says of which partition it is not known.
func (b *Behind) StoredUntil(ctx context.Context) (time.Time, error) {
	until := time.Now()
	gaps, err := b.Look(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask how far %s is stored: %w", b.Topic, err)
	}
	for i := range gaps {
		var known bool
		if until, known = gaps[i].StoredUntil(until); !known {
			return time.Time{}, fmt.Errorf("it is not known how far partition %d of %s is stored", gaps[i].Partition, b.Topic)
		}
	}
	return until, nil
}

func (b *Behind) reader(partition int) *fetch.Reader {
	if b.readers == nil {
		b.readers, b.oldest = map[int]*fetch.Reader{}, map[int]oldest{}
	}
	r := b.readers[partition]
	if r == nil {
		r = fetch.New(b.Client, b.Topic, partition)
		b.readers[partition] = r
	}
	return r
}

// Close closes the connections.
func (b *Behind) Close() {
	for _, r := range b.readers {
		r.Close()
	}
	b.readers, b.oldest = nil, nil
}
