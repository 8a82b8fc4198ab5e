// Package business computes the business metrics of an installation: over all companies, what internal/analytics says of one.
//
//	meter := business.New(business.Config{Companies: store, Usage: usage, Tiers: catalogue})
//	report, err := meter.Report(ctx, time.Now()) // GET /v1/business-metrics
//
// [Of] is a pure function of [Facts]; a [Meter] reads those from the stores, with a fixed number of statements however many companies there are.
// A [Reporter] stores a report an hour and publishes it, and [Samples] are the queries of which the latency is taken.
// docs/business-metrics.md has the formulas for readers of the reports.
//
// What can't be computed is null, with a reason: there is no division by zero, and no number that stands for "not known".
package business
