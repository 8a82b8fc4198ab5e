package clickhouse

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
)

//go:embed queries/rechecks.sql
var rechecksSQL string

// A RecheckReason says why totals are to be compared with their rows.
type RecheckReason string

// The reasons for a recheck.
const (
	// RecheckRowsFound: an insert without an answer had landed, and the totals it feeds may lack its part.
	RecheckRowsFound RecheckReason = "rows_found"
	// RecheckUnknown: what became of an insert is not known.
	RecheckUnknown RecheckReason = "unknown"
	// RecheckDoubled: rows stood there twice, and the later ones were removed. The totals may count them still.
	RecheckDoubled RecheckReason = "doubled"
)

// A Recheck asks for the totals of the rows of [From, To) of a partition to be compared with the rows, and corrected.
type Recheck struct {
	Topic     string
	Partition int
	From, To  int64     // offsets, To exclusive
	NotBefore time.Time // by ClickHouse's clock, in milliseconds: nothing of the rows is under way from then on
	Reason    RecheckReason
}

// String names the recheck in logs and errors.
func (r *Recheck) String() string {
	return fmt.Sprintf("%s/%d [%d, %d) (%s)", r.Topic, r.Partition, r.From, r.To, r.Reason)
}

// QueueRecheck puts an entry into usage_rechecks, for a [tenantflow/internal/totals.Watcher] to find. The same entry
// twice is one; one that is finished stays finished.
func (s *Store) QueueRecheck(ctx context.Context, r Recheck) error {
	return s.QueueRechecks(ctx, []Recheck{r})
}

// QueueRechecks puts several entries into usage_rechecks.
func (s *Store) QueueRechecks(ctx context.Context, all []Recheck) error {
	return s.writeRechecks(ctx, all, false)
}

// FinishRecheck marks an entry as done.
func (s *Store) FinishRecheck(ctx context.Context, r Recheck) error {
	return s.writeRechecks(ctx, []Recheck{r}, true)
}

func (s *Store) writeRechecks(ctx context.Context, all []Recheck, done bool) error {
	if len(all) == 0 {
		return nil
	}
	values, args := make([]string, len(all)), make([]any, 0, 7*len(all))
	for i := range all {
		r := &all[i]
		values[i] = "(?, ?, ?, ?, ?, fromUnixTimestamp64Milli(toInt64(?), 'UTC'), ?)"
		args = append(args, r.Topic, r.Partition, r.From, r.To, string(r.Reason), r.NotBefore.UnixMilli(), done)
	}
	settings := WholeAnswers()
	maps.Copy(settings, chgo.Settings{"async_insert": 0, "insert_deduplicate": 0, "max_query_size": 64 << 20})
	ctx = chgo.Context(ctx, chgo.WithSettings(settings))
	err := s.conn.Exec(ctx, "INSERT INTO usage_rechecks (topic, partition, from_offset, to_offset, reason, not_before, done) VALUES "+strings.Join(values, ", "), args...)
	if err != nil {
		return fmt.Errorf("write %d entries of usage_rechecks, the first %s: %w", len(all), &all[0], err)
	}
	return nil
}

// PendingRechecks reads the entries of a topic that are not done, the oldest first, at most 1000. due is how many of
// them, from the beginning, may be judged by now.
func (s *Store) PendingRechecks(ctx context.Context, topic string) (pending []Recheck, due int, err error) {
	rows, err := s.conn.Query(wholeContext(ctx), rechecksSQL, topic)
	if err != nil {
		return nil, 0, fmt.Errorf("read usage_rechecks: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	for rows.Next() {
		var partition uint16
		var reason string
		var notBefore int64
		var ready bool
		r := Recheck{Topic: topic}
		if err := rows.Scan(&partition, &r.From, &r.To, &reason, &notBefore, &ready); err != nil {
			return nil, 0, fmt.Errorf("read usage_rechecks: %w", err)
		}
		r.Partition, r.Reason, r.NotBefore = int(partition), RecheckReason(reason), time.UnixMilli(notBefore)
		if ready {
			due++
		}
		pending = append(pending, r)
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("read usage_rechecks: %w", err)
	}
	return pending, due, nil
}
