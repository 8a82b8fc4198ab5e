package fetch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/segmentio/kafka-go/compress"

	"tenantflow/events"
)

// answer is the part of a Fetch answer (version 4) that speaks of the one partition asked for.
type answer struct {
	code          int16
	highWatermark int64
	lastStable    int64
	aborted       []abortedTransaction
	records       []byte
}

type abortedTransaction struct{ producer, first int64 }

// parseAnswer reads: throttle time, then per topic its name and per partition number, error, high watermark, last
// stable offset, aborted transactions, records.
func parseAnswer(b []byte) (answer, error) {
	in := input{b: b}
	in.skip(4) // throttle
	if n := in.int32(); n != 1 {
		return answer{}, fmt.Errorf("the broker's answer speaks of %d topics instead of 1", n)
	}
	in.skip(int(in.int16()))
	if n := in.int32(); n != 1 {
		return answer{}, fmt.Errorf("the broker's answer speaks of %d partitions instead of 1", n)
	}
	in.skip(4) // partition
	a := answer{code: in.int16(), highWatermark: in.int64(), lastStable: in.int64()}
	for n := in.int32(); n > 0 && !in.short; n-- {
		a.aborted = append(a.aborted, abortedTransaction{producer: in.int64(), first: in.int64()})
	}
	a.records = in.bytes(max(0, int(in.int32())))
	if in.short {
		return answer{}, fmt.Errorf("read the broker's answer: %w", errShort)
	}
	return a, nil
}

// Record batches begin with base offset and length. Source: Kafka's documentation, "Record Batch".
const (
	batchPrefix = 12 // base offset, length
	batchHeader = 61 // up to the first record
	magicAt     = 16
	crcAt       = 17
	crcFrom     = 21

	attributeCompression   = 0x07
	attributeLogAppendTime = 0x08
	attributeTransactional = 0x10
	attributeControl       = 0x20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a table

// walk goes through the record batches of an answer. The last one may be cut off: the broker sends as many bytes as
// were asked for.
func (r *Reader) walk(a answer, got *Result, each func(*events.Record) error) error {
	open := map[int64]bool(nil) // producers inside an aborted transaction
	for b := a.records; len(b) >= batchPrefix; {
		base := int64(binary.BigEndian.Uint64(b))            // #nosec G115 -- bits on the wire
		length := int(int32(binary.BigEndian.Uint32(b[8:]))) // #nosec G115 -- bits on the wire
		if length < batchHeader-batchPrefix {
			return &CorruptError{base, fmt.Errorf("its length is %d", length)}
		}
		if len(b) < batchPrefix+length {
			break
		}
		batch := b[:batchPrefix+length]
		b = b[batchPrefix+length:]
		if magic := batch[magicAt]; magic != 2 {
			return &CorruptError{base, fmt.Errorf("its format is v%d; only v2 is read (Kafka 0.11 and later)", magic)}
		}
		if want, sum := binary.BigEndian.Uint32(batch[crcAt:]), crc32.Checksum(batch[crcFrom:], castagnoli); want != sum {
			return &CorruptError{base, fmt.Errorf("checksum %08x instead of %08x", sum, want)}
		}
		attributes := binary.BigEndian.Uint16(batch[21:])
		last := base + int64(int32(binary.BigEndian.Uint32(batch[23:]))) // #nosec G115 -- bits on the wire
		producer := int64(binary.BigEndian.Uint64(batch[43:]))           // #nosec G115 -- bits on the wire
		var err error
		switch {
		case attributes&attributeControl != 0:
			err = r.control(batch, producer, open)
		default:
			a.aborted, open = begun(a.aborted, open, last)
			if attributes&attributeTransactional != 0 && open[producer] {
				break // its transaction was aborted
			}
			err = r.batch(batch, base, attributes, got, each)
		}
		if err != nil {
			return err
		}
		// Past the whole batch, also where compaction has taken its last records out.
		got.Next = max(got.Next, last+1)
	}
	return nil
}

// begun moves the aborted transactions that begin at or before an offset to the open ones.
func begun(aborted []abortedTransaction, open map[int64]bool, offset int64) ([]abortedTransaction, map[int64]bool) {
	rest := aborted[:0]
	for _, t := range aborted {
		if t.first > offset {
			rest = append(rest, t)
			continue
		}
		if open == nil {
			open = map[int64]bool{}
		}
		open[t.producer] = true
	}
	return rest, open
}

// control reads the marker that ends a transaction. Its key is a version and a type.
func (r *Reader) control(batch []byte, producer int64, open map[int64]bool) error {
	in := input{b: batch[batchHeader:]}
	in.varint() // length
	in.skip(1)
	in.varint()
	in.varint()
	key := in.bytes(int(in.varint()))
	if in.short || len(key) < 4 {
		return &CorruptError{int64(binary.BigEndian.Uint64(batch)), errors.New("its control record has no type")} // #nosec G115 -- bits on the wire
	}
	const abort = 0
	if binary.BigEndian.Uint16(key[2:]) == abort {
		delete(open, producer)
	}
	return nil
}

// batch shows the records of one batch, from the offset that is wanted.
func (r *Reader) batch(batch []byte, base int64, attributes uint16, got *Result, each func(*events.Record) error) error {
	first := int64(binary.BigEndian.Uint64(batch[27:])) // #nosec G115 -- bits on the wire
	r.appended = 0
	if attributes&attributeLogAppendTime != 0 {
		r.appended = int64(binary.BigEndian.Uint64(batch[35:])) // #nosec G115 -- as above
	}
	count := int(binary.BigEndian.Uint32(batch[57:]))
	body := batch[batchHeader:]
	if code := attributes & attributeCompression; code != 0 {
		var err error
		if body, err = r.decompress(body, compress.Compression(code)); err != nil {
			return &CorruptError{base, err}
		}
	}
	in := input{b: body}
	for range count {
		length := in.varint()
		if in.short || length < 0 || int64(len(in.b)) < length {
			return &CorruptError{base, errShort}
		}
		record := input{b: in.b[:length]}
		in.b = in.b[length:]
		if err := r.parse(&record, base, first); err != nil {
			return &CorruptError{base, err}
		}
		if r.record.Offset < got.Next {
			continue // a batch may begin before the offset that was asked for
		}
		got.Records++
		if err := each(&r.record); err != nil {
			return err
		}
		got.Next = r.record.Offset + 1
	}
	return nil
}

// parse fills r.record from one record of a batch.
func (r *Reader) parse(in *input, base, first int64) error {
	rec := &r.record
	in.skip(1) // attributes, unused
	rec.Topic, rec.Partition = r.topic, r.partition
	at := first + in.varint()
	if r.appended != 0 {
		at = r.appended
	}
	rec.Time = time.UnixMilli(at)
	rec.Offset = base + in.varint()
	rec.Key = in.nullable()
	rec.Value = in.nullable()
	rec.Headers = rec.Headers[:0]
	for n := in.varint(); n > 0 && !in.short; n-- {
		key := in.bytes(int(in.varint()))
		rec.Headers = append(rec.Headers, events.Header{Key: r.keys.of(key), Value: in.nullable()})
	}
	if in.short {
		return errShort
	}
	return nil
}

// inflateLimit bounds what one batch may hold decompressed, so that a few bytes can't claim all memory.
const inflateLimit = 256 << 20

func (r *Reader) decompress(b []byte, c compress.Compression) ([]byte, error) {
	codec := c.Codec()
	if codec == nil {
		return nil, fmt.Errorf("its compression %d is unknown", c)
	}
	d := codec.NewReader(bytes.NewReader(b))
	defer func() { _ = d.Close() }() // it was read to its end, or failed
	out := bytes.NewBuffer(r.inflate[:0])
	if _, err := io.Copy(out, io.LimitReader(d, inflateLimit+1)); err != nil {
		return nil, fmt.Errorf("decompress it (%s): %w", c, err)
	}
	if out.Len() > inflateLimit {
		return nil, fmt.Errorf("it holds more than %d bytes decompressed", inflateLimit)
	}
	r.inflate = out.Bytes()
	if cap(r.inflate) > 8*MaxBytes {
		r.inflate = nil // used once more, by the caller, and then left to the collector
	}
	return out.Bytes(), nil
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
