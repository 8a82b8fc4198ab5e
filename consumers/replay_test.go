package consumers_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
)

// fingerprint is every row of the usage table and of the views' own tables, deadlines of inserts included, in one number
// each. It changes when any row does. The list of processes that write is left out: a restart is in it.
func (f *fixture) fingerprint(t *testing.T) string {
	t.Helper()
	rows, err := f.db.Query(t.Context(), "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree' AND name != 'usage_writers' ORDER BY name")
	if err != nil {
		t.Fatal(err)
	}
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, table := range tables {
		var count, sum uint64
		// FINAL: a merge in the background is no change of what the table says.
		if err := f.db.QueryRow(t.Context(), fmt.Sprintf("SELECT count(), sum(cityHash64(*)) FROM `%s`%s", table, final(t, f, table))).Scan(&count, &sum); err != nil {
			t.Fatalf("fingerprint of %s: %v", table, err)
		}
		out += fmt.Sprintf("%s: %d rows, %x\n", table, count, sum)
	}
	return out
}

// final is the modifier for tables whose merges change rows.
func final(t *testing.T, f *fixture, table string) string {
	t.Helper()
	var kind string
	if err := f.db.QueryRow(t.Context(), "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = ?", table).Scan(&kind); err != nil {
		t.Fatal(err)
	}
	if kind == "MergeTree" {
		return ""
	}
	return " FINAL"
}

func TestReadingEverythingAgainChangesNothing(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		const count = 5000
		f := newFixture(t, fixtureOptions{broker: broker, partitions: 4})
		messages, want := traffic(t, model.Config{Seed: 41, Count: count, Resends: 0.05, Conflicts: 0.005, Late: 0.1, LateSpan: 30 * 24 * time.Hour,
			Malformed: 0.01, Structured: 0.1})
		f.publish(t, messages)
		m := f.Join(t, f.usage(t), kafkatest.Brisk)
		f.AwaitConsumed(t)
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		f.verify(t, want)
		before := f.fingerprint(t)

		if broker.Kind() == engine.Apache {
			if err := broker.ResetOffsets(t.Context(), f.Group, f.Topic); err != nil { // Kafka's own tool
				t.Fatal(err)
			}
		} else {
			f.CommitOutside(t, map[int]int64{0: 0, 1: 0, 2: 0, 3: 0})
		}
		for p, at := range f.Positions(t) {
			if at.Committed != 0 {
				t.Fatalf("partition %d stands at %d after the reset", p, at.Committed)
			}
		}
		m = f.Join(t, f.usage(t), kafkatest.Brisk)
		f.AwaitConsumed(t)
		if n := m.Metric(t, "tenantflow_batch_rows_total", map[string]string{"topic": f.Topic}); n < count {
			t.Errorf("%v events were read again, want all %d", n, count)
		}
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		f.verify(t, want)
		if after := f.fingerprint(t); after != before {
			t.Errorf("the tables have changed:\n%s\nbefore:\n%s", after, before)
		}
	})
}

// cpuOf is the user and system time that a process has used.
func cpuOf(t testing.TB, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	var user, system int64
	for i, field := range strings.Fields(rest) { // from the third field on
		switch n, _ := strconv.ParseInt(field, 10, 64); i {
		case 11:
			user = n
		case 12:
			system = n
		}
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	return time.Duration(user+system) * tick
}

// BenchmarkReplay reads 500,000 stored events again, at default settings, from Apache Kafka. An operation is the whole
// of it; look at events/s and at the CPU time this process takes for an event.
func BenchmarkReplay(b *testing.B) {
	const count, partitions = 500_000, 8
	broker := enginetest.SharedApacheKafka(b)
	f := newFixture(b, fixtureOptions{broker: broker, partitions: partitions})
	messages, want := traffic(b, model.Config{Seed: 3, Count: count})
	f.publish(b, messages)
	defaults := consumer{insertTimeout: 15 * time.Second, session: 10 * time.Second, rows: 100_000, interval: time.Second, budget: 128 << 20}
	stop := f.start(b, defaults)
	f.AwaitConsumed(b)
	if err := stop(); err != nil {
		b.Fatal(err)
	}
	var took, ours, theirs time.Duration
	for b.Loop() {
		b.StopTimer()
		f.CommitOutside(b, map[int]int64{0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0})
		used, store, began := cpu(), cpuOf(b, enginetest.SharedClickHouse(b).Pid()), time.Now()
		b.StartTimer()
		stop := f.start(b, defaults)
		f.AwaitConsumed(b)
		b.StopTimer()
		took += time.Since(began)
		ours += cpu() - used
		theirs += cpuOf(b, enginetest.SharedClickHouse(b).Pid()) - store
		if err := stop(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	all := float64(count * b.N)
	b.ReportMetric(all/took.Seconds(), "events/s")
	b.ReportMetric(float64(ours.Microseconds())/all, "cpu-us/event")
	b.ReportMetric(float64(theirs.Microseconds())/all, "clickhouse-cpu-us/event")
	rows, err := model.ReadRows(b.Context(), f.sql)
	if err != nil {
		b.Fatal(err)
	}
	for _, d := range model.Compare(rows, want.Tables) {
		b.Error(d)
	}
}
