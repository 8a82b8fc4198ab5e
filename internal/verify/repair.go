package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/totals"
	"tenantflow/sinks/clickhouse"
)

// repair mends what a check has found. Rows come first: which ones there are decides what the totals must be.
func (v *Verifier) repair(ctx context.Context, t *todo, removed totals.Sums) (Repairs, error) {
	var mended Repairs
	wrong := t.totals
	if len(t.doubles) > 0 {
		if err := v.removeDoubles(ctx, t.doubles, &mended, removed); err != nil {
			return mended, err
		}
		if mended.RowsRemoved > 0 {
			compared, err := v.compareTotals(ctx, t.at)
			if err != nil {
				return mended, err
			}
			wrong = compared.Wrong
			t.why.Explained.Replace(removed)
		}
	}
	published, err := v.publishConfigs(ctx, t.configs)
	if err != nil {
		return mended, err
	}
	mended.Configs = published
	if mended.Results, err = v.publishResults(ctx, t.results); err != nil {
		return mended, err
	}
	if err := v.repairCounters(ctx, t.counters, &mended); err != nil {
		return mended, err
	}
	corrected, err := v.totals.Correct(ctx, wrong, t.why, "verify")
	mended.TotalsMended, mended.TotalsRebuilt = corrected.Added, corrected.Lowered
	return mended, err
}

// lowering says which totals may be made lower than they are.
func (v *Verifier) lowering(ctx context.Context, at *positions, report *Report, removed totals.Sums) (*totals.Lowering, error) {
	why := &totals.Lowering{All: v.cfg.Lower, Explained: totals.Sums{}}
	entries, _, err := v.store.PendingRechecks(ctx, v.cfg.Topic)
	if err != nil {
		return nil, err
	}
	var doubled []clickhouse.Recheck
	for _, e := range entries {
		p := slices.IndexFunc(at.partitions, func(p position) bool { return p.Partition == e.Partition })
		if e.Reason == clickhouse.RecheckDoubled && p >= 0 && e.To <= at.partitions[p].Committed {
			doubled = append(doubled, e)
		}
	}
	for some := range slices.Chunk(doubled, totals.MaxRanges) {
		condition, args := totals.Places(some)
		sums, err := v.totals.SumsOf(ctx, condition, args...)
		if err != nil {
			return nil, err
		}
		why.Explained.Add(sums)
	}
	why.Explained.Replace(removed)
	why.Held, why.Since, err = v.heldSince(ctx, report)
	return why, err
}

// heldSince is the time from which on every event is in the log and was compared with the rows, with none missing. The
// zero time: every event there ever was. It is false where rows may be missing, or where nothing can be said.
func (v *Verifier) heldSince(ctx context.Context, report *Report) (held bool, since time.Time, err error) {
	for _, kind := range []Kind{Missing, ForeignRow, AlteredRow, BeyondLog, LostUnread, NotConsumed} {
		if report.Findings.Count(kind) > 0 {
			return false, since, nil
		}
	}
	if report.OtherTopics > 0 {
		return false, since, nil // the log of those rows was not read
	}
	for _, p := range report.Partitions {
		if p.From == 0 {
			continue
		}
		first, err := v.firstTime(ctx, p.Partition, p.From)
		if err != nil {
			return false, since, err
		}
		if first.IsZero() {
			return false, since, nil // what the partition held is gone, and when it came is unknown
		}
		// An event may be dated that much later than the record that brought it.
		if first = first.Add(v.cfg.FutureTolerance); first.After(since) {
			since = first
		}
	}
	return true, since, nil
}

// firstTime is the time of the first record of a partition from an offset on, the broker's where the topic says so; zero
// when there is none.
func (v *Verifier) firstTime(ctx context.Context, partition int, from int64) (time.Time, error) {
	log, err := kafka.Bounds(ctx, v.cfg.Client, v.cfg.Topic, partition)
	if err != nil {
		return time.Time{}, err
	}
	return v.firstOf(ctx, v.cfg.Topic, partition, kafka.Range{From: from, To: log.To})
}

// firstOf is the time of the first record of a range of a log; zero when there is none.
func (v *Verifier) firstOf(ctx context.Context, topic string, partition int, r kafka.Range) (time.Time, error) {
	var first time.Time
	enough := errors.New("the first record is read")
	err := kafka.ReadLog(ctx, v.cfg.Client, topic, partition, r, func(r *events.Record) error {
		first = r.Time
		return enough
	})
	if err != nil && !errors.Is(err, enough) {
		return time.Time{}, fmt.Errorf("read the first record of %s/%d: %w", topic, partition, err)
	}
	return first, nil
}

// rechecksOf are the places of doubled events, the rows that go and the ones that stay, as few ranges. Should this process
// die after the rows are gone, the service finds by them which totals are too high.
func (v *Verifier) rechecksOf(doubles []double) []clickhouse.Recheck {
	var places []twin
	for i := range doubles {
		for _, t := range []twin{doubles[i].first, doubles[i].later} {
			if t.topic == v.cfg.Topic {
				places = append(places, t)
			}
		}
	}
	slices.SortFunc(places, func(a, b twin) int {
		if a.partition != b.partition {
			return a.partition - b.partition
		}
		return int(min(1, max(-1, a.offset-b.offset)))
	})
	var ranges []clickhouse.Recheck
	for _, p := range places {
		if n := len(ranges) - 1; n >= 0 && ranges[n].Partition == p.partition && p.offset <= ranges[n].To {
			ranges[n].To = max(ranges[n].To, p.offset+1)
			continue
		}
		ranges = append(ranges, clickhouse.Recheck{Topic: p.topic, Partition: p.partition, From: p.offset, To: p.offset + 1,
			NotBefore: v.store.Now().Add(v.cfg.InsertTimeout + margin), Reason: clickhouse.RecheckDoubled})
	}
	return ranges
}

// removeRows deletes rows, all in one mutation: each mutation rewrites the parts it touches. What they add up to goes to
// removed.
//
// Place and deadline name a row, unless copies are equal in these as well (alike), as when a partition was attached twice. Then
// rows are named by their part and number in it. A merge gives rows another part; then nothing is deleted, and the next
// round finds them there. That there are as many rows of those places as are to go proves nothing: another repair may have
// removed one meanwhile.
//
// The mutation has a deadline. One that is held up on its way, and arrives when the row that was to stay has been
// removed by hand, deletes nothing.
func (v *Verifier) removeRows(ctx context.Context, rows []twin, alike bool, mended *Repairs, removed totals.Sums) error {
	condition, args := placesOf(rows)
	before, err := v.countRows(ctx, condition, args)
	if err != nil {
		return err
	}
	remove, removeArgs := "("+condition+")", args[:len(args):len(args)]
	if alike || before != int64(len(rows)) {
		var exact []string
		for i := range rows[:min(len(rows), maxExact)] {
			exact = append(exact, "(?, ?)")
			removeArgs = append(removeArgs, rows[i].part, rows[i].row)
		}
		remove += " AND (_part, _part_offset) IN (" + strings.Join(exact, ", ") + ")"
	}
	sums, err := v.totals.SumsOf(ctx, remove, removeArgs...)
	if err != nil {
		return err
	}
	intime, deadline, settings, err := v.totals.BeforeDeadline(ctx)
	if err != nil {
		return err
	}
	if err := v.conn.Exec(totals.LongQuery(ctx, settings), "ALTER TABLE usage_tracking DELETE WHERE "+remove+" AND "+intime, slices.Concat(removeArgs, deadline)...); err != nil {
		return fmt.Errorf("delete %d later copies of events: %w", len(rows), err)
	}
	after, err := v.countRows(ctx, condition, args)
	if err != nil {
		return err
	}
	if after < before {
		removed.Add(sums)
	}
	mended.RowsRemoved += before - after
	return nil
}

// maxExact is how many rows are named by their part in one mutation.
const maxExact = 5000

// countRows counts the rows that meet a condition.
func (v *Verifier) countRows(ctx context.Context, condition string, args []any) (int64, error) {
	var n uint64
	if err := v.conn.QueryRow(totals.LongQuery(ctx, nil), "SELECT count() FROM usage_tracking WHERE "+condition, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count later copies of events: %w", err)
	}
	return int64(n), nil // #nosec G115 -- a number of rows
}
