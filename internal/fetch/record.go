package fetch

import (
	"encoding/binary"
	"errors"
	"time"

	"tenantflow/events"
)

// headerBytes is what a header takes in memory besides its bytes.
const headerBytes = 40

// errManyHeaders says that a record has so many headers that it would take more memory than the largest record.
var errManyHeaders = errors.New("it has too many headers")

// parse fills r.record from one record of the batch at hand, without copying.
func (r *Reader) parse(in *input) error {
	rec := &r.record
	size := len(in.b)
	in.skip(1) // attributes, unused
	rec.Topic, rec.Partition, rec.Large = r.topic, r.partition, nil
	rec.Time = r.time(in.varint())
	rec.Offset = r.base + in.varint()
	rec.Key = in.nullable()
	rec.Value = in.nullable()
	rec.Headers = rec.Headers[:0]
	n := in.varint()
	if n > int64(LargestRecord-size)/headerBytes {
		return errManyHeaders
	}
	before := rec.Headers[:cap(rec.Headers)]
	for ; n > 0 && !in.short; n-- {
		key := in.bytes(int(in.varint()))
		name := ""
		if at := len(rec.Headers); at < len(before) && before[at].Key == string(key) {
			name = before[at].Key // a producer's records have the same headers in the same places
		} else {
			name = r.keys.of(key)
		}
		rec.Headers = append(rec.Headers, events.Header{Key: name, Value: in.nullable()})
	}
	if in.short {
		return errShort
	}
	r.RecordBytes = size
	return nil
}

// time is that of a record of the batch at hand, by what it says itself.
func (r *Reader) time(delta int64) time.Time {
	if r.appended != 0 {
		return time.UnixMilli(r.appended)
	}
	return time.UnixMilli(r.first + delta)
}

// An input is bytes to be read from the front. Reading past the end gives zeros and sets short.
type input struct {
	b     []byte
	short bool
}

func (in *input) bytes(n int) []byte {
	if n < 0 || n > len(in.b) {
		in.short, in.b = true, nil
		return nil
	}
	v := in.b[:n:n]
	in.b = in.b[n:]
	return v
}

func (in *input) skip(n int) { in.bytes(n) }

func (in *input) int16() int16 {
	if v := in.bytes(2); v != nil {
		return int16(binary.BigEndian.Uint16(v)) // #nosec G115 -- bits on the wire
	}
	return 0
}

func (in *input) int32() int32 {
	if v := in.bytes(4); v != nil {
		return int32(binary.BigEndian.Uint32(v)) // #nosec G115 -- bits on the wire
	}
	return 0
}

func (in *input) int64() int64 {
	if v := in.bytes(8); v != nil {
		return int64(binary.BigEndian.Uint64(v)) // #nosec G115 -- bits on the wire
	}
	return 0
}

// varint reads a zigzag varint. Most have one byte.
func (in *input) varint() int64 {
	if len(in.b) > 0 && in.b[0] < 0x80 {
		v := in.b[0]
		in.b = in.b[1:]
		return int64(v>>1) ^ -int64(v&1)
	}
	v, n := binary.Varint(in.b)
	if n <= 0 {
		in.short, in.b = true, nil
		return 0
	}
	in.b = in.b[n:]
	return v
}

// nullable reads a length and as many bytes; a negative length is null.
func (in *input) nullable() []byte {
	n := in.varint()
	if n < 0 {
		return nil
	}
	return in.bytes(int(n))
}

// names keeps the few header names that occur, so that naming one costs no allocation.
type names struct {
	known map[string]string
}

// knownNames bounds what is kept: header names are the producers' to choose.
const knownNames = 256

func (n *names) of(b []byte) string {
	if s, ok := n.known[string(b)]; ok {
		return s
	}
	s := string(b)
	if n.known == nil {
		n.known = make(map[string]string, 16)
	}
	if len(n.known) < knownNames && len(s) <= 64 {
		n.known[s] = s
	}
	return s
}
