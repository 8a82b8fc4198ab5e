package analytics

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/totals"
)

var (
	//go:embed queries/daily_use.sql
	dailyUseSQL string
	//go:embed queries/monthly_use.sql
	monthlyUseSQL string
	//go:embed queries/judged_use.sql
	judgedUseSQL string
	//go:embed queries/users_with_calls.sql
	usersWithCallsSQL string
)

// Usage reads what companies have used from the totals in ClickHouse.
type Usage struct{ *totals.Reader }

// OpenUsage makes a Usage. It does not connect yet.
func OpenUsage(options *chgo.Options) (*Usage, error) {
	reader, err := totals.OpenReader(options)
	if err != nil {
		return nil, err
	}
	return &Usage{reader}, nil
}

// Daily returns what the users of a company have used in the days from one to another, which is not included, in any order. Users without an
// active day are left out.
func (u *Usage) Daily(ctx context.Context, company string, from, to time.Time) ([]DailyUse, error) {
	var all []DailyUse
	var one DailyUse
	err := u.Each(ctx, dailyUseSQL, "'', toInt64(0), toInt64(0), toInt64(0)", []any{company, day(from), day(to)},
		[]any{&one.UserID, &one.ActiveDays, &one.Calls, &one.DataPoints}, func() { all = append(all, one) })
	if err != nil {
		return nil, fmt.Errorf("read the daily usage of company %s: %w", company, err)
	}
	return all, nil
}

// Monthly returns the calls of a company's users in the three months before the month that a time is in, in any order. Users without
// usage in them are left out.
func (u *Usage) Monthly(ctx context.Context, company string, at time.Time) ([]MonthlyUse, error) {
	var all []MonthlyUse
	var one MonthlyUse
	err := u.Each(ctx, monthlyUseSQL, "'', toInt64(0), toInt64(0), toInt64(0)", threeMonths(company, at),
		[]any{&one.UserID, &one.TwoMonthsAgo, &one.PreviousMonth, &one.CurrentMonth}, func() { all = append(all, one) })
	if err != nil {
		return nil, fmt.Errorf("read the monthly usage of company %s: %w", company, err)
	}
	return all, nil
}

// A JudgedUse is the use of a user whose risk of leaving is judged, and when the user was active last before the month of the analysis.
type JudgedUse struct {
	MonthlyUse
	LastActivity time.Time
}

// Judged returns the use of a company's users in the three months before the month that a time is in, in any order: of those who made calls in one
// of the last two.
func (u *Usage) Judged(ctx context.Context, company string, at time.Time) ([]JudgedUse, error) {
	var all []JudgedUse
	var one JudgedUse
	err := u.Each(ctx, judgedUseSQL, "'', toInt64(0), toInt64(0), toInt64(0), toDateTime64(0, 3, 'UTC')", threeMonths(company, at),
		[]any{&one.UserID, &one.TwoMonthsAgo, &one.PreviousMonth, &one.CurrentMonth, &one.LastActivity}, func() { all = append(all, one) })
	if err != nil {
		return nil, fmt.Errorf("read the usage by which users of company %s are judged: %w", company, err)
	}
	return all, nil
}

// threeMonths are the arguments of a query about a company in the three months before the one that a time is in: it, and the months' borders.
func threeMonths(company string, at time.Time) []any {
	args := []any{company}
	for ago := 3; ago >= 0; ago-- {
		args = append(args, day((MonthOf(at) - Month(ago)).Start()))
	}
	return args
}

// UsersWithCalls returns the users of a company with calls in a month, in any order.
func (u *Usage) UsersWithCalls(ctx context.Context, company string, month Month) ([]string, error) {
	var all []string
	var one string
	err := u.Each(ctx, usersWithCallsSQL, "''", []any{company, day(month.Start()), day((month + 1).Start())}, []any{&one}, func() { all = append(all, one) })
	if err != nil {
		return nil, fmt.Errorf("read which users of company %s made calls in %s: %w", company, month, err)
	}
	return all, nil
}

// day is a day of UTC as ClickHouse reads it.
func day(at time.Time) string { return at.UTC().Format(time.DateOnly) }

// dayOf is the beginning of the UTC day that a time is in.
func dayOf(at time.Time) time.Time {
	y, m, d := at.UTC().Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}
