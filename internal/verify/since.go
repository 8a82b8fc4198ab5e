package verify

import (
	"context"
	"time"

	"tenantflow/internal/kafka"
	"tenantflow/internal/totals"
	"tenantflow/sinks/clickhouse"
)

// clockSlack is how far the clocks of Postgres, of the brokers and of the service may be apart, and how long a note in a store may take behind
// the record that it is about.
const clockSlack = 10 * time.Minute

// begins is the offset at which the reading of a log begins: where the log does, or where the run was told to, by some slack earlier.
func (v *Verifier) begins(ctx context.Context, topic string, partition int, log kafka.Range, slack time.Duration) (int64, error) {
	if v.cfg.Since.IsZero() {
		return log.From, nil
	}
	at, err := kafka.OffsetAt(ctx, v.cfg.Client, topic, partition, v.cfg.Since.Add(-slack), log.To)
	return max(at, log.From), err
}

// noteSince says what a cheap run does not look at.
func (v *Verifier) noteSince(report *Report) {
	if v.cfg.Since.IsZero() {
		return
	}
	report.note("only what came since %s was looked at: events by the time of their records, the totals and identities that these events are part of, the counters of "+
		"the days since, results that were published since, companies of which an event was applied since. What was changed elsewhere by hand does not show: "+
		"for that, run verify without --since", v.cfg.Since.UTC().Format(time.RFC3339))
}

// recentRanges are the offsets that a cheap run judges.
func (at *positions) recentRanges(topic string) []clickhouse.Recheck {
	var ranges []clickhouse.Recheck
	for i := range at.partitions {
		if r := at.partitions[i].judged(); r.From < r.To {
			ranges = append(ranges, clickhouse.Recheck{Topic: topic, Partition: at.partitions[i].Partition, From: r.From, To: r.To})
		}
	}
	return ranges
}

// compareTotals compares all totals with the rows, or those of the rows that a cheap run looks at.
func (v *Verifier) compareTotals(ctx context.Context, at *positions) (*totals.Comparison, error) {
	if v.cfg.Since.IsZero() {
		return v.totals.Compare(ctx)
	}
	return v.totals.CompareOf(ctx, at.recentRanges(v.cfg.Topic))
}

// recentIdentities is the SQL condition that a row has the identity of one that a run looks at. Its other rows may be older.
func (v *Verifier) recentIdentities(at *positions) (condition string, args []any) {
	if v.cfg.Since.IsZero() {
		return "1", nil
	}
	ranges := at.recentRanges(v.cfg.Topic)
	if len(ranges) == 0 {
		return "0", nil
	}
	place, args := totals.Places(ranges)
	return statement("recent", struct{ Place string }{place}), args
}
