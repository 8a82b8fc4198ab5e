// Package analytics answers questions about companies' business from what they use and what they pay: what they were
// charged and where that goes ([RevenueOf]), who needs a larger tier ([Upsell]), and who is about to leave ([ChurnRisks]).
//
// The rules are pure functions over usage that was added up: they know no store and no clock. An [Analyst] reads what they need, usage
// from the daily totals in ClickHouse ([Usage]) and what holds for the company from Postgres, and puts the answer together.
//
// Days and months are those of UTC. The day and the month of the analysis are not over and left out; revenue shows the present month and marks it. Everything is computed exactly and
// rounded once, half to even, to two decimals ([Hundredths]). docs/business-metrics.md has the formulas for readers of the answers.
package analytics
