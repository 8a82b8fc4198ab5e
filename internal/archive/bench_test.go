package archive_test

import (
	"syscall"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/archive"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/model"
)

// Two million events of usage.events in eight partitions, written to an archive and read back:
//
//	go test ./internal/archive -run '^$' -bench Archive -benchtime 1x
func BenchmarkArchive_TwoMillionEvents(b *testing.B) {
	const count = 2_000_000
	l := newLog(b, enginetest.SharedKafka(b), 8)
	g, err := model.New(model.Config{Seed: 1, Count: count, Companies: 200, UsersPerCompany: 50, Start: time.Now().Add(-12 * time.Hour)})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := model.Publish(b.Context(), g, model.Publishing{Client: l.client, Topic: l.topic}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		l.root = b.TempDir()
		start, used := time.Now(), cpu(b)
		r, err := archive.Run(b.Context(), archive.Config{Client: l.client, Topic: l.topic, Root: l.root})
		if err != nil || r.Records != count {
			b.Fatal(err, r)
		}
		b.ReportMetric(count/time.Since(start).Seconds(), "written/s")
		b.ReportMetric(float64(r.Bytes)/count, "B/event")
		b.ReportMetric(float64((cpu(b)-used).Nanoseconds())/count, "cpu_ns/event") // without the broker's

		a := l.open(b)
		start = time.Now()
		if err := a.Check(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(r.Bytes)/(1<<20)/time.Since(start).Seconds(), "checked_MiB/s")
		start = time.Now()
		n := 0
		for p := range l.partitions {
			if err := a.Read(b.Context(), p, kafka.Range{From: 0, To: 1 << 60}, func(*events.Record) error { n++; return nil }); err != nil {
				b.Fatal(err)
			}
		}
		if n != count {
			b.Fatalf("%d records were read", n)
		}
		b.ReportMetric(count/time.Since(start).Seconds(), "read/s")
	}
}

// cpu is what this process has used, user and system.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
