package fetch

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"tenantflow/events"
)

// batchOf frames encoded records as a record batch.
func batchOf(records []byte, count int, attributes uint16) []byte {
	b := make([]byte, batchHeader, batchHeader+len(records))
	b = append(b, records...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-batchPrefix))
	b[magicAt] = 2
	binary.BigEndian.PutUint16(b[21:], attributes)
	binary.BigEndian.PutUint32(b[23:], uint32(max(0, count-1)))
	binary.BigEndian.PutUint32(b[57:], uint32(count))
	binary.BigEndian.PutUint32(b[crcAt:], crc32.Checksum(b[crcFrom:], castagnoli))
	return b
}

func TestABatchWithAFlippedBitIsCorrupt(t *testing.T) {
	t.Parallel()
	record := []byte{16, 0, 0, 0, 2, 'k', 2, 'v', 0}
	good := batchOf(record, 1, 0)
	show := func(b []byte) (int, error) {
		n := 0
		err := (&Reader{}).walk(answer{records: b}, &Result{}, func(*events.Record) error { n++; return nil })
		return n, err
	}
	if n, err := show(good); n != 1 || err != nil {
		t.Fatalf("the batch itself: %d records, %v", n, err)
	}
	for i := crcFrom; i < len(good); i++ {
		bad := append([]byte(nil), good...)
		bad[i] ^= 4
		var corrupt *CorruptError
		if n, err := show(bad); !errors.As(err, &corrupt) || n != 0 {
			t.Errorf("byte %d changed: %d records, %v", i, n, err)
		}
	}
}

// FuzzAnswer throws bytes at the parsers: whatever they are, nothing panics, and no record lies about its batch.
func FuzzAnswer(f *testing.F) {
	record := []byte{16, 0, 0, 0, 2, 'k', 2, 'v', 0}
	f.Add(batchOf(record, 1, 0))
	f.Add(batchOf(record, 3, attributeTransactional))
	f.Add(batchOf([]byte{1, 2, 3}, 1, attributeControl))
	f.Add(batchOf(record, 1, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseAnswer(b)
		r := &Reader{}
		for _, fixed := range [][]byte{b, batchOf(b, len(b)%5, uint16(len(b)%64))} {
			_ = r.walk(answer{records: fixed, aborted: []abortedTransaction{{0, 0}}}, &Result{}, func(rec *events.Record) error {
				if rec.Offset < 0 {
					return errors.New("negative offset")
				}
				return nil
			})
		}
	})
}
