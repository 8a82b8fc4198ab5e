package dragonfly

import (
	"hash/fnv"
	"strconv"
	"time"
)

// dayLayout is how a UTC day is written in keys, sentinels and events.
const dayLayout = "2006-01-02"

// QuotaKey is the hash with a user's counters of a UTC day.
func QuotaKey(user string, day time.Time) string {
	return "quota:{" + user + "}:" + day.UTC().Format(dayLayout)
}

// sentinels is how many there are: over several hash tags, so that the loss of one thread of Dragonfly is likely to show.
const sentinels = 8

// SentinelKey is the nth hash that shows, by being there, that nothing was lost; n counts from 0 to 7.
func SentinelKey(n int) string { return "quota_sentinel:{" + strconv.Itoa(n) + "}" }

// topicField is a topic in the fields of sentinels and counters: up to 7 letters and digits.
func topicField(topic string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(topic)) // never an error
	return strconv.FormatUint(uint64(h.Sum32()), 36)
}

// partitionField is a partition in the fields of sentinels.
func partitionField(topic string, partition int) string {
	return topicField(topic) + "." + strconv.Itoa(partition)
}

// shareField is the log of a partition in the fields of counters. A log that was deleted and created again is another
// incarnation, with a share of its own.
func shareField(topic string, partition int, incarnation int64) string {
	field := partitionField(topic, partition)
	if incarnation > 0 {
		field += "~" + strconv.FormatInt(incarnation, 10)
	}
	return field
}
