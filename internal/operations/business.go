package operations

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tenantflow/internal/analytics"
	"tenantflow/internal/business"
)

// Business is the last report of the business metrics, as far as it is shown.
type Business struct {
	// ReportedAt is when the metrics were computed; missing: there is no report yet.
	ReportedAt time.Time `json:"reported_at,omitzero"`
	// Health is the health score, 0 to 100; null: nothing could be measured.
	Health *analytics.Hundredths `json:"health_score"`
	// Leaks are rights found that reach across companies.
	Leaks  int64            `json:"isolation_leaks"`
	Months []business.Month `json:"months"` // the oldest first, the present one last; one for each currency
}

// businessFrom shows the last report.
func businessFrom(last func(context.Context) (*business.Report, error)) func(context.Context) (Business, error) {
	return func(ctx context.Context) (Business, error) {
		r, err := last(ctx)
		if err != nil || r == nil {
			return Business{Months: []business.Month{}}, err
		}
		return Business{ReportedAt: r.ReportedAt, Health: r.Health.Score, Leaks: r.Isolation.Leaks, Months: r.Months}, nil
	}
}

// A ledgerPage is what the page shows of the months in one currency.
type ledgerPage struct {
	Currency string
	Others   string // other currencies, in words
	Months   []business.Month
	Tiers    []string // that had a user or revenue
	Charts   []chart
}

// ledgerOf picks the currency with the most revenue, and draws its months.
func ledgerOf(b Business) ledgerPage {
	revenue, order := map[string]analytics.Hundredths{}, []string{}
	for i := range b.Months {
		m := &b.Months[i]
		if _, seen := revenue[m.Currency]; !seen {
			order = append(order, m.Currency)
		}
		revenue[m.Currency] += m.Revenue
	}
	p := ledgerPage{}
	for _, currency := range order {
		if p.Currency == "" || revenue[currency] > revenue[p.Currency] {
			p.Currency = currency
		}
	}
	var others []string
	for _, currency := range order {
		if currency != p.Currency {
			others = append(others, currency)
		}
	}
	p.Others = strings.Join(others, ", ")
	seen := map[string]bool{}
	for i := range b.Months {
		m := &b.Months[i]
		if m.Currency != p.Currency {
			continue
		}
		p.Months = append(p.Months, *m)
		for j := range m.Tiers {
			if t := &m.Tiers[j]; !seen[t.Tier] && (t.Users > 0 || t.Revenue != 0) {
				seen[t.Tier] = true
				p.Tiers = append(p.Tiers, t.Tier)
			}
		}
	}
	p.Charts = p.draw()
	return p
}

// draw makes the charts.
func (p *ledgerPage) draw() []chart {
	values := func(of func(m *business.Month) *float64) []*float64 {
		all := make([]*float64, len(p.Months))
		for i := range p.Months {
			all[i] = of(&p.Months[i])
		}
		return all
	}
	amount := func(n *analytics.Hundredths) *float64 {
		if n == nil {
			return nil
		}
		v := float64(*n) / 100
		return &v
	}
	names := make([]string, len(p.Months))
	for i := range p.Months {
		names[i] = p.Months[i].Month.String()
	}
	money := func(v float64) string { return fmt.Sprintf("%s %s", round(v), p.Currency) }
	mrr := barChart("mrr", "Monthly recurring revenue", names, values(func(m *business.Month) *float64 { return amount(&m.MRR) }), money)
	users := barChart("users", "Active users", names, values(func(m *business.Month) *float64 {
		v := float64(m.Users)
		return &v
	}), round)
	churn := barChart("churn", "Companies that left, of those that paid", names, values(func(m *business.Month) *float64 { return amount(m.Churn.Percentage) }),
		func(v float64) string { return round(v) + " %" }).withTarget(5, "target: under 5 %")
	var lines []series
	for _, name := range p.Tiers {
		lines = append(lines, series{name, values(func(m *business.Month) *float64 {
			for i := range m.Tiers {
				if m.Tiers[i].Tier == name {
					return amount(m.Tiers[i].ARPU)
				}
			}
			return nil
		})})
	}
	return []chart{mrr, users, lineChart("arpu", "Revenue for each active user, by tier", names, lines, money), churn}
}

// ARPU is that of a tier in a month, as it is shown.
func (p ledgerPage) ARPU(m business.Month, name string) string {
	for i := range m.Tiers {
		if m.Tiers[i].Tier == name && m.Tiers[i].ARPU != nil {
			return m.Tiers[i].ARPU.String()
		}
	}
	return "–"
}

// Churn is that of the paid tiers in a month, as it is shown.
func (p ledgerPage) Churn(m business.Month) string {
	if m.Churn.Percentage == nil {
		return "–"
	}
	return m.Churn.Percentage.String() + " %"
}
