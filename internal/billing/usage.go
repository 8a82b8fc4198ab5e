package billing

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"math"
	"slices"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/totals"
	"tenantflow/sinks/postgres"
)

var (
	//go:embed queries/usage.sql
	usageSQL string
	//go:embed queries/past.sql
	pastSQL string
	//go:embed queries/users.sql
	usersSQL string
	//go:embed queries/next.sql
	nextSQL string
	//go:embed queries/aggregates.sql
	aggregatesSQL string
)

// Rows reads usage rows and totals from ClickHouse. It may be used by several goroutines at once.
type Rows struct{ *totals.Reader }

// OpenRows makes a Rows. It does not connect yet.
func OpenRows(options *chgo.Options) (*Rows, error) {
	reader, err := totals.OpenReader(options)
	if err != nil {
		return nil, err
	}
	return &Rows{reader}, nil
}

// A foreign is a time in which a user belonged to another company, and not to the exported one: in milliseconds, the end not included.
type foreign struct {
	user     string
	from, to int64
}

// users returns the users of whom a company has rows.
func (r *Rows) users(ctx context.Context, company string) ([]string, error) {
	var all []string
	var user string
	err := r.ask(ctx, usersSQL, "''", []any{company}, []any{&user}, func() { all = append(all, user) })
	if err != nil {
		return nil, fmt.Errorf("read the users of the usage of company %s: %w", company, err)
	}
	return all, nil
}

// next returns, by partition of a topic, the offset behind the last row of a company.
func (r *Rows) next(ctx context.Context, company, topic string) (map[int]int64, error) {
	all := map[int]int64{}
	var partition, next int64
	err := r.ask(ctx, nextSQL, "toInt64(0), toInt64(0)", []any{company, topic}, []any{&partition, &next}, func() { all[int(partition)] = next })
	if err != nil {
		return nil, fmt.Errorf("read up to where the log has usage of company %s: %w", company, err)
	}
	return all, nil
}

// ofPeriod returns the usage of a company in a billing period.
func (r *Rows) ofPeriod(ctx context.Context, company, period string, at *TopicPosition, elsewhere []foreign) ([]usageRow, error) {
	var all []usageRow
	var one usageRow
	var month uint32
	var behind, mismatched uint8
	partitions, offsets := at.arrays()
	users, from, to := foreignArrays(elsewhere)
	err := r.ask(ctx, usageSQL, "'', '', '', toUInt32(0), toUInt8(0), toUInt8(0), toInt64(0), toInt64(0), toDecimal128(0, 6)",
		[]any{company, period, at.Topic, partitions, offsets, users, from, to},
		[]any{&one.user, &one.tier, &one.service, &month, &behind, &mismatched, &one.amounts.Calls, &one.amounts.DataPoints, &one.amounts.Attributed.Decimal}, func() {
			one.month, one.behind, one.mismatched = int(month), behind == 1, mismatched == 1
			all = append(all, one)
		})
	if err != nil {
		return nil, fmt.Errorf("read the usage of company %s in %s: %w", company, period, err)
	}
	return all, nil
}

// ofOthers returns the usage of a company in all billing periods but one, up to a position. last is the position of the company's last export.
func (r *Rows) ofOthers(ctx context.Context, company, period string, at, last *TopicPosition, elsewhere []foreign) ([]pastRow, error) {
	var all []pastRow
	var one pastRow
	var month uint32
	var mismatched uint8
	partitions, offsets := at.arrays()
	users, from, to := foreignArrays(elsewhere)
	lastPartitions, lastOffsets := last.arrays()
	err := r.ask(ctx, pastSQL, "'', toUInt32(0), toUInt8(0), toUInt8(0), toInt64(0), toInt64(0), toInt64(0), toDecimal128(0, 6)",
		[]any{company, period, at.Topic, partitions, offsets, users, from, to, at.Topic, lastPartitions, lastOffsets},
		[]any{&one.period, &month, &mismatched, &one.class, &one.identities, &one.amounts.Calls, &one.amounts.DataPoints, &one.amounts.Attributed.Decimal}, func() {
			one.month, one.mismatched = int(month), mismatched == 1
			all = append(all, one)
		})
	if err != nil {
		return nil, fmt.Errorf("read the usage of company %s outside of %s: %w", company, period, err)
	}
	return all, nil
}

// aggregates returns the monthly totals of a company and a billing period.
func (r *Rows) aggregates(ctx context.Context, company, period string) (Amounts, error) {
	var all, one Amounts
	err := r.ask(ctx, aggregatesSQL, "toInt64(0), toInt64(0), toDecimal128(0, 6)", []any{company, period},
		[]any{&one.Calls, &one.DataPoints, &one.Attributed.Decimal}, func() { all = one })
	if err != nil {
		return Amounts{}, fmt.Errorf("read the monthly totals of company %s in %s: %w", company, period, err)
	}
	return all, nil
}

// ask runs a query, which may name many users, and calls keep for each of its rows, which has been read into dest. end is a value for each of its columns.
func (r *Rows) ask(ctx context.Context, query, end string, args, dest []any, keep func()) error {
	return r.Each(totals.LongQuery(ctx, nil), query, end, args, dest, keep)
}

// foreignArrays are the users and, by their places, their times, which are sorted by user. The first place is no user's: that of all who have no such times.
func foreignArrays(all []foreign) (users []string, from, to [][]int64) {
	users, from, to = []string{""}, [][]int64{{}}, [][]int64{{}}
	for _, f := range all {
		n := len(users)
		if users[n-1] != f.user {
			users, from, to = append(users, f.user), append(from, nil), append(to, nil)
			n++
		}
		from[n-1], to[n-1] = append(from[n-1], f.from), append(to[n-1], f.to)
	}
	return users, from, to
}

// elsewhere returns the times in which users belonged to another company than the given one, and not to it. Of a moment that both have, the company's own membership
// counts, as it does for quotas.
func elsewhere(company string, memberships []postgres.UserMembership) []foreign {
	own, others := map[string][]foreign{}, []foreign{}
	for _, m := range memberships {
		f := foreign{m.UserID, ceilMilli(m.Since), math.MaxInt64}
		if m.Until != nil {
			f.to = ceilMilli(*m.Until)
		}
		if m.CompanyID == company {
			own[m.UserID] = append(own[m.UserID], f)
		} else {
			others = append(others, f)
		}
	}
	var all []foreign
	for _, f := range others {
		mine := own[f.user]
		slices.SortFunc(mine, func(a, b foreign) int { return cmp.Compare(a.from, b.from) })
		for _, m := range mine {
			if m.to <= f.from || m.from >= f.to {
				continue
			}
			if m.from > f.from {
				all = append(all, foreign{f.user, f.from, m.from})
			}
			f.from = m.to
		}
		if f.from < f.to {
			all = append(all, f)
		}
	}
	return merged(all)
}

// merged sorts times and joins those of one user that overlap.
func merged(all []foreign) []foreign {
	slices.SortFunc(all, func(a, b foreign) int { return cmp.Or(cmp.Compare(a.user, b.user), cmp.Compare(a.from, b.from)) })
	var joined []foreign
	for _, f := range all {
		if n := len(joined); n > 0 && joined[n-1].user == f.user && joined[n-1].to >= f.from {
			joined[n-1].to = max(joined[n-1].to, f.to)
			continue
		}
		joined = append(joined, f)
	}
	return joined
}

// ceilMilli is the first millisecond that is not before a time: rows keep milliseconds.
func ceilMilli(t time.Time) int64 {
	return t.Add(time.Millisecond - time.Nanosecond).UnixMilli()
}
