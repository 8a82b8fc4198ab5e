// Package yearmodel makes a year of a platform's companies from a seed, and knows what the analyses must answer about them.
//
// A [World] has companies with a life of their own - tiers that go up and down, renewals, failed payments, expiries, users who come and
// leave - and the usage of each user on each day. Everything follows from the seed, so the same config gives the same world. Its lives are
// events for the service ([Step]); what each of them costs the company is written down while they are made.
//
//	w, err := yearmodel.New(yearmodel.Config{Seed: 1, Companies: 200, Users: 5000, Rows: 20_000_000, Now: time.Now()})
//	m := yearmodel.NewModel(w)
//	err = w.Usage(func(r *yearmodel.Row) error { m.Add(r); return insert(r) })
//	for _, d := range m.Compare(yearmodel.Revenue(12), w.Companies[0], at, answer) { ... } // answer: the JSON of the service
//
// A [Model] adds up the rows on its own. It is written from docs/business-metrics.md and shares no code with the service: neither its
// sums, nor its proration, periods, rounding or catalogue of tiers. A difference means that the code or the document is wrong.
//
// The forecast is an estimate in floating point, and the document does not say which weights it tries. So the model checks when there is
// one, of which months and from how many, that its interval is in order, that it is not below what was charged already, and its value where all
// months were equal.
package yearmodel
