package engine

import (
	"io"
	"os"
	"time"
)

// Options say where and how one engine runs.
type Options struct {
	// Dir holds the engine's data and its log. It is created when missing, and reused with its data when there.
	// Required.
	Dir string

	// Port on 127.0.0.1. 0 takes a free one, which the engine keeps over restarts.
	Port int

	// Log gets a line for each thing that is installed. nil is standard error.
	Log io.Writer

	// Kind of Kafka; default Embedded.
	Kind KafkaKind

	// KafkaConfig are broker settings by Kafka's own names (message.max.bytes, ...), over those of this package.
	KafkaConfig map[string]string

	// Listeners are names of more listeners of Apache Kafka, each on a port of its own ([Kafka.Listener]). Their security is in
	// KafkaConfig: listener.security.protocol.map and what begins with listener.name.
	Listeners []string

	// ClickHouseConfig is the path of a configuration file of ClickHouse's own. It is read at each start.
	ClickHouseConfig string

	// Advertise, if set, is called with Apache Kafka's own HOST:PORT before it starts and returns the one it
	// advertises: that of a proxy in front of it. The embedded broker always advertises its own.
	Advertise func(addr string) string

	// Persistence of Redis; default AppendOnly.
	Persistence Persistence

	// Env is added to the environment of the engine's process, as NAME=VALUE.
	Env []string

	// Unsynced leaves out PostgreSQL's and the embedded broker's fsync: faster, and as durable against the death of
	// the process, but not of the machine.
	Unsynced bool
}

// A KafkaKind is a kind of broker.
type KafkaKind string

// The kinds of broker.
const (
	Embedded KafkaKind = "embedded" // kfake in a process of its own: up in milliseconds
	Apache   KafkaKind = "apache"   // Apache Kafka on KRaft, one node: up in three seconds
)

// Persistence says what Redis remembers.
type Persistence string

// What Redis remembers.
const (
	AppendOnly Persistence = "aof"  // every write that was answered
	Snapshot   Persistence = "rdb"  // the state at the last Stop or SAVE, as Dragonfly does it
	Forgetful  Persistence = "none" // nothing
)

// startLimit is how long an engine may take until it answers; stopLimit how long a clean stop may take before the
// engine is killed.
const (
	startLimit = 5 * time.Minute
	stopLimit  = time.Minute
)

func (o Options) log() io.Writer {
	if o.Log == nil {
		return os.Stderr
	}
	return o.Log
}
