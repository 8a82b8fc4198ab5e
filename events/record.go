package events

import "time"

// A Header is one header of a Kafka record. Keys are case-sensitive and may repeat.
type Header struct {
	Key   string
	Value []byte
}

// A Record is one record of a Kafka topic: its place in the log and its bytes. The package depends on no Kafka
// client, so the reader of the log fills it in.
//
// The byte slices belong to the reader that made the record and are valid only until that reader moves on: what is kept
// must be copied.
type Record struct {
	Topic     string
	Partition int
	Offset    int64

	// Time is the record's timestamp, the same on every delivery: when the broker appended it if the topic says so
	// (LogAppendTime), else what the producer wrote.
	Time time.Time

	// Key is nil when the record has none. Value is nil for a tombstone.
	Key     []byte
	Value   []byte
	Headers []Header

	// Large is set for a record that is larger than its reader keeps in memory, and stands for the bytes that are not here:
	// Value is nil, and Key and Headers are there only if Large.KeyKept says so.
	Large *LargeRecord
}
