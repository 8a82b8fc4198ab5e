package fetch

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go/compress"

	"tenantflow/events"
)

// encodeRecord encodes a record as a batch holds it.
func encodeRecord(offset int, key, value []byte, headers ...events.Header) []byte {
	bytesOf := func(b, v []byte) []byte {
		if v == nil {
			return binary.AppendVarint(b, -1)
		}
		return append(binary.AppendVarint(b, int64(len(v))), v...)
	}
	b := []byte{0} // attributes
	b = binary.AppendVarint(b, 0)
	b = binary.AppendVarint(b, int64(offset))
	b = bytesOf(bytesOf(b, key), value)
	b = binary.AppendVarint(b, int64(len(headers)))
	for _, h := range headers {
		b = bytesOf(bytesOf(b, []byte(h.Key)), h.Value)
	}
	return append(binary.AppendVarint(nil, int64(len(b))), b...)
}

// ways are the ways in which clients compress a batch, by the codec's number.
func ways() map[string]struct {
	code     uint16
	compress func([]byte) []byte
} {
	type way = struct {
		code     uint16
		compress func([]byte) []byte
	}
	by := func(c compress.Compression) way {
		return way{uint16(c), func(b []byte) []byte {
			var out bytes.Buffer
			w := c.Codec().NewWriter(&out)
			_, err := w.Write(b)
			if err := errors.Join(err, w.Close()); err != nil {
				panic(err)
			}
			return out.Bytes()
		}}
	}
	window := func(size int, single bool) way {
		return way{uint16(compress.Zstd), func(b []byte) []byte {
			e, err := zstd.NewWriter(nil, zstd.WithWindowSize(size), zstd.WithSingleSegment(single))
			if err != nil {
				panic(err)
			}
			return e.EncodeAll(b, nil)
		}}
	}
	return map[string]way{
		"none": {0, slices.Clone[[]byte]}, "gzip": by(compress.Gzip), "snappy": by(compress.Snappy), "lz4": by(compress.Lz4), "zstd": by(compress.Zstd),
		"snappy in one block":     {uint16(compress.Snappy), func(b []byte) []byte { return s2.EncodeSnappy(nil, b) }},
		"zstd with a wide window": window(64<<20, false), "zstd in one segment": window(128<<20, true),
	}
}

// shown reads a batch and returns copies of what it shows.
func shown(r *Reader, batch []byte, from int64) ([]events.Record, Result, error) {
	got := Result{Next: from}
	var out []events.Record
	err := r.walk(answer{records: batch}, &got, func(rec *events.Record) error {
		c := *rec
		c.Key, c.Value, c.Headers = bytes.Clone(rec.Key), bytes.Clone(rec.Value), nil
		for _, h := range rec.Headers {
			c.Headers = append(c.Headers, events.Header{Key: h.Key, Value: bytes.Clone(h.Value)})
		}
		out = append(out, c)
		return nil
	})
	r.releaseScratch()
	return out, got, err
}

func TestBatch_IsReadPieceByPieceAsInOnePiece(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 3<<20)
	for i := range noise {
		noise[i] = byte(random.IntN(7)) // compresses, and not into nothing
	}
	var records []byte
	var want []events.Record
	for len(records) < 8<<20 {
		size := []int{0, 1, 200, 5000, piece - 20, piece, piece + 1, 2 << 20}[random.IntN(8)]
		value := noise[random.IntN(len(noise)-size):][:size]
		rec := events.Record{Offset: int64(len(want)), Key: []byte(fmt.Sprint("key ", len(want))), Value: value,
			Headers: []events.Header{{Key: "h", Value: value[:min(3, size)]}, {Key: "n"}}}
		records = append(records, encodeRecord(len(want), rec.Key, rec.Value, rec.Headers...)...)
		want = append(want, rec)
	}
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			batch := batchOf(way.compress(records), len(want), way.code)
			for _, from := range []int64{0, int64(len(want) / 2)} {
				got, at, err := shown(&Reader{}, batch, from)
				if err != nil || len(got) != len(want)-int(from) || at.Next != int64(len(want)) {
					t.Fatalf("from %d: %d of %d records, next %d, %v", from, len(got), len(want), at.Next, err)
				}
				for i, g := range got {
					w := want[int(from)+i]
					if g.Offset != w.Offset || g.Large != nil || !bytes.Equal(g.Key, w.Key) || !bytes.Equal(g.Value, w.Value) ||
						len(g.Headers) != 2 || !bytes.Equal(g.Headers[0].Value, w.Headers[0].Value) || g.Headers[1].Value != nil {
						t.Fatalf("record %d is not what was sent", w.Offset)
					}
				}
			}
		})
	}
}

// A few kilobytes may stand for hundreds of megabytes. It looks at what the process allocates, so it runs alone.
func TestBatch_MayHoldFarMoreThanIsKept(t *testing.T) {
	const size = 100 << 20
	value := make([]byte, size)
	sum := sha256.Sum256(value)
	key := sha256.Sum256([]byte("key"))
	headers := []events.Header{{Key: "ce_id", Value: []byte("7")}, {Key: "null"}}
	records := encodeRecord(0, []byte("before"), []byte("a"))
	records = append(records, encodeRecord(1, []byte("key"), value, headers...)...)
	records = append(records, encodeRecord(2, []byte("after"), []byte("b"))...)
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			batch := batchOf(way.compress(records), 3, way.code)
			var claimed, released int64
			r := &Reader{topic: "usage", partition: 4, Claim: func(n int64) (func(), error) {
				claimed += n
				return func() { released += n }, nil
			}}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, _, err := shown(r, batch, 0)
			runtime.ReadMemStats(&after)
			if err != nil || len(got) != 3 || string(got[0].Value) != "a" || string(got[2].Key) != "after" || string(got[2].Value) != "b" {
				t.Fatalf("%d records, %v", len(got), err)
			}
			large := got[1]
			want := events.LargeRecord{Topic: "usage", Partition: 4, Offset: 1, KeyBytes: 3, HeaderBytes: 10, ValueBytes: size, KeyKept: true,
				KeySHA256: hex.EncodeToString(key[:]), ValueSHA256: hex.EncodeToString(sum[:]), OriginalTime: "1970-01-01T00:00:00Z"}
			if large.Large == nil || *large.Large != want || large.Value != nil || string(large.Key) != "key" || len(large.Headers) != 2 || large.Offset != 1 {
				t.Errorf("the large record is %+v: %+v", large, large.Large)
			}
			if claimed != released {
				t.Errorf("claimed %d bytes and released %d", claimed, released)
			}
			took := int64(after.TotalAlloc - before.TotalAlloc)
			t.Logf("%d bytes compressed, %d KiB allocated, %d KiB claimed", len(batch), took>>10, claimed>>10)
			if took > claimed+4<<20 {
				t.Errorf("%d KiB were allocated, and %d claimed", took>>10, claimed>>10)
			}
		})
	}
}

func TestBatch_ManyHeadersCountAsLarge(t *testing.T) {
	t.Parallel()
	headers := make([]events.Header, LargestRecord/headerBytes+1)
	records := encodeRecord(0, []byte("k"), []byte("v"), headers...)
	records = append(records, encodeRecord(1, []byte("k"), []byte("v"))...)
	got, _, err := shown(&Reader{}, batchOf(records, 2, 0), 0)
	if err != nil || len(got) != 2 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	if l := got[0].Large; l == nil || l.KeyKept || l.ValueBytes != 1 || l.HeaderBytes != 0 || len(got[0].Headers) != 0 {
		t.Errorf("the record with %d headers is %+v: %+v", len(headers), got[0], l)
	}
	if got[1].Large != nil || string(got[1].Value) != "v" {
		t.Errorf("the record behind it is %+v", got[1])
	}
}

// What comes before the place where a batch is broken is shown, once.
func TestBatch_ThatEndsEarlyShowsWhatCameBefore(t *testing.T) {
	t.Parallel()
	records := encodeRecord(0, nil, []byte("a"))
	records = append(records, encodeRecord(1, nil, make([]byte, 9<<20))...)
	for _, cut := range []int{len(records) - 1, len(records) - 1<<20, 10} {
		for name, way := range ways() {
			got, at, err := shown(&Reader{}, batchOf(way.compress(records[:cut]), 2, way.code), 0)
			var corrupt *CorruptError
			if len(got) != 1 || at.Next != 1 || !errors.As(err, &corrupt) || !errors.Is(err, errShort) {
				t.Errorf("%s, cut at %d: %d records, next %d, %v", name, cut, len(got), at.Next, err)
			}
		}
	}
}

// A refused claim ends the reading with its own error.
func TestBatch_ClaimThatFailsEndsTheReading(t *testing.T) {
	t.Parallel()
	refused := io.ErrClosedPipe
	r := &Reader{Claim: func(int64) (func(), error) { return nil, refused }}
	way := ways()["zstd with a wide window"]
	records := append(encodeRecord(0, nil, []byte("a")), encodeRecord(1, nil, make([]byte, 100<<20))...)
	got, _, err := shown(r, batchOf(way.compress(records), 2, way.code), 0)
	var claim *claimError
	if len(got) != 0 || !errors.As(err, &claim) || !errors.Is(claim.err, refused) {
		t.Errorf("%d records, %v", len(got), err)
	}
}
