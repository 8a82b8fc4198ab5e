package analytics

import (
	"context"
	_ "embed"
	"fmt"
	"time"
)

//go:embed queries/platform_usage.sql
var platformUsageSQL string

// OtherTier is what the tiers of usage are called that are not among those asked for: events may name any.
const OtherTier = "other"

// A CompanyUsage is the usage of one company in one month: of users with one tier, or of all.
type CompanyUsage struct {
	CompanyID string
	MonthUsage
}

// Companies returns the usage of all companies in each of the months from first to last, by tier and over all of them, in any order. Usage
// of a tier that is not among those asked for is [OtherTier]'s. Months without usage are left out.
func (u *Usage) Companies(ctx context.Context, first, last Month, tiers []string) ([]CompanyUsage, error) {
	var all []CompanyUsage
	var one CompanyUsage
	var month uint32 // as 202611
	err := u.Each(ctx, platformUsageSQL, "toUInt32(0), '', '', toUInt64(0), toInt64(0), toDecimal128(0, 6)",
		[]any{day(first.Start()), day((last + 1).Start()), tiers},
		[]any{&month, &one.CompanyID, &one.Tier, &one.ActiveUsers, &one.Calls, &one.Attributed.Decimal}, func() {
			one.Month = Month(month/100*12 + month%100 - 1)
			all = append(all, one)
		})
	if err != nil {
		return nil, fmt.Errorf("read the usage of all companies by month: %w", err)
	}
	return all, nil
}

// Stored returns what the tables of usage take on the disk of the server that answers, in bytes, and the calls since a day by the company that
// they are recorded under, of those that have any.
func (u *Usage) Stored(ctx context.Context, since time.Time) (bytes int64, calls map[string]int64, err error) {
	calls = map[string]int64{}
	var company string
	var n int64
	err = u.Each(ctx, "SELECT toInt64(sum(bytes_on_disk)) FROM system.parts WHERE database = currentDatabase() AND active", "toInt64(0)", nil, []any{&n}, func() { bytes = n })
	if err == nil {
		err = u.Each(ctx, "SELECT company_id, toInt64(sum(api_calls)) AS calls FROM usage_daily_store WHERE day >= toDate($1) GROUP BY company_id HAVING calls > 0", "'', toInt64(0)",
			[]any{day(since)}, []any{&company, &n}, func() { calls[company] = n })
	}
	if err != nil {
		return 0, nil, fmt.Errorf("read what usage takes in ClickHouse: %w", err)
	}
	return bytes, calls, nil
}
