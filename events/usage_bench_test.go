package events

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sizedUsage makes the data of a usage event of about size bytes: what the fields leave goes into unknown ones.
func sizedUsage(size int) string {
	data := `{"company_id":"company-0042","user_id":"user-0042-0007","subscription_tier":"enterprise",` +
		`"service_name":"market-data","api_endpoint":"/v1/quotes/stream","data_points_consumed":1204,` +
		`"processing_time_ms":12.345,"timestamp":"2026-07-31T11:29:58.123Z","billing_period":"2026-07",` +
		`"revenue_attributed":"0.001250"`
	for i := 0; len(data) < size-60; i++ {
		data += fmt.Sprintf(`,"x%d":{"k":[1,2.5,"%s"]}`, i, strings.Repeat("y", 30))
	}
	return data + "}"
}

func structuredRecord(data string) *Record {
	return &Record{
		Topic: TopicUsage, Partition: 3, Offset: 42, Key: []byte("acme"),
		Headers: []Header{{"content-type", []byte("application/cloudevents+json; charset=UTF-8")}},
		Value: []byte(`{"specversion":"1.0","id":"0190a5c1-7c7e-7cc3-9fd1-1a2b3c4d5e6f","source":"/data-bridge/eu-1",` +
			`"type":"usage.recorded.v1","time":"2026-07-31T11:30:00Z","datacontenttype":"application/json","data":` + data + `}`),
	}
}

func BenchmarkUsageDecode(b *testing.B) {
	for _, mode := range []struct {
		name   string
		record func(string) *Record
	}{{"binary", binaryRecord}, {"structured", structuredRecord}} {
		for _, size := range []int{300, 1000, 10_000} {
			b.Run(fmt.Sprintf("mode=%s/size=%d", mode.name, size), func(b *testing.B) {
				d := NewUsageDecoder(UsageLimits{})
				r := mode.record(sizedUsage(size))
				var u Usage
				if !d.fast(r, &u) {
					b.Fatal("the fast way does not take it")
				}
				b.SetBytes(int64(len(r.Value)))
				b.ReportAllocs()
				start := cpuTime(b)
				for b.Loop() {
					if err := d.Decode(r, testNow, &u); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// cpuTime is what the process has used of the processors, which on a busy machine says more than the clock.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func BenchmarkUsageDecodeGeneral(b *testing.B) {
	d := NewUsageDecoder(UsageLimits{})
	r := binaryRecord(sizedUsage(300))
	var u Usage
	b.ReportAllocs()
	for b.Loop() {
		if err := d.general(r, &u); err != nil {
			b.Fatal(err)
		}
	}
}
