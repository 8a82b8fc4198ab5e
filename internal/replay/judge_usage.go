package replay

import (
	"context"
	"errors"
	"math"
	"time"

	"tenantflow/events"
	"tenantflow/sinks/clickhouse"
)

// A usageStore is the table of usage: *clickhouse.Store.
type usageStore interface {
	Identities(ctx context.Context, topic string, partition int, from, to, oldest, newest int64, each func(offset int64, identity uint64)) error
	Find(ctx context.Context, b *clickhouse.Block, rows []int) ([]clickhouse.Match, error)
	StillCounted(ctx context.Context, b *clickhouse.Block, rows []int) (int64, error)
}

// findRows bounds one look-up by identity.
const findRows = 100_000

// keptFor is how long the usage table keeps events, less a day: one that is published now must still be taken when it arrives.
const keptFor = events.DefaultMaxAge - 24*time.Hour

// usageJudge decides about usage events. Most of them are in the table, at their own place: that is asked for by ranges of offsets,
// with one hash for each. Only the others are looked up by their identity, as the usage consumer does it.
type usageJudge struct {
	rules
	topic   string
	usage   usageStore
	decoder *events.UsageDecoder
	oldest  int64 // milliseconds: what is before is too old

	partition int
	records   []verdict
	rows      []int // of the block, by record; -1: none
	of        []int // the record of each row
	block     *clickhouse.Block
	scratch   events.Usage
}

func newUsageJudge(r rules, topic string, store usageStore, limits events.UsageLimits, asOf time.Time) *usageJudge {
	return &usageJudge{rules: r, topic: topic, usage: store, decoder: events.NewUsageDecoder(limits), oldest: asOf.Add(-keptFor).UnixMilli(), block: clickhouse.NewBlock()}
}

func (j *usageJudge) reset(partition int) {
	j.partition = partition
	j.records, j.rows, j.of = j.records[:0], j.rows[:0], j.of[:0]
	j.block.Reset()
}

func (j *usageJudge) held() int64 { return j.block.Bytes() }

func (j *usageJudge) add(r *events.Record) {
	outcome, u := AlreadyThere, &j.scratch // what is not found becomes something else
	err := j.decoder.Decode(r, r.Time, u)
	var rejection *events.Rejection
	switch {
	case err != nil && !j.filter.all():
		outcome = Filtered // it can't be known whose it is
	case errors.As(err, &rejection) && rejection.Reason == events.TimestampTooOld:
		outcome = TooOld
	case err != nil:
		outcome = Settled
	case !j.wants(u):
		outcome = Filtered
	}
	row := -1
	if outcome == AlreadyThere {
		row = j.block.Len()
		j.block.Append(u, u.IdentityHash(), r.Offset)
		j.of = append(j.of, len(j.records))
	}
	j.records = append(j.records, verdictOn(r, outcome))
	j.rows = append(j.rows, row)
}

// wants reports whether an event is asked for. A void comes with its usage, which would otherwise come back as if it had not been voided.
func (j *usageJudge) wants(u *events.Usage) bool {
	company := string(u.CompanyID)
	switch v := u.Voids; {
	case j.filter.all():
		return true
	case v == nil:
		return j.filter.wants(company, events.TypeUsageRecorded, string(u.Source), string(u.ID))
	default:
		return j.filter.wants(company, events.TypeUsageVoided, string(u.Source), string(u.ID)) ||
			j.filter.wants(company, events.TypeUsageRecorded, string(v.Source), string(v.ID))
	}
}

func (j *usageJudge) owner(r *events.Record) (o Owner, forgets bool, err error) {
	if err := j.decoder.Decode(r, r.Time, &j.scratch); err != nil {
		return Owner{}, false, err
	}
	return Owner{string(j.scratch.CompanyID), string(j.scratch.UserID)}, false, nil
}

func (j *usageJudge) mayForget() bool { return false }

func (j *usageJudge) decide(ctx context.Context) ([]verdict, error) {
	elsewhere, err := j.notAtTheirPlace(ctx)
	if err != nil {
		return nil, err
	}
	missing, err := j.notStored(ctx, elsewhere)
	if err != nil {
		return nil, err
	}
	var candidates []*verdict
	var rows []int
	for _, row := range missing {
		v := &j.records[j.of[row]]
		if j.block.Timestamp(row) < j.oldest {
			v.outcome = TooOld
			continue
		}
		k := j.block.Key(row)
		v.outcome = Published
		v.event = &Event{Source: k.Source, ID: k.ID, Company: k.Company, User: k.User, Time: time.UnixMilli(k.Timestamp).UTC(), Partition: j.partition, Offset: v.offset}
		candidates, rows = append(candidates, v), append(rows, row)
	}
	err = j.leave(ctx, candidates, func(a, b int) bool { return j.block.SameContent(rows[a], rows[b]) })
	return j.records, err
}

// notAtTheirPlace gives the rows of the block that the table does not hold at their own place in the log.
func (j *usageJudge) notAtTheirPlace(ctx context.Context) ([]int, error) {
	n := j.block.Len()
	if n == 0 {
		return nil, nil
	}
	stored := make([]bool, n)
	if j.partition != AnyPartition {
		oldest, newest := int64(math.MaxInt64), int64(math.MinInt64)
		for row := range n {
			oldest, newest = min(oldest, j.block.Timestamp(row)), max(newest, j.block.Timestamp(row))
		}
		row := 0
		err := j.usage.Identities(ctx, j.topic, j.partition, j.block.Offset(0), j.block.Offset(n-1)+1, oldest, newest, func(offset int64, identity uint64) {
			for row < n && j.block.Offset(row) < offset {
				row++
			}
			// Another event at this place means that the topic was created again: it says nothing about this one.
			if row < n && j.block.Offset(row) == offset && j.block.Identity(row) == identity {
				stored[row] = true
			}
		})
		if err != nil {
			return nil, err
		}
	}
	var rest []int
	for row, found := range stored {
		if !found {
			rest = append(rest, row)
		}
	}
	return rest, nil
}

// notStored gives those of some rows whose identity the table does not hold, and notes the conflicts.
func (j *usageJudge) notStored(ctx context.Context, rows []int) ([]int, error) {
	var missing []int
	for len(rows) > 0 {
		n := min(len(rows), findRows)
		matches, err := j.usage.Find(ctx, j.block, rows[:n])
		if err != nil {
			return nil, err
		}
		same := make(map[int]bool, len(matches)) // by row that was found
		for _, m := range matches {
			same[m.Row] = same[m.Row] || m.Same
		}
		for _, row := range rows[:n] {
			switch equal, found := same[row]; {
			case !found:
				missing = append(missing, row)
			case !equal:
				j.records[j.of[row]].outcome = Conflict
			}
		}
		rows = rows[n:]
	}
	return missing, nil
}

func (j *usageJudge) stillCounted(ctx context.Context, records []int) (int64, error) {
	rows := make([]int, len(records))
	for i, at := range records {
		rows[i] = j.rows[at]
	}
	return j.usage.StillCounted(ctx, j.block, rows)
}
