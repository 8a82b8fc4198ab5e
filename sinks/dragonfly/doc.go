// Package dragonfly keeps what must be fresh within milliseconds: the daily quota counters, and a cache of users and
// companies. It speaks only what Dragonfly and Redis have in common.
//
// # Counting
//
// A user's counters of a UTC day, and how far they are counted, live in one hash and change in one script call: see
// count.lua. Each partition of a log has a field there: its epoch, its watermark and its share of the counts. A call
// counts a user's events of a range [from, to). If the watermark is at or behind to, they have been counted; if it is not
// behind from, they are counted, and it becomes to; in between, the caller sends what lies behind it. So a retry, a
// redelivery, another process that counts the same range, and a recount are one case.
//
// A watermark written over a gap never heals within its epoch, so a call may be sent only if everything before it was
// counted in the store that answers: one connection a session, no command sent twice, and a look before the first.
//
// # Sentinels and epochs
//
// A look reads the sentinels, a handful of keys with the epoch and how far each partition is counted. If one is missing,
// the store has lost something. Progress there covers only what was counted before, so on a server whose data is a prefix
// of one order of writes, an owner that goes on at the lowest progress has no gap. Where that is not so, on another
// Dragonfly and after a loss, a new epoch begins: the day is recounted from the log, and the first call for a user
// clears what an earlier epoch has counted. See [State], and docs/quotas.md for the order of events behind each rule.
package dragonfly
