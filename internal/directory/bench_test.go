package directory_test

import (
	"testing"

	"tenantflow/internal/directory"
)

// BenchmarkResolveFromMemory looks up 1,000 users that the process holds, per operation.
func BenchmarkResolveFromMemory(b *testing.B) {
	w := newWorld(b)
	w.register(1, "pro", 1, 20_000)
	n := w.start()
	users := make([]string, 20_000)
	for i := range users {
		users[i] = w.user(1 + i*7919%20_000)
	}
	if err := n.Resolve(b.Context(), users, make([]*directory.Subscription, len(users))); err != nil {
		b.Fatal(err)
	}
	b.Run("one caller", func(b *testing.B) {
		b.ReportAllocs()
		out := make([]*directory.Subscription, 1000)
		for i := 0; b.Loop(); i++ {
			from := i * 1000 % len(users)
			if err := n.Resolve(b.Context(), users[from:from+1000], out); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "users/s")
	})
	b.Run("many callers", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			out := make([]*directory.Subscription, 1000)
			for i := 0; p.Next(); i++ {
				from := i * 1000 % len(users)
				if err := n.Resolve(b.Context(), users[from:from+1000], out); err != nil {
					b.Error(err)
				}
			}
		})
		b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "users/s")
	})
}

// BenchmarkResolveFromDragonfly looks up 1,000 users that are only in Dragonfly, per operation.
func BenchmarkResolveFromDragonfly(b *testing.B) {
	w := newWorld(b)
	w.register(1, "pro", 1, 1000)
	users := make([]string, 1000)
	for i := range users {
		users[i] = w.user(1 + i)
	}
	out := make([]*directory.Subscription, 1000)
	if err := w.start().Resolve(b.Context(), users, out); err != nil {
		b.Fatal(err)
	}
	n := w.start(func(c *directory.Config) { c.Life = 1 })
	b.ReportAllocs()
	for b.Loop() {
		if err := n.Resolve(b.Context(), users, out); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "users/s")
	if n.queries.Load() > 0 {
		b.Error("Postgres was asked")
	}
}
