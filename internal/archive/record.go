package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"tenantflow/events"
)

// Records in a block stand one behind the other, integers as varints:
//
//	offset    unsigned, less the offset before it and 1
//	time      signed, in milliseconds, less the time before it
//	large     0, or 1 where the log's reader kept only sizes and hashes (events.Record.Large)
//	if large  key bytes, header bytes, value bytes, SHA-256 of the key, SHA-256 of the value, 1 if the key was kept
//	key       bytes
//	value     bytes
//	headers   their number; of each the name's number in the block, counted from 1, or 0 and the name, if it is new; bytes
//
// Bytes have their length plus 1 before them; 0 stands for nil.

// A block holds whole records. It is closed behind the record that makes it this large.
const blockBytes = 1 << 20

// maxRaw bounds the raw bytes of a block: the last record may be as large as the log's reader shows any.
const maxRaw = blockBytes + 10<<20

// maxNames bounds the header names that a block numbers. Names are the producers' to choose; later ones are spelled out.
const maxNames = 1 << 10

// A packer puts records into the raw bytes of a block.
type packer struct {
	raw         []byte
	records     uint32
	tooLarge    int64
	first, last int64 // offsets
	time        int64 // of the last record
	names       map[string]uint64
}

func (p *packer) reset() {
	p.raw, p.records, p.tooLarge, p.time = p.raw[:0], 0, 0, 0
	clear(p.names)
}

// add appends a record. It copies the bytes.
func (p *packer) add(r *events.Record) {
	if p.records == 0 {
		p.first, p.last = r.Offset, r.Offset-1
	}
	at := r.Time.UnixMilli()
	b := binary.AppendUvarint(p.raw, uint64(r.Offset-p.last-1)) // #nosec G115 -- offsets rise
	b = binary.AppendVarint(b, at-p.time)
	p.last, p.time = r.Offset, at
	p.records++
	if r.Large == nil {
		b = append(b, 0)
	} else {
		b = appendLarge(append(b, 1), r.Large)
		p.tooLarge++
	}
	b = appendBytes(b, r.Key)
	b = appendBytes(b, r.Value)
	b = binary.AppendUvarint(b, uint64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		n := p.names[h.Key]
		b = binary.AppendUvarint(b, n)
		if n == 0 {
			b = appendBytes(b, []byte(h.Key))
			if len(p.names) < maxNames {
				if p.names == nil {
					p.names = make(map[string]uint64, 32)
				}
				p.names[h.Key] = uint64(len(p.names)) + 1
			}
		}
		b = appendBytes(b, h.Value)
	}
	p.raw = b
}

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return append(b, 0)
	}
	return append(binary.AppendUvarint(b, uint64(len(v))+1), v...)
}

func appendLarge(b []byte, l *events.LargeRecord) []byte {
	for _, n := range []int{l.KeyBytes, l.HeaderBytes, l.ValueBytes} {
		b = binary.AppendUvarint(b, uint64(max(0, n))) // #nosec G115 -- not negative
	}
	b = appendBytes(b, []byte(l.KeySHA256))
	b = appendBytes(b, []byte(l.ValueSHA256))
	if l.KeyKept {
		return append(b, 1)
	}
	return append(b, 0)
}

var (
	errShort    = errors.New("a record ends too early")
	errTrailing = errors.New("there are bytes behind its last record")
)

// An unpacker takes the records out of the raw bytes of a block. The record it shows is overwritten by the next one.
type unpacker struct {
	record events.Record
	large  events.LargeRecord
	names  []string          // of the block, in the order of their numbers
	kept   map[string]string // of all blocks: a name costs one allocation
}

// unpack calls each for the records of a block, which it expects to be as many as count and to have offsets from first to
// last. The record and its bytes are valid during the call only. An error of each ends it and is returned as it is.
func (u *unpacker) unpack(raw []byte, count uint32, first, last int64, each func(*events.Record) error) error {
	in := unpacking{b: raw}
	at, offset := int64(0), first-1
	u.names = u.names[:0]
	for i := range count {
		step := in.uvarint()
		if step >= uint64(max(0, last-offset)) || i == 0 && step > 0 { // #nosec G115 -- not negative
			return fmt.Errorf("record %d does not lie between the offsets %d and %d", i, first, last)
		}
		offset += int64(step) + 1 // #nosec G115 -- bounded by last
		at += in.varint()
		r := &u.record
		r.Offset, r.Time, r.Large = offset, time.UnixMilli(at), nil
		if err := u.rest(&in, r); err != nil {
			return err
		}
		if err := each(r); err != nil {
			return err
		}
	}
	switch {
	case len(in.b) > 0:
		return errTrailing
	case offset != last:
		return fmt.Errorf("its last offset is %d instead of %d", offset, last)
	}
	return nil
}

// rest reads what follows the time of a record.
func (u *unpacker) rest(in *unpacking, r *events.Record) error {
	switch in.uvarint() {
	case 0:
	case 1:
		u.readLarge(in, r)
	default:
		return errors.New("a record is of an unknown kind")
	}
	r.Key, r.Value = in.bytes(), in.bytes()
	n := in.uvarint()
	if n > uint64(len(in.b))/2 { // a header has two bytes at least
		return errShort
	}
	r.Headers = r.Headers[:0]
	for ; n > 0 && !in.short; n-- {
		number := in.uvarint()
		var name string
		switch {
		case number > uint64(len(u.names)):
			return fmt.Errorf("a header has the number %d of %d names", number, len(u.names))
		case number > 0:
			name = u.names[number-1]
		default:
			name = u.keep(in.bytes())
			if len(u.names) < maxNames {
				u.names = append(u.names, name)
			}
		}
		r.Headers = append(r.Headers, events.Header{Key: name, Value: in.bytes()})
	}
	if in.short {
		return errShort
	}
	return nil
}

func (u *unpacker) readLarge(in *unpacking, r *events.Record) {
	u.large = events.LargeRecord{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, OriginalTime: r.Time.UTC().Format(time.RFC3339Nano)}
	l := &u.large
	for _, n := range []*int{&l.KeyBytes, &l.HeaderBytes, &l.ValueBytes} {
		*n = int(min(in.uvarint(), 1<<40)) // #nosec G115 -- bounded
	}
	l.KeySHA256, l.ValueSHA256 = string(in.bytes()), string(in.bytes())
	l.KeyKept = in.uvarint() == 1
	r.Large = l
}

// keep makes a string of a header's name, and of the same name the same string.
func (u *unpacker) keep(b []byte) string {
	if s, ok := u.kept[string(b)]; ok {
		return s
	}
	s := string(b)
	if u.kept == nil {
		u.kept = make(map[string]string, 32)
	}
	if len(u.kept) < maxNames {
		u.kept[s] = s
	}
	return s
}

// unpacking is bytes to be read from the front. Reading past the end gives zeros and sets short.
type unpacking struct {
	b     []byte
	short bool
}

func (in *unpacking) uvarint() uint64 {
	v, n := binary.Uvarint(in.b)
	if n <= 0 {
		in.short, in.b = true, nil
		return 0
	}
	in.b = in.b[n:]
	return v
}

func (in *unpacking) varint() int64 {
	v, n := binary.Varint(in.b)
	if n <= 0 {
		in.short, in.b = true, nil
		return 0
	}
	in.b = in.b[n:]
	return v
}

func (in *unpacking) bytes() []byte {
	n := in.uvarint()
	if n == 0 {
		return nil
	}
	if n--; n > uint64(len(in.b)) {
		in.short, in.b = true, nil
		return nil
	}
	v := in.b[:n:n]
	in.b = in.b[n:]
	return v
}
