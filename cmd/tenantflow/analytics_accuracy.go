package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/internal/analytics"
	"tenantflow/internal/config"
	"tenantflow/internal/service"
)

func newAccuracyCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "accuracy",
		Short: "Show how good recommendations and forecasts were whose month is over",
		Long: `Accuracy shows, over the last 12 months of which it is known what came of them, how good churn scores, recommendations of a larger
tier and forecasts of revenue were, over all companies and beside their baselines. What is not better than its baseline is
said to be so. A dash: there is too little to go by. The measures are explained in docs/business-metrics.md.

Exit codes: 0 shown, also if nothing is known yet; 1 Postgres does not answer; 2 the flags or the configuration are wrong.`,
		Example: `  tenantflow analytics accuracy
  tenantflow analytics accuracy -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.config(config.Postgres)
			if err != nil {
				return err
			}
			tiers, err := service.Tiers(cfg)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), analysisTimeout)
			defer cancel()
			store, err := service.OpenPostgres(ctx, cfg, analysisTimeout, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer store.Close()
			report, err := analytics.New(store, nil, tiers).Accuracy(ctx, time.Now())
			if err != nil {
				return err
			}
			return a.show(cmd.OutOrStdout(), report, func() *table { return accuracyTable(report) })
		},
	}
}

// accuracyTable has a column for the churn score and one for each of its baselines; what is about upsell and forecasts stands below.
func accuracyTable(r *analytics.AccuracyReport) *table {
	c := &r.Churn
	t := &table{head: []string{"churn", "score", "no call for 14 days", "base rate"}}
	row := func(name string, of func(*analytics.Predictor) string) {
		t.add(name, of(&c.Score), of(&c.ByIdle), of(&c.ByBaseRate))
	}
	row("flagged", func(p *analytics.Predictor) string { return strconv.FormatInt(p.Flagged, 10) })
	row("precision", func(p *analytics.Predictor) string { return measure(p.Precision) })
	row("recall", func(p *analytics.Predictor) string { return measure(p.Recall) })
	row("lift at 10 %", func(p *analytics.Predictor) string { return measure(p.Lift) })
	row("AUC", func(p *analytics.Predictor) string { return measure(p.AUC) })
	row("AUC, 95 % from", func(p *analytics.Predictor) string { return measure(p.AUCLow) })
	row("AUC, 95 % to", func(p *analytics.Predictor) string { return measure(p.AUCHigh) })
	row("Brier", func(p *analytics.Predictor) string { return measure(p.Brier) })
	say := func(format string, args ...any) { t.footer = append(t.footer, fmt.Sprintf(format, args...)) }
	say("users judged at the ends of %s to %s: %d, of whom %d made no call in the next month (base rate %s); Brier scores of %d",
		r.FirstMonth, r.LastMonth, c.Users, c.Left, measure(c.BaseRate), c.BrierUsers)
	say("among the %d with a call in the last month, of whom %d left: AUC %s (95 %%: %s to %s), no call for 14 days %s",
		c.Active.Users, c.Active.Left, measure(c.Active.AUC), measure(c.Active.AUCLow), measure(c.Active.AUCHigh), measure(c.Active.IdleAUC))
	u := &r.Upsell
	say("upsell: %d of %d companies were upgraded in the month behind (success rate %s; recommended for %d users); of other companies %d of %d (%s)",
		u.Upgraded, u.Companies, measure(u.Success), u.Users, u.OtherUpgraded, u.OtherCompanies, measure(u.OtherRate))
	f := &r.Forecast
	say("forecasts: %d; sMAPE %s %% (naive %s %%), MASE %s (naive %s), within the 80 %% interval: %s",
		f.N, measure(f.SMAPE), measure(f.NaiveSMAPE), measure(f.MASE), measure(f.NaiveMASE), measure(f.Coverage))
	for _, d := range f.Distances {
		say("%d months ahead: %d; sMAPE %s %% (naive %s %%), MASE %s (naive %s), within the interval: %s",
			d.Months, d.N, measure(d.SMAPE), measure(d.NaiveSMAPE), measure(d.MASE), measure(d.NaiveMASE), measure(d.Coverage))
	}
	t.footer = append(t.footer, r.Findings...)
	return t
}

// measure is a measure as text; a dash where there is none.
func measure(x *float64) string {
	if x == nil {
		return "-"
	}
	return strconv.FormatFloat(*x, 'f', -1, 64)
}
