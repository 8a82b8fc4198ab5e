// Package dragonfly keeps what must be fresh within milliseconds: the daily quota counters, and a cache of users and
// companies. It speaks only what Dragonfly and Redis have in common.
//
// # Counting
//
// Every usage event is counted once into the hash quota:{<user>}:<day>, whatever is delivered how often. One script does
// it for all events of a user and a day in a batch: it asks a set for the events' identities, counts those that are new,
// adds them to the set and gives everything its expiry, in one step. See count.lua.
//
// The sets cover a window of time, because an identity costs memory. What lies further back is covered by the progress
// of each partition, which stands beside the counters and so goes back in time with them: see [Progress]. A batch is
// announced there before it is counted. After that a reader knows at any time which events are counted for sure, which
// are not, and which range may be half counted; and half counted ranges are counted again, since the sets know what of
// them is done.
//
// # Epochs
//
// If the counters are lost, or a half counted range is older than the sets, everything of the day is counted anew, from the
// log. Such a new beginning has a number, the epoch, which every hash carries: the first call of a new epoch throws an older
// hash away, and a call of an older epoch is refused. So no two members have to agree on a moment at which to clear.
package dragonfly
