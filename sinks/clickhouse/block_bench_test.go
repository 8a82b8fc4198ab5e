package clickhouse

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"tenantflow/events"
)

// benchRows is the size of a full batch at default settings.
const benchRows = 100_000

// traffic makes the rows of a batch as they come: ids that are all different, many users, few of everything else.
func traffic(n int) []events.Usage {
	at := time.Date(2026, 11, 15, 10, 0, 0, 0, time.UTC).UnixMilli()
	all := make([]events.Usage, n)
	for i := range all {
		mixed := uint64(i) * 0x9e3779b97f4a7c15
		all[i] = events.Usage{
			ID:     fmt.Appendf(nil, "%08x-%04x-4%03x-8%03x-%012x", uint32(mixed), i&0xffff, i&0xfff, mixed&0xfff, mixed>>16),
			Source: fmt.Appendf(nil, "/data-bridge/%d", i%3), UserID: fmt.Appendf(nil, "u-%010x", mixed%10_007),
			CompanyID: fmt.Appendf(nil, "company-%04d", mixed%10_007%211), Tier: []byte([]string{"free", "pro", "enterprise"}[mixed%3]),
			Service: fmt.Appendf(nil, "service-%d", mixed%7), Endpoint: fmt.Appendf(nil, "/v1/quotes/%d", mixed%31), BillingPeriod: []byte("2026-11"),
			Timestamp: at + int64(i) - int64(mixed%2000), DataPoints: uint32(mixed), ProcessingTime: int64(mixed % 60_000), Revenue: int64(mixed % 5_000_000),
		}
	}
	return all
}

func fill(b *Block, rows []events.Usage) {
	for i := range rows {
		b.Append(&rows[i], uint64(i), int64(i))
	}
}

// perRow reports processor time for a row, which on a busy machine says more than the clock.
func perRow(b *testing.B) {
	b.ReportAllocs()
	began := cpuTime(b)
	b.Cleanup(func() { b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N)/benchRows, "cpu-ns/row") })
}

func cpuTime(b *testing.B) int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

// An operation is a full batch.
func BenchmarkBlockAppend(b *testing.B) {
	rows := traffic(benchRows)
	block := NewBlock()
	perRow(b)
	for b.Loop() {
		block.Reset()
		fill(block, rows)
	}
}

// An operation is a full batch, split into parts and encoded.
func BenchmarkBlockEncode(b *testing.B) {
	block := NewBlock()
	fill(block, traffic(benchRows))
	var buf proto.Buffer
	var o order
	perRow(b)
	for b.Loop() {
		for _, p := range block.parts(0, block.Len()) {
			buf.Reset()
			encodeNative(&buf, block, o.of(block, p.rows), "usage.events", 3, 1)
		}
	}
	b.SetBytes(int64(len(buf.Buf)))
}

// What a batch costs must not be counted in objects, or the collector would take a share of every row.
func TestAWarmBlockIsFilledAndEncodedWithAlmostNoAllocation(t *testing.T) {
	const rows, limit = 10_000, 10.0 // objects for each thousand rows; what it takes is a few for each batch
	all := traffic(rows)
	block := NewBlock()
	var buf proto.Buffer
	var o order
	objects := testing.AllocsPerRun(5, func() {
		block.Reset()
		fill(block, all)
		for _, p := range block.parts(0, block.Len()) {
			buf.Reset()
			encodeNative(&buf, block, o.of(block, p.rows), "usage.events", 3, 1)
		}
	})
	if per := objects / rows * 1000; per > limit {
		t.Errorf("%.1f objects for each thousand rows, want at most %.0f", per, limit)
	}
}
