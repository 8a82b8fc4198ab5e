// Package analytics answers questions about companies' business from what they use and what they pay: what they were
// charged and where that goes ([RevenueOf]), who needs a larger tier ([Upsell]), and who is about to leave ([ChurnRisks]).
//
// The rules are pure functions over usage that was added up: they know no store and no clock. An [Analyst] reads what they need, usage
// from the daily totals in ClickHouse ([Usage]) and what holds for the company from Postgres, and puts the answer together.
//
// Days and months are those of UTC. Everything is computed exactly and rounded once, half to even, to two decimals ([Hundredths]).
// docs/business-metrics.md has the formulas for readers of the answers.
//
// Upsell and churn leave out the day and the month of the analysis, which are not over, and go by the tier, the limits and the active users of
// now. Revenue shows the present month and marks it.
package analytics
