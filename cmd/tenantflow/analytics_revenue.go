package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/internal/analytics"
)

func newRevenueCommand(a *app) *cobra.Command {
	var company string
	var months int
	cmd := &cobra.Command{
		Use:   "revenue --company ID",
		Short: "Show what a company was charged, by month and tier",
		Long: `Revenue shows what a company was charged by month and tier, with the revenue attributed to its usage, how its monthly recurring
revenue moved, and a forecast of three months: what GET /v1/companies/{company_id}/revenue answers. Months are those of
UTC; the last one is the present month, which is not over. The formulas are in docs/business-metrics.md.

Exit codes: 0 shown, also if nothing was charged; 1 a store does not answer, or the company is not known; 2 the flags or
the configuration are wrong.`,
		Example: `  tenantflow analytics revenue --company acme
  tenantflow analytics revenue --company acme --months 24 -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if months < 1 || months > analytics.MaxMonths {
				return invalid("--months %d: it is from 1 to %d", months, analytics.MaxMonths)
			}
			return a.analyse(cmd.Context(), company, func(ctx context.Context, from *analytics.Analyst) error {
				found, err := from.Revenue(ctx, company, months, time.Now())
				if err != nil {
					return err
				}
				return a.show(cmd.OutOrStdout(), found, func() *table { return revenueTable(found) })
			})
		},
	}
	cmd.Flags().StringVar(&company, "company", "", "company to analyse")
	cmd.Flags().IntVar(&months, "months", analytics.DefaultMonths, "months to show, the present one included (1 to 36)")
	return cmd
}

// revenueTable has a line for every tier of a month, and one for a month in which nothing was charged or used.
func revenueTable(r *analytics.Revenue) *table {
	t := &table{head: []string{"month", "tier", "charged", "attributed", "active users", "calls", "recurring"}}
	rows := r.MonthlyBreakdown
	for i, total := range r.MonthlyTotals {
		name, recurring := total.Month.String(), r.MRRMovements[i].End.String()
		if !total.Complete {
			name += " (not over)"
		}
		if len(rows) == 0 || rows[0].Month != total.Month {
			t.add(name, "-", total.Revenue.String(), total.Attributed.String(), "0", "0", recurring)
			continue
		}
		for len(rows) > 0 && rows[0].Month == total.Month {
			row := rows[0]
			t.add(name, row.Tier, row.Revenue.String(), row.Attributed.String(), strconv.FormatUint(row.Users, 10), strconv.FormatInt(row.Calls, 10), recurring)
			name, recurring, rows = "", "", rows[1:]
		}
	}
	t.footer = append(t.footer, fmt.Sprintf("%s %s charged in %d months, %s a month on average; trend %s a month, growth %s",
		r.TotalRevenue, r.Currency, r.PeriodMonths, r.AvgMonthlyRevenue, orNone(textOf(r.RevenueTrend.SlopePerMonth, "")), orNone(textOf(r.RevenueTrend.Growth, " %"))))
	for _, tier := range r.TierDistribution {
		t.footer = append(t.footer, fmt.Sprintf("%s: %s %s in %d months, %s %% of the total", tier.Tier, tier.Revenue, r.Currency, tier.Months, tier.Percentage))
	}
	for _, other := range r.OtherCurrencies {
		t.footer = append(t.footer, fmt.Sprintf("in another currency, and in no sum: %s %s", other.Revenue, other.Currency))
	}
	for _, m := range r.MRRMovements {
		if m.New+m.Expansion+m.Reactivated+m.Contraction+m.Churned != 0 {
			t.footer = append(t.footer, fmt.Sprintf("recurring in %s: %s + %s new + %s expansion + %s reactivated - %s contraction - %s churned = %s",
				m.Month, m.Start, m.New, m.Expansion, m.Reactivated, m.Contraction, m.Churned, m.End))
		}
	}
	if r.Forecast == nil {
		t.footer = append(t.footer, "no forecast: "+r.ForecastReason)
		return t
	}
	for _, m := range r.Forecast.Months {
		t.footer = append(t.footer, fmt.Sprintf("forecast for %s: %s (%d %%: %s to %s)", m.Month, m.Revenue, r.Forecast.Interval, m.Low, m.High))
	}
	return t
}

// textOf is a number with its unit, or nothing where there is none.
func textOf(n *analytics.Hundredths, unit string) string {
	if n == nil {
		return ""
	}
	return n.String() + unit
}
