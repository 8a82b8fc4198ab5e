// Package redrive publishes the events of dead letters again: to their original topic and partition, with the original key, headers and
// bytes, or with data that a patch has mended. It is a kind of task, see [tenantflow/internal/task].
//
// Like a replay it never writes to a store. It asks the stores first, so that an event that has had its effect is not published again,
// and then the owner of the partition decides, as about any event: the same identity twice has one effect. Which consumers may act on
// a redriven record is in its header replay-effects, which follows from the topic: usage, subscription or company. Quota is never
// among them: a counter counts what its log holds, and heals by a recount.
//
// The state of each letter, in the table dead_letters, moves with the task's position in one transaction.
package redrive
