package fetch

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"time"

	"tenantflow/events"
)

// maxKeptHeaders bounds the headers of a record that is shown without its value.
const maxKeptHeaders = 256

// large fills r.record from a record whose bytes are not kept: they are counted and hashed while they pass. A record before
// from is passed over, only its offset is set.
func (r *Reader) large(s *stream, length, from int64) error {
	in := passing{stream: s, left: length}
	in.pass(1, nil) // attributes, unused
	at := in.varint()
	rec := &r.record
	*rec = events.Record{Topic: r.topic, Partition: r.partition, Offset: r.base + in.varint(), Time: r.time(at), Headers: rec.Headers[:0]}
	r.RecordBytes = 0
	if rec.Offset >= from {
		r.measure(&in)
	}
	in.pass(in.left, nil)
	if in.short {
		return s.failed()
	}
	return nil
}

// measure goes through key, value and headers.
func (r *Reader) measure(in *passing) {
	rec := &r.record
	l := &events.LargeRecord{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, OriginalTime: rec.Time.UTC().Format(time.RFC3339Nano)}
	hashed := func(keep bool) (kept []byte, size int, sum string) {
		h := sha256.New()
		kept, size = in.field(keep, h)
		return kept, size, hex.EncodeToString(h.Sum(nil))
	}
	var key []byte
	key, l.KeyBytes, l.KeySHA256 = hashed(true)
	_, l.ValueBytes, l.ValueSHA256 = hashed(false)
	n := in.varint()
	l.KeyKept = l.KeyBytes <= events.LargeRecordKeeps && n <= maxKeptHeaders
	for ; n > 0 && !in.short; n-- {
		name, nameBytes := in.field(l.KeyKept, nil)
		value, valueBytes := in.field(l.KeyKept, nil)
		l.HeaderBytes += nameBytes + valueBytes
		if l.KeyKept = l.KeyKept && l.KeyBytes+l.HeaderBytes <= events.LargeRecordKeeps; l.KeyKept {
			rec.Headers = append(rec.Headers, events.Header{Key: string(name), Value: value})
		}
	}
	if l.KeyKept {
		rec.Key = key
		r.RecordBytes = l.KeyBytes + l.HeaderBytes
	} else {
		rec.Headers = rec.Headers[:0]
	}
	rec.Large = l
}

// A passing is a record that is read without being kept. Reading past its end gives zeros and sets short.
type passing struct {
	*stream
	left  int64
	short bool
}

func (in *passing) varint() int64 {
	if len(in.b) < binary.MaxVarintLen64 {
		in.fill(binary.MaxVarintLen64) // or as many as there are: what is taken is counted
	}
	before := len(in.b)
	v, ok := in.stream.varint()
	in.left -= int64(before - len(in.b))
	if !ok || in.left < 0 {
		in.short, in.left = true, 0
		return 0
	}
	return v
}

// pass takes n bytes, and shows them to h in pieces.
func (in *passing) pass(n int64, h hash.Hash) {
	if n < 0 || n > in.left {
		in.short, in.left = true, 0
		return
	}
	in.left -= n
	for n > 0 {
		if len(in.b) == 0 && !in.fill(1) {
			in.short, in.left = true, 0
			return
		}
		part := in.b[:min(n, int64(len(in.b)))]
		if h != nil {
			h.Write(part)
		}
		in.b = in.b[len(part):]
		n -= int64(len(part))
	}
}

// field takes a length and as many bytes, shows them to h, and returns their number, and a copy if they are few and to be
// kept. A negative length is null.
func (in *passing) field(keep bool, h hash.Hash) (kept []byte, size int) {
	n := in.varint()
	switch {
	case n < 0:
		return nil, 0
	case !keep || n > events.LargeRecordKeeps || n > in.left:
		in.pass(n, h)
		return nil, int(n)
	}
	b, ok := in.take(int(n))
	if !ok {
		in.short, in.left = true, 0
		return nil, 0
	}
	in.left -= n
	if h != nil {
		h.Write(b)
	}
	return append(make([]byte, 0, len(b)), b...), len(b)
}
