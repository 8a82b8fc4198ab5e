package dragonfly

import (
	"strconv"
	"time"
)

// dayLayout is how a UTC day is written in keys and events.
const dayLayout = "2006-01-02"

// QuotaKey is the hash with a user's counters of a UTC day.
func QuotaKey(user string, day time.Time) string {
	return "quota:{" + user + "}:" + day.UTC().Format(dayLayout)
}

// identitiesKey is the set of the events of a user counted in an epoch, by the bucket of their records' times.
func identitiesKey(user string, epoch, bucket int64) string {
	return "quota_seen:{" + user + "}:" + strconv.FormatInt(epoch, 36) + ":" + strconv.FormatInt(bucket, 36)
}

// progressKey is the hash with how far each partition of a topic is counted.
func progressKey(topic string) string { return "quota_progress:{" + topic + "}" }
