package producer

import (
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
)

// A Key says which id is the key of a record, and so decides its partition. A resend must have the same key, so choose once.
type Key int

// The keys.
const (
	ByCompany Key = iota // company_id
	ByUser               // user_id: spreads a large company's users over the partitions
)

// A Config is what a producer is made with. Brokers and Source are required.
type Config struct {
	// Brokers are addresses to begin with, HOST:PORT; the other brokers are learned from them.
	Brokers []string
	// Source is the CloudEvents source of all events, such as /data-bridge/eu-1. With an event's id it is its identity, so it names the
	// installation and not the process: whichever process sends an event again has to name the same.
	Source string
	// Topic is the topic's full name, with the installation's prefix. Default: usage.events.
	Topic string
	// Key is what records are keyed by. Default: ByCompany.
	Key Key

	// Transport connects to the brokers. Set it for TLS and SASL; it stays the caller's to close. Default: one without either, which Close
	// ends with all its connections.
	Transport kafka.RoundTripper

	// BufferEvents and BufferBytes bound the events without an outcome: how many, and the bytes of their records together. Enqueue waits at
	// either. Default: 10,000 and 64 MiB.
	BufferEvents int
	BufferBytes  int64
	// ChunkEvents and ChunkBytes bound one request. An event that is larger is a request of its own. ChunkBytes should be less than the topic's
	// max.message.bytes: a larger request is refused and sent in halves, which costs time. Default: 1,000 and 900 KiB.
	ChunkEvents int
	ChunkBytes  int64

	// Timeout is how long after Enqueue an event is given up. It is looked at between tries, so it may be exceeded by one request and one pause (up to 3 s).
	// Default: 2m.
	Timeout time.Duration
	// RequestTimeout bounds one request; brokers get half of it to replicate. Default: 10s.
	RequestTimeout time.Duration

	// Limits are the bounds of an event's timestamp, against this machine's clock, as the service has them set. Default: an hour ahead, 730
	// days behind.
	Limits events.UsageLimits

	// Done is called once with the outcome of every event that Enqueue has accepted, in order for one key, and from several goroutines at once: one for
	// each partition, which waits for it. It must not wait for room itself: use TryEnqueue in it, or enqueue elsewhere. Default: none;
	// then failures show in Stats alone.
	Done func(Outcome)
}

// withDefaults fills in what is not set, and names everything that is wrong.
func (c Config) withDefaults() (Config, error) {
	var wrong []error
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf("producer: "+format, args...)) }
	if len(c.Brokers) == 0 {
		bad("Brokers is empty: give at least one HOST:PORT")
	}
	if c.Source == "" || !events.ValidAttribute(c.Source) {
		bad("Source is %q: give a name such as /data-bridge/eu-1, UTF-8 without control characters", c.Source)
	}
	if c.Topic == "" {
		c.Topic = events.TopicUsage
	}
	if c.Key != ByCompany && c.Key != ByUser {
		bad("Key is %d: choose ByCompany or ByUser", c.Key)
	}
	count := func(name string, value *int, otherwise int) {
		if *value < 0 {
			bad("%s is %d: give 1 or more, or 0 for %d", name, *value, otherwise)
		} else if *value == 0 {
			*value = otherwise
		}
	}
	bytes := func(name string, value *int64, otherwise int64) {
		if *value < 0 {
			bad("%s is %d: give 1 or more, or 0 for %d", name, *value, otherwise)
		} else if *value == 0 {
			*value = otherwise
		}
	}
	duration := func(name string, value *time.Duration, otherwise time.Duration) {
		if *value < 0 {
			bad("%s is %s: give more than 0, or 0 for %s", name, *value, otherwise)
		} else if *value == 0 {
			*value = otherwise
		}
	}
	count("BufferEvents", &c.BufferEvents, 10_000)
	bytes("BufferBytes", &c.BufferBytes, 64<<20)
	count("ChunkEvents", &c.ChunkEvents, 1000)
	bytes("ChunkBytes", &c.ChunkBytes, 900<<10)
	duration("Timeout", &c.Timeout, 2*time.Minute)
	duration("RequestTimeout", &c.RequestTimeout, 10*time.Second)
	return c, errors.Join(wrong...)
}
