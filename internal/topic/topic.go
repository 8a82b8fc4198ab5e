// Package topic says which topics an installation has and how they are set up, creates those that are missing and
// reports what is different about those that are not.
//
// It never changes a topic that exists: its settings may be an operator's decision, and the order of events per company
// hangs on the number of partitions.
package topic

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"tenantflow/events"
)

// Sizes and times of the topics created here.
const (
	// DefaultMaxMessageBytes is the largest record batch a topic takes; a record alone in its batch must fit as well.
	DefaultMaxMessageBytes = 1 << 20
	// DeadLetterRoom is what a dead letter topic takes beyond its input: the headers that say why, and the larger frame.
	DeadLetterRoom = 64 << 10

	day = 24 * time.Hour
	// The log of usage is the largest, and what it says is in ClickHouse after seconds. A week is for looking back.
	usageRetention = 7 * day
	// Inputs and results of other services: a reader may be away for some weeks.
	eventRetention = 30 * day
	// A dead letter waits for a person.
	deadLetterRetention = 365 * day
)

// Names of the settings of a topic that are looked at.
const (
	cleanupPolicy   = "cleanup.policy"
	maxMessageBytes = "max.message.bytes"
	minInSync       = "min.insync.replicas"
	retention       = "retention.ms"
	timestampType   = "message.timestamp.type"
)

// Settings are an installation's choices about its topics.
type Settings struct {
	Prefix          string // put in front of every name, verbatim
	Partitions      int    // of a new topic; default 8
	Replication     int    // copies of a new topic; default 1
	MaxMessageBytes int    // of a new topic that is no dead letter topic; default DefaultMaxMessageBytes
}

// A Topic is a topic as it should be.
type Topic struct {
	Name        string // with the prefix
	Partitions  int
	Replication int
	Config      map[string]string // by Kafka's names
	DeadLetters string            // the topic whose dead letters it takes; empty for all others
}

// All returns the topics of an installation, dead letter topics behind the topics they belong to.
func All(s Settings) []Topic {
	if s.Partitions == 0 {
		s.Partitions = 8
	}
	if s.Replication == 0 {
		s.Replication = 1
	}
	if s.MaxMessageBytes == 0 {
		s.MaxMessageBytes = DefaultMaxMessageBytes
	}

	var topics []Topic
	for _, info := range events.Topics() {
		t := s.topic(s.Prefix+info.Name, eventRetention)
		switch info.Name {
		case events.TopicUsage:
			t.Config[retention] = milliseconds(usageRetention)
		case events.TopicCompanyConfig:
			// The last configuration of every company, forever.
			t.Config[cleanupPolicy] = "compact"
			delete(t.Config, retention)
		}
		topics = append(topics, t)
		if info.Input {
			letters := s.topic(events.DeadLetterTopic(t.Name), deadLetterRetention)
			letters.Config[maxMessageBytes] = strconv.Itoa(s.MaxMessageBytes + DeadLetterRoom)
			letters.DeadLetters = t.Name
			topics = append(topics, letters)
		}
	}
	return topics
}

func (s Settings) topic(name string, keep time.Duration) Topic {
	return Topic{
		Name:        name,
		Partitions:  s.Partitions,
		Replication: s.Replication,
		Config: map[string]string{
			cleanupPolicy:   "delete",
			maxMessageBytes: strconv.Itoa(s.MaxMessageBytes),
			// An acknowledged event must survive the loss of one broker, and one broker being away must stop no producer.
			minInSync: strconv.Itoa(max(1, s.Replication-1)),
			retention: milliseconds(keep),
			// With the producers' clocks, one producer in the future could keep its segment forever, one in the past
			// could lose it at once.
			timestampType: "LogAppendTime",
		},
	}
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func configNames() []string {
	return []string{cleanupPolicy, maxMessageBytes, minInSync, retention, timestampType}
}

// names returns the topics' names in their order.
func names(topics []Topic) []string {
	all := make([]string, len(topics))
	for i, t := range topics {
		all[i] = t.Name
	}
	return all
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
