// Package tenantmodel predicts the effect of generated company and subscription events ([generate.CompanyStream]).
//
// While a [Generator] makes them, a judge that shares no
// code with the service keeps the [World] that must result: companies, users, subscriptions, money, the inbox, and every event
// that has to be published, by its id. A caller fills another World from what the stores and topics hold, and compares.
//
//	g, err := tenantmodel.New(tenantmodel.Config{Seed: 1, Companies: 50, Events: 2000, Phases: 5, Prefix: "t-", Now: time.Now()})
//	for m, ok := g.Next(); ok; m, ok = g.Next() { ... } // publish; before a higher m.Phase, wait for ResultsThrough(m.Phase-1)
//	for _, difference := range g.Expected().Compare(observed) { ... }
//
// For histories of any kind, with the events of the schedule where they stand in the log, there is a [Judge].
//
// # Rules, where they could be read in more than one way
//
//   - A request is judged in this order: company, expected tier, path, payment.
//   - A user counts against max_users whether active or suspended.
//   - A downgrade to a tier without a price has a billing transaction of 0, also when it comes at the period's end; cancellation and
//     expiry have none.
//   - A configuration is published when it is registered, when the company patches it and when the tier changes; a renewal that keeps
//     the tier publishes none.
//   - A company that is closed keeps its tier; what else becomes of its subscription is not judged. The subscription ends where the closing
//     stands in the log of subscription.events.
//   - A purged company leaves its row, its transactions and its payments.
//   - A rejected event leaves no trace but its row in the inbox and its result.
//   - A renewal is judged in this order: is there something that could go on, is it the same period again, does the company leave, the
//     period, the payment.
//   - An override that ends at or before the time of an event of company.events ends before it; the time of no event of that topic is taken
//     to be earlier than the last one's that had an effect. One that would end when it begins is refused (invalid_period).
//   - A configuration is published by an override as well if max_users is another number then. Which number the tier gives depends on the
//     order of the topics, so overrides must not set max_users to one that a tier has, nor to "unlimited".
//   - A payment that failed and is named again is pending again.
package tenantmodel
