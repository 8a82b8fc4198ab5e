package clickhouse

import (
	"context"
	_ "embed"
	"fmt"
	"time"
)

var (
	//go:embed queries/announce.sql
	announceSQL string
	//go:embed queries/writers.sql
	writersSQL string
)

// A Writer announces a process that writes to usage_tracking.
type Writer struct {
	Topic      string        // where its rows come from
	Partitions int           // how many the topic has
	Group      string        // its consumer group
	ID         string        // of the process; random
	First      time.Time     // when it was first announced, by the server's clock; zero: now
	Lease      time.Duration // for how long others are believed after they were last seen
	Gone       bool          // it stops writing
}

// Writers is what is known of all writers, by the server's clock. Times are zero where there is none.
type Writers struct {
	First      time.Time // when the asking process was first announced
	FirstSeen  time.Time // when a writer with the same topic and number of partitions was first seen
	OthersSeen time.Time // when a writer with another topic or number of partitions was last seen

	// OtherTopics says that there is a writer of another topic whose lease lasts.
	OtherTopics bool

	// Rival is another consumer group that was announced for the same topic before the asking one, and whose lease lasts;
	// empty: there is none. RivalSeen is when it was last seen.
	Rival     string
	RivalSeen time.Time
}

// Announce writes an announcement and then reads those of all. Of two rivals that announce themselves at the same time,
// at least the later one sees the other.
func (s *Store) Announce(ctx context.Context, w Writer) (Writers, error) {
	fail := func(err error) (Writers, error) {
		return Writers{}, fmt.Errorf("announce that %s writes to usage_tracking from %s: %w", w.Group, w.Topic, err)
	}
	first := int64(0)
	if !w.First.IsZero() {
		first = w.First.UnixMilli()
	}
	ctx = wholeContext(ctx)
	if err := s.sweepReopened(ctx); err != nil {
		return fail(err)
	}
	err := s.conn.Exec(ctx, announceSQL, w.Topic, w.Partitions, w.Group, w.ID, first, w.Gone)
	if err != nil {
		return fail(err)
	}
	began := time.Now()
	var own, same, others, ours, theirs, rivalSeen, now int64
	var rival string
	var otherTopics bool
	err = s.conn.QueryRow(ctx, writersSQL, w.ID, w.Topic, w.Partitions, w.Group, w.Lease.Milliseconds()).
		Scan(&own, &same, &others, &otherTopics, &ours, &rival, &theirs, &rivalSeen, &now)
	if err != nil {
		return fail(err)
	}
	s.observe(ctx, began, time.UnixMilli(now))
	known := Writers{First: atMilli(own), FirstSeen: atMilli(same), OthersSeen: atMilli(others), OtherTopics: otherTopics}
	if rival != "" && (theirs < ours || theirs == ours && rival < w.Group) {
		known.Rival, known.RivalSeen = rival, atMilli(rivalSeen)
	}
	return known, nil
}

// atMilli is the time of milliseconds since the epoch; zero for 0.
func atMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
