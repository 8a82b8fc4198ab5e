package billing

import (
	"fmt"
	"testing"
)

// BenchmarkExport makes exports of a company with 25 users and 100,000 rows in three months, among others with as many rows together.
func BenchmarkExport(b *testing.B) {
	f := setup(b)
	f.exec(b, `INSERT INTO companies (company_id, name, billing_email, created_at) SELECT 'c-' || i, 'C', 'c@x', '2020-01-01' FROM generate_series(1, 50) AS i`)
	for i := range 51 {
		company, rows := fmt.Sprint("c-", i), 2000
		if i == 0 {
			company, rows = "acme", 100_000
		}
		err := f.Conn.Exec(b.Context(), `INSERT INTO usage_tracking (event_id, event_source, user_id, company_id, timestamp, subscription_tier, service_name, api_endpoint, data_points_consumed,
			processing_time_ms, billing_period, revenue_attributed, _topic, _partition, _offset, _insert_by)
			SELECT toString(number), '/bench', concat('u-', toString(number % 25)), ?, fromUnixTimestamp64Milli(toInt64(?) + number * 70000, 'UTC') AS at, 'pro', concat('svc-', toString(number % 3)), '/v1',
				number % 100, '1.5', formatDateTime(at, '%Y-%m'), '0.25', ?, 0, number, now64(3) + INTERVAL 1 HOUR FROM numbers(?)`, company, ago(5).Start().UnixMilli(), usageTopic, rows)
		if err != nil {
			b.Fatal(err)
		}
	}
	for _, n := range []int{5, 4} {
		f.closed(b, "acme", ago(n))
	}
	b.Run("draft", func(b *testing.B) {
		for b.Loop() {
			if _, err := f.Draft(b.Context(), "acme", ago(3)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("closed", func(b *testing.B) {
		for b.Loop() {
			if _, err := f.Get(b.Context(), "acme", ago(4)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkCloseAll closes a month for 100 companies at a time.
func BenchmarkCloseAll(b *testing.B) {
	f := setup(b)
	const companies = 100
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		f.exec(b, fmt.Sprintf(`INSERT INTO companies (company_id, name, billing_email, created_at) SELECT 'c-%d-' || i, 'C', 'c@x', '2020-01-01' FROM generate_series(1, %d) AS i`, n, companies))
		err := f.Conn.Exec(b.Context(), `INSERT INTO usage_tracking (event_id, event_source, user_id, company_id, timestamp, subscription_tier, service_name, api_endpoint, data_points_consumed,
			processing_time_ms, billing_period, revenue_attributed, _topic, _partition, _offset, _insert_by)
			SELECT toString(number), '/bench', concat('u-', toString(number % 25)), concat('c-', toString(?), '-', toString(1 + number % ?)), fromUnixTimestamp64Milli(toInt64(?) + number * 1000, 'UTC') AS at, 'pro', 'api', '/v1',
				number % 100, '1.5', formatDateTime(at, '%Y-%m'), '0.25', ?, 0, number, now64(3) + INTERVAL 1 HOUR FROM numbers(?)`, n, companies, ago(3).Start().UnixMilli(), usageTopic, companies*1000)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		s, err := f.CloseAll(b.Context(), ago(3), nil)
		if err != nil || s.Closed < companies {
			b.Fatalf("%+v, %v", s, err)
		}
	}
	b.ReportMetric(float64(n*companies)/b.Elapsed().Seconds(), "companies/s")
}
