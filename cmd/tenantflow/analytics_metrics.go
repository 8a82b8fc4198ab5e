package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/internal/analytics"
	"tenantflow/internal/business"
	"tenantflow/internal/config"
	"tenantflow/internal/service"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

func newMetricsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Show the business metrics of the installation",
		Long: `Metrics shows the business metrics over all companies: revenue for each active user, conversion, churn and lifetime value,
what storage costs, query latency against its targets, retention compliance, rights that reach across companies, and a
health score: what GET /v1/business-metrics answers. They are computed now. The formulas are in
docs/business-metrics.md; what can't be computed says why.

Exit codes: 0 shown; 1 a store does not answer; 2 the flags or the configuration are wrong.`,
		Example: `  tenantflow analytics metrics
  tenantflow analytics metrics -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withUsage(cmd.Context(), func(ctx context.Context, cfg *config.Config, store *postgres.Store, usage *analytics.Usage, tiers *tier.Catalogue) error {
				report, err := business.New(service.Business(cfg, store, usage, tiers)).Report(ctx, time.Now())
				if err != nil {
					return err
				}
				return a.show(cmd.OutOrStdout(), report, func() *table { return metricsTable(report) })
			})
		},
	}
}

// metricsTable has a line for every metric of every tier.
func metricsTable(r *business.Report) *table {
	t := &table{head: []string{"metric", "of", "value", "target", "from"}}
	value := func(n *analytics.Hundredths, unit, reason string) string {
		if n == nil {
			return "- (" + reason + ")"
		}
		return n.String() + unit
	}
	for i := range r.ARPU {
		a := &r.ARPU[i]
		month := a.Month.String()
		if !a.Complete {
			month += " (not over)"
		}
		t.add("revenue per user, "+month, a.Tier, value(a.ARPU, " "+a.Currency, a.Reason), "", fmt.Sprintf("%s %s charged, %d active users, %s attributed", a.Revenue, a.Currency, a.Users, a.Attributed))
	}
	c := &r.Conversion
	t.add("conversion to "+c.ToTier, "companies", value(c.Percentage, " %", c.Reason), "at least "+c.Target.String()+" %",
		fmt.Sprintf("%d of %d registered from %s to before %s", c.Converted, c.Companies, c.From, c.Until))
	churn := func(of string, rate *business.ChurnRate) {
		target := ""
		if rate.Target != nil {
			target = "under " + rate.Target.String() + " %"
		}
		t.add("churn in "+r.Churn.Month.String(), of, value(rate.Percentage, " %", rate.Reason), target, fmt.Sprintf("%d of %d companies", rate.Churned, rate.AtStart))
	}
	churn("all that pay", &r.Churn.Paid)
	for i := range r.Churn.Tiers {
		churn(r.Churn.Tiers[i].Tier, &r.Churn.Tiers[i].ChurnRate)
	}
	for i := range r.Lifetime {
		l := &r.Lifetime[i]
		t.add("lifetime value", l.Tier, value(l.Value, " "+l.Currency, l.Reason), "", fmt.Sprintf("%s %s charged in %d months, %d companies left", l.Revenue, l.Currency, l.Months, l.Churned))
	}
	storageLines(t, &r.Storage)
	for i := range r.Latency {
		l := &r.Latency[i]
		t.add("query latency, p95", l.Tier, value(l.P95, " ms", l.Reason), "at most "+l.Target.String()+" ms", fmt.Sprintf("%d samples of %d queries in 24 hours", l.Samples, l.Queries))
	}
	t.add("retention compliance", "companies", value(r.Retention.Percentage, " %", r.Retention.Reason), r.Retention.Target.String()+" %", fmt.Sprintf("%d of %d; %d not measured", r.Retention.Compliant, r.Retention.Companies, r.Retention.NotMeasured))
	for _, check := range r.Isolation.Checks {
		t.add("isolation leaks", words(check.Name), strconv.FormatInt(check.Leaks, 10), "0", fmt.Sprintf("%d checked", check.Checked))
	}
	for _, p := range r.Health.Parts {
		t.add("health", words(p.Part), value(p.Score, "", p.Reason), "", fmt.Sprintf("weight %d", p.Weight))
	}
	t.footer = append(t.footer, "health score: "+orNone(textOf(r.Health.Score, " of 100")))
	for i := range r.Months {
		if m := &r.Months[i]; m.Month == r.PresentMonth {
			t.footer = append(t.footer, fmt.Sprintf("monthly recurring revenue: %s %s", m.MRR, m.Currency))
		}
	}
	for _, one := range r.Tiers {
		t.footer = append(t.footer, fmt.Sprintf("companies with tier %s: %d", one.Tier, one.Companies))
	}
	return t
}

func storageLines(t *table, s *business.Storage) {
	line := func(of string, share *business.StorageShare) {
		cost, from := "- ("+s.Reason+")", fmt.Sprintf("%d bytes in Postgres, %d in ClickHouse", share.Postgres, share.ClickHouse)
		if share.Cost != nil {
			from = fmt.Sprintf("%s %s a month for %s", share.Cost, s.Currency, from)
			cost = "- (nothing was charged)"
		}
		if share.PerRevenue != nil {
			cost = share.PerRevenue.String()
		}
		t.add("storage cost per revenue", of, cost, "", from)
	}
	line("all", &s.Total)
	for i := range s.Tiers {
		of := "no tier"
		if s.Tiers[i].Tier != nil {
			of = *s.Tiers[i].Tier
		}
		line(of, &s.Tiers[i].StorageShare)
	}
}
