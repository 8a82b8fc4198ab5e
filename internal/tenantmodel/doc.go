// Package tenantmodel makes company and subscription events and predicts their effect.
//
// A [Generator] is seeded: the same Config gives the same messages, byte for byte. While it makes them, a judge that shares no
// code with the service keeps the [World] that must result: companies, users, subscriptions, money, the inbox, and every event
// that has to be published, by its id. A caller fills another World from what the stores and topics hold, and compares.
//
//	g, err := tenantmodel.New(tenantmodel.Config{Seed: 1, Companies: 50, Events: 2000, Phases: 5, Prefix: "t-", Now: time.Now()})
//	for m, ok := g.Next(); ok; m, ok = g.Next() { ... } // publish; before a higher m.Phase, wait for ResultsThrough(m.Phase-1)
//	for _, difference := range g.Expected().Compare(observed) { ... }
//
// # What makes the end the same in every order
//
// The two topics are read by different consumers, so the events of one company interleave in any way; only within a topic
// they keep their order. The events of a phase are made so that this does not matter:
//
//   - A company is quiet or moving in a phase. While it is quiet no event changes its tier, and users come and go. While it is
//     moving its tier changes, and its users stay (but for one who takes the place of the only one).
//   - The time of an effect is never before the last one of the same topic, and only subscription.events move a subscription in time. So
//     what is priced by time is not touched by the other topic.
//   - User ids rise in the order in which users come. So "the first by created_at and user_id" are the same users, whatever moment
//     two of them were moved to.
//   - A company closes in a phase in which nothing comes for it from subscription.events.
//   - What belongs to another company (a user, a payment) is named only in a later phase.
//   - Subscription events may be produced before the registration of their company; in the order of times they come after it, or the
//     company has no other company events in that phase.
//
// Between phases the caller waits, so everything may depend on what an earlier phase has left. With one phase there is no wait.
//
// # What falls due
//
// Periods and grace periods end after Config.Now, so that nothing is due by the clock. Lapsed companies (Config.Lapsed) are the
// exception. Some subscribed forty days before, and their period has ended: whether an event of the schedule finds that or the next event
// does, the effect has the same identity. Publish all events of a phase before the schedule can put its own between them. Of the others
// (Config.Soon) something falls due soon after Now, and the caller waits until then.
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
//   - A company that is closed keeps its tier; what else becomes of its subscription is not judged.
//   - A purged company leaves its row, its transactions and its payments.
//   - A rejected event leaves no trace but its row in the inbox and its result.
//   - A renewal is judged in this order: is there something that could go on, is it the same period again, does the company leave, the
//     period, the payment.
//   - A payment that failed and is named again is pending again.
//
// Not generated: an email that two users of a company share, a user who comes back.
package tenantmodel
