package consumers

import (
	"encoding/binary"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/model"
	"tenantflow/internal/recent"
)

// BenchmarkQuotaBatchAdd adds company-like events of a partition to batches of 40,000, with the recent-identity filter full, as after
// an hour. One operation is one event.
func BenchmarkQuotaBatchAdd(b *testing.B) {
	const count, rows, window = 200_000, 40_000, 1_000_000
	g, err := model.New(model.Config{Seed: 4, Count: count, Companies: 25, Start: time.Now().Add(-time.Hour), Step: time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	records := make([]events.Record, count)
	for i := range records {
		var m model.Message
		g.Next(&m)
		records[i] = events.Record{Key: m.Key, Value: m.Value, Headers: m.Headers, Time: time.Now()}
	}
	p := &quotaPartition{quota: NewQuota(QuotaConfig{}), decoder: events.NewUsageDecoder(events.UsageLimits{}), seen: recent.NewWindow(window, 3600), lateness: 48 * 3600 * 1000}
	second, offset := time.Now().Unix(), int64(0)
	for i := range uint64(window) {
		p.seen.Add(i*0x9e3779b97f4a7c15, offset, second)
		offset++
	}
	b.ReportAllocs()
	var batch kafka.Batch
	n := 0
	for b.Loop() {
		if n%rows == 0 {
			batch = p.Begin()
		}
		r := &records[n%count]
		r.Offset = offset
		for i := range r.Headers {
			if id := r.Headers[i].Value; r.Headers[i].Key == "ce_id" && len(id) >= 8 { // another event
				binary.BigEndian.PutUint64(id[len(id)-8:], spell(offset))
			}
		}
		offset++
		batch.Add(r)
		if n++; n%rows == 0 {
			batch.Close()
			batch.Release()
		}
	}
}

// spell writes a number in eight printable characters.
func spell(n int64) (text uint64) {
	for range 8 {
		text = text<<8 | uint64('@'+n&0x1f)
		n >>= 5
	}
	return text
}
