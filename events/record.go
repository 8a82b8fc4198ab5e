package events

import (
	"encoding/binary"
	"time"

	"github.com/cespare/xxhash/v2"
)

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

// ContentHash is the xxHash64 of key, value and headers, each part behind its length, and behind them of the hashes that stand for what is not
// here of a record that is Large. Absent and empty bytes count as the same: not every client keeps them apart. Marks of a log are kept with
// it, so it can't be changed.
func (r *Record) ContentHash() uint64 {
	var d xxhash.Digest
	d.Reset()
	var length [8]byte
	part := func(b []byte) {
		binary.LittleEndian.PutUint64(length[:], uint64(len(b)))
		_, _ = d.Write(length[:]) // never fails, as all that follow
		_, _ = d.Write(b)
	}
	part(r.Key)
	part(r.Value)
	for _, h := range r.Headers {
		binary.LittleEndian.PutUint64(length[:], uint64(len(h.Key)))
		_, _ = d.Write(length[:])
		_, _ = d.WriteString(h.Key)
		part(h.Value)
	}
	if l := r.Large; l != nil {
		_, _ = d.WriteString(l.KeySHA256 + l.ValueSHA256)
	}
	return d.Sum64()
}
