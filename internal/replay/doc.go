// Package replay finds events whose effect is missing and publishes them again.
//
// It never writes to a store. It reads the records of a topic from a [Source], asks the stores which of their events have
// had their effect, and publishes the others again as they were: the same bytes, key and headers, to the same topic and
// partition, where the partition's owner decides about them as about any event. So a partition still has one writer, and a
// replay can't race live traffic.
package replay
