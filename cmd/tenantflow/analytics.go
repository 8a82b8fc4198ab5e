package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/analytics"
	"tenantflow/internal/config"
	"tenantflow/internal/directory"
	"tenantflow/internal/service"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// analysisTimeout is how long an analysis may take.
const analysisTimeout = 30 * time.Second

func newAnalyticsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "analytics",
		Short: "Analyse what companies use and pay: revenue, who needs a larger tier, who may leave, how good that is, and the metrics of all",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRevenueCommand(a), newUpsellCommand(a), newChurnCommand(a), newAccuracyCommand(a), newMetricsCommand(a))
	return cmd
}

func newUpsellCommand(a *app) *cobra.Command {
	var company string
	cmd := &cobra.Command{
		Use:   "upsell --company ID",
		Short: "List the users of a company who need a larger tier",
		Long: `Upsell lists the users of a company whose average daily calls over the 30 days before today exceed 80 % of their daily
limit, with the cheapest tier that has room for them: what GET /v1/companies/{company_id}/upsell answers. Averages are
over active days, and days are those of UTC. The formulas are in docs/business-metrics.md.

Exit codes: 0 shown, also if there are none; 1 a store does not answer, or the company is not known; 2 the flags or the
configuration are wrong.`,
		Example: `  tenantflow analytics upsell --company acme
  tenantflow analytics upsell --company acme -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.analyse(cmd.Context(), company, func(ctx context.Context, from *analytics.Analyst) error {
				found, err := from.Upsell(ctx, company, time.Now())
				if err != nil {
					return err
				}
				return a.show(cmd.OutOrStdout(), found, func() *table { return upsellTable(found) })
			})
		},
	}
	cmd.Flags().StringVar(&company, "company", "", "company to analyse")
	return cmd
}

func upsellTable(found []analytics.Opportunity) *table {
	t := &table{head: []string{"user", "tier", "recommended", "score", "calls a day", "data a day", "active days", "more a month"}}
	for _, o := range found {
		use := o.CurrentUsage
		t.add(o.UserID, o.CurrentTier, o.RecommendedTier, o.Score.String(), use.Calls.String(), use.DataPoints.String(),
			strconv.FormatInt(use.ActiveDays, 10), o.RevenueIncrease.String()+" "+o.Currency)
	}
	t.footer = []string{fmt.Sprintf("users who need a larger tier: %d", len(found))}
	return t
}

func newChurnCommand(a *app) *cobra.Command {
	var company string
	cmd := &cobra.Command{
		Use:   "churn --company ID",
		Short: "List the users of a company who may leave",
		Long: `Churn lists the users of a company whose calls have fallen from month to month in the last three months that are over, with
how to keep them, and what to do about the company: what GET /v1/companies/{company_id}/churn-risk answers. Months are
those of UTC. The formulas and what the names of strategies and actions mean are in docs/business-metrics.md.

Exit codes: 0 shown, also if there are none; 1 a store does not answer, or the company is not known; 2 the flags or the
configuration are wrong.`,
		Example: `  tenantflow analytics churn --company acme
  tenantflow analytics churn --company acme -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.analyse(cmd.Context(), company, func(ctx context.Context, from *analytics.Analyst) error {
				report, err := from.ChurnRisk(ctx, company, time.Now())
				if err != nil {
					return err
				}
				return a.show(cmd.OutOrStdout(), report, func() *table { return churnTable(report) })
			})
		},
	}
	cmd.Flags().StringVar(&company, "company", "", "company to analyse")
	return cmd
}

func churnTable(r *analytics.ChurnReport) *table {
	t := &table{head: []string{"user", "tier", "risk", "two months ago", "month before", "last month", "decline", "strategy"}}
	for _, risk := range r.ChurnRisks {
		trend := risk.Trend
		t.add(risk.UserID, risk.Tier, risk.Score.String(), strconv.FormatInt(trend.TwoMonthsAgo, 10), strconv.FormatInt(trend.PreviousMonth, 10),
			strconv.FormatInt(trend.CurrentMonth, 10), trend.Decline.String()+" %", words(risk.Strategy))
	}
	actions := make([]string, len(r.RecommendedActions))
	for i, action := range r.RecommendedActions {
		actions[i] = words(action)
	}
	t.footer = []string{fmt.Sprintf("users at risk: %d", r.TotalAtRiskUsers), "recommended actions: " + orNone(strings.Join(actions, ", "))}
	return t
}

// words are those of a name for programs.
func words(name string) string { return strings.ReplaceAll(name, "_", " ") }

// analyse has an analysis of a company made from the stores that the configuration names.
func (a *app) analyse(ctx context.Context, company string, work func(context.Context, *analytics.Analyst) error) error {
	switch {
	case company == "":
		return invalid("--company is missing")
	case !events.ValidID(company):
		return invalid("--company %q: a company id has 1 to 50 letters, digits, '_' or '-'", company)
	}
	err := a.withUsage(ctx, func(ctx context.Context, _ *config.Config, store *postgres.Store, usage *analytics.Usage, tiers *tier.Catalogue) error {
		return work(ctx, analytics.New(store, usage, tiers))
	})
	if errors.Is(err, directory.ErrUnknown) {
		return fmt.Errorf("company %s is not known, or has no subscription", company)
	}
	return err
}

// withUsage opens the stores that analyses need, for as long as the work takes.
func (a *app) withUsage(ctx context.Context, work func(context.Context, *config.Config, *postgres.Store, *analytics.Usage, *tier.Catalogue) error) error {
	cfg, err := a.config(config.ClickHouse, config.Postgres)
	if err != nil {
		return err
	}
	tiers, err := service.Tiers(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, analysisTimeout)
	defer cancel()
	store, err := service.OpenPostgres(ctx, cfg, showTimeout, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer store.Close()
	usage, err := service.OpenUsage(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = usage.Close() }() // everything was answered before
	return work(ctx, cfg, store, usage, tiers)
}
