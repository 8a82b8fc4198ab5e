package fetch

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go/compress"

	"tenantflow/events"
)

// usageRecord encodes a record as a usage event in binary mode has it: seven headers and about 300 bytes of data.
func usageRecord(offset int) []byte {
	text := func(b []byte, s string) []byte { return append(binary.AppendVarint(b, int64(len(s))), s...) }
	b := []byte{0} // attributes
	b = binary.AppendVarint(b, int64(offset))
	b = binary.AppendVarint(b, int64(offset))
	b = text(b, "u-0123456789")
	b = text(b, `{"company_id":"northwind-0001","user_id":"u-0123456789","data":"`+strings.Repeat("x", 220)+`"}`)
	headers := []string{
		"content-type", "application/json", "ce_specversion", "1.0", "ce_id", "0190a5c1-7c7e-4cc3-9fd1-1a2b3c4d5e6f",
		"ce_source", "/data-bridge/eu-1", "ce_type", "usage.recorded.v1", "ce_time", "2026-11-23T10:00:00.123Z",
	}
	b = binary.AppendVarint(b, int64(len(headers)/2))
	for _, h := range headers {
		b = text(b, h)
	}
	return append(binary.AppendVarint(nil, int64(len(b))), b...)
}

// An operation is a record batch of 1 MB before compression: checksum, records, headers.
func BenchmarkWalk(b *testing.B) {
	var records []byte
	count := 0
	for len(records) < 1<<20 {
		records = append(records, usageRecord(count)...)
		count++
	}
	for _, c := range []compress.Compression{0, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		body, name := records, "none"
		if codec := c.Codec(); codec != nil {
			name = codec.Name()
			var out bytes.Buffer
			w := codec.NewWriter(&out)
			if _, err := w.Write(records); err != nil {
				b.Fatal(err)
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
			body = out.Bytes()
		}
		b.Run(name, func(b *testing.B) {
			batch := batchOf(body, count, uint16(c))
			r := &Reader{topic: "usage.events"}
			b.SetBytes(int64(len(records)))
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				if err := r.walk(answer{records: batch}, &Result{}, func(*events.Record) error { n++; return nil }); err != nil || n != count {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(count), "ns/row")
		})
	}
}
