package fetch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

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
	marked := 0                 // records shown before got.Last, that one included
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
			before := got.Records
			err = r.batch(batch, base, last, attributes, got, each)
			if attributes&attributeCompression != 0 && got.Records > before {
				marked = got.Records
			}
		}
		if err != nil {
			return err
		}
		// Past the whole batch, also where compaction has taken its last records out.
		got.Next = max(got.Next, last+1)
	}
	if got.Records > marked {
		got.Last = MarkOf(&r.record)
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
func (r *Reader) batch(batch []byte, base, last int64, attributes uint16, got *Result, each func(*events.Record) error) error {
	if last < got.Next {
		return nil // all of it is before the offset that was asked for
	}
	r.first = int64(binary.BigEndian.Uint64(batch[27:])) // #nosec G115 -- bits on the wire
	r.base, r.appended = base, 0
	if attributes&attributeLogAppendTime != 0 {
		r.appended = int64(binary.BigEndian.Uint64(batch[35:])) // #nosec G115 -- as above
	}
	count := int(binary.BigEndian.Uint32(batch[57:]))
	body := batch[batchHeader:]
	if code := attributes & attributeCompression; code != 0 {
		return r.inflated(body, compress.Compression(code), func(s *stream) error {
			before := got.Records
			if err := r.records(s, count, got, each); err != nil {
				return err
			}
			if got.Records > before {
				got.Last = MarkOf(&r.record) // now: what it was decompressed to is given back, or used for the next batch
			}
			return nil
		})
	}
	return r.records(&stream{b: body}, count, got, each)
}

// records shows the records of a batch one by one.
func (r *Reader) records(s *stream, count int, got *Result, each func(*events.Record) error) error {
	for range count {
		length, ok := s.varint()
		if !ok || length < 0 {
			return &CorruptError{r.base, s.failed()}
		}
		if length > LargestRecord {
			if err := r.large(s, length, got.Next); err != nil {
				return &CorruptError{r.base, err}
			}
		} else {
			body, ok := s.take(int(length))
			if !ok {
				return &CorruptError{r.base, s.failed()}
			}
			in := input{b: body}
			if err := r.parse(&in); err != nil {
				if errors.Is(err, errManyHeaders) {
					err = r.large(&stream{b: body}, length, got.Next)
				}
				if err != nil {
					return &CorruptError{r.base, err}
				}
			}
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
