package business

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/analytics"
	"tenantflow/internal/logs"
	"tenantflow/sinks/postgres"
)

// showEvery is how often the last report is looked up.
const showEvery = 30 * time.Second

// Gauges are the metrics for Prometheus, which are set from the last report, whichever process made it. What a report has no number for has no
// series. Labels name tiers, currencies and checks, never companies.
type Gauges struct {
	reported, unmeasured prometheus.Gauge

	health, conversion, retention, storage                                      *prometheus.GaugeVec // without labels
	companies, users, arpu, mrr, churn, lifetime, bytes, latency, target, leaks *prometheus.GaugeVec
}

// NewGauges makes the metrics, and registers them.
func NewGauges(registry prometheus.Registerer) *Gauges {
	many := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantflow_business_" + name, Help: help}, labels)
		registry.MustRegister(g)
		return g
	}
	g := &Gauges{
		reported: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tenantflow_business_report_timestamp_seconds",
			Help: "When the last report of business metrics was computed, whichever process did it. Until there is one: when this process started."}),
		unmeasured: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tenantflow_business_companies_not_measured",
			Help: "Companies whose schema could not be measured for the last report: there is none, it was locked, or it is broken."}),
		health:     many("health_score", "The health score of the last report, 0 to 100. Not there: too little could be measured."),
		conversion: many("conversion_ratio", "Share of the companies that came to pay within 90 days of their registration, by the last report. Not there: there is none to judge."),
		retention:  many("retention_compliance_ratio", "Share of the companies that hold no closed position beyond their retention, by the last report. Not there: none could be measured."),
		storage:    many("storage_cost_ratio", "Cost of a month's storage for each unit of revenue of the last whole month. Not there: there is no price or no revenue."),
		companies:  many("companies", "Companies by the tier that they have now.", "tier"),
		users:      many("active_users", "Users with usage in the last whole month, by the tier that their events named.", "tier", "currency"),
		arpu:       many("arpu", "Charged revenue for each active user in the last whole month, in units of the currency.", "tier", "currency"),
		mrr:        many("mrr", "Monthly recurring revenue of all companies now, in units of the currency.", "currency"),
		churn:      many("churn_ratio", "Share of the companies of a tier that left it in the last whole month.", "tier"),
		lifetime:   many("lifetime_value", "What a company of a tier brings in until it leaves, in units of the currency.", "tier", "currency"),
		bytes:      many("storage_bytes", "Bytes stored for all companies.", "store"),
		latency:    many("query_p95_seconds", "Time below which 95 % of the sampled queries about companies of a tier stayed in 24 hours.", "tier"),
		target:     many("query_p95_target_seconds", "What query_p95_seconds is not to exceed.", "tier"),
		leaks:      many("isolation_leaks", "Rights across the borders between companies that the last report found, by check. All are 0 where everything is right.", "check"),
	}
	registry.MustRegister(g.reported, g.unmeasured)
	g.reported.SetToCurrentTime()
	return g
}

// Set takes the numbers of a report.
func (g *Gauges) Set(r *Report) {
	g.reported.Set(float64(r.ReportedAt.Unix()))
	g.unmeasured.Set(float64(r.Retention.NotMeasured))
	for _, all := range []*prometheus.GaugeVec{g.health, g.conversion, g.retention, g.storage, g.companies, g.users, g.arpu, g.mrr, g.churn, g.lifetime, g.latency, g.target, g.leaks} {
		all.Reset()
	}
	set(g.health, r.Health.Score, 1)
	set(g.conversion, r.Conversion.Percentage, 100)
	set(g.retention, r.Retention.Percentage, 100)
	if per := r.Storage.Total.PerRevenue; per != nil {
		g.storage.WithLabelValues().Set(per.InexactFloat64())
	}
	for _, t := range r.Tiers {
		g.companies.WithLabelValues(t.Tier).Set(float64(t.Companies))
	}
	for i := range r.ARPU {
		if a := &r.ARPU[i]; a.Complete {
			g.users.WithLabelValues(a.Tier, a.Currency).Set(float64(a.Users))
			set(g.arpu, a.ARPU, 1, a.Tier, a.Currency)
		}
	}
	for i := range r.Months {
		if m := &r.Months[i]; m.Month == r.PresentMonth {
			set(g.mrr, &m.MRR, 1, m.Currency)
		}
	}
	for i := range r.Churn.Tiers {
		set(g.churn, r.Churn.Tiers[i].Percentage, 100, r.Churn.Tiers[i].Tier)
	}
	for i := range r.Lifetime {
		set(g.lifetime, r.Lifetime[i].Value, 1, r.Lifetime[i].Tier, r.Lifetime[i].Currency)
	}
	g.bytes.WithLabelValues("postgres").Set(float64(r.Storage.Total.Postgres))
	g.bytes.WithLabelValues("clickhouse").Set(float64(r.Storage.Total.ClickHouse))
	for i := range r.Latency {
		set(g.latency, r.Latency[i].P95, 1000, r.Latency[i].Tier)
		set(g.target, &r.Latency[i].Target, 1000, r.Latency[i].Tier)
	}
	for _, c := range r.Isolation.Checks {
		g.leaks.WithLabelValues(c.Name).Set(float64(c.Leaks))
	}
}

// Run follows the last report until ctx ends.
func (g *Gauges) Run(ctx context.Context, store *postgres.Store, log *slog.Logger) {
	const unread = "the last report of business metrics can't be read"
	troubles := logs.NewTroubles(log)
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	for {
		switch last, err := Last(ctx, store); {
		case ctx.Err() != nil:
		case err != nil:
			troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: unread, Err: err})
		default:
			troubles.Over(ctx, unread, "")
			if last != nil {
				g.Set(last)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// set sets a series to a number divided by something, if there is a number.
func set(of *prometheus.GaugeVec, n *analytics.Hundredths, by float64, labels ...string) {
	if n != nil {
		of.WithLabelValues(labels...).Set(float64(*n) / 100 / by)
	}
}
