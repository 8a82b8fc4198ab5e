// Package logs keeps the log short where the same thing happens over and over: a store that is down for a minute, a producer that
// gets every event wrong, two hundred partitions that begin at once.
//
// [Troubles] say what is in the way once when it begins, now and then while it lasts, and once when it is over:
//
//	troubles := logs.NewTroubles(log)
//	troubles.Say(ctx, logs.Trouble{Message: "waiting for Postgres", Of: "usage.events/3", Err: err})
//	...
//	troubles.Over(ctx, "waiting for Postgres", "usage.events/3")
//
// A [Tally] writes the first of like lines whole, and then how many there were in each [TallyInterval].
//
// Both decide by what is said, never by how much of it: an error with another text is another line. What differs only in numbers is
// alike (see [Alike]).
package logs
