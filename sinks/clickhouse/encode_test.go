package clickhouse

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const (
	maxDecimal18 = 999_999_999_999_999_999
	maxPoints    = math.MaxUint32
)

// stored reads the rows of a partition back, as the server has them.
func (s *Store) rows(t *testing.T, partition int) []row {
	t.Helper()
	found, err := s.conn.Query(t.Context(), `
SELECT event_id, toString(event_source), user_id, company_id, toUnixTimestamp64Milli(timestamp), toString(subscription_tier),
       toString(service_name), toString(api_endpoint), data_points_consumed, toString(processing_time_ms), toString(billing_period),
       toString(revenue_attributed), toString(_topic), _offset
FROM usage_tracking WHERE _partition = ? ORDER BY _offset`, partition)
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	var rows []row
	for found.Next() {
		var r row
		var processing, revenue, topic string
		if err := found.Scan(&r.id, &r.source, &r.user, &r.company, &r.at, &r.tier, &r.service, &r.endpoint, &r.points,
			&processing, &r.period, &revenue, &topic, &r.offset); err != nil {
			t.Fatal(err)
		}
		r.processing, r.revenue = digits(t, processing, 3), digits(t, revenue, 6)
		if topic != "usage" {
			t.Fatalf("topic %q", topic)
		}
		rows = append(rows, r)
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return rows
}

// digits reads a decimal as an integer of its last decimal, by its digits alone.
func digits(t *testing.T, text string, decimals int) (n int64) {
	t.Helper()
	whole, fraction, _ := strings.Cut(text, ".")
	if _, err := fmt.Sscanf(whole+fraction+strings.Repeat("0", decimals-len(fraction)), "%d", &n); err != nil {
		t.Fatalf("decimal %q: %v", text, err)
	}
	return n
}

// same compares what the server has with what was sent.
func same(t interface{ Fatalf(string, ...any) }, got, want []row) {
	if len(got) != len(want) {
		t.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("row %d is\n%+v, want\n%+v", i, got[i], want[i])
		}
	}
}

// Whatever a block holds, the server has it after the insert: every byte and every digit.
func TestTheServerHasWhatABlockHeld(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	text := rapid.OneOf(
		rapid.Just(""),
		rapid.String(),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")) }),
		rapid.SampledFrom([]string{"\x00", "a\x00b", "größe", "事件", "🦉", `\N`, "NULL", "'", "\\", "\n", "\t", strings.Repeat("x", 200)}),
	)
	amount := rapid.OneOf(rapid.SampledFrom([]int64{0, 1, 999, 1000, maxDecimal18, maxDecimal18 - 1}), rapid.Int64Range(0, maxDecimal18))
	base := plain(0).monthsAgo(1)
	partition := 0
	rapid.Check(t, func(rt *rapid.T) {
		partition++
		n := rapid.IntRange(1, 30).Draw(rt, "rows")
		rows := make([]row, n)
		for i := range rows {
			rows[i] = row{
				id: text.Draw(rt, "id"), source: text.Draw(rt, "source"), user: text.Draw(rt, "user"), company: text.Draw(rt, "company"),
				tier: text.Draw(rt, "tier"), service: text.Draw(rt, "service"), endpoint: text.Draw(rt, "endpoint"), period: text.Draw(rt, "period"),
				at:     base.at + rapid.Int64Range(0, 5*24*time.Hour.Milliseconds()).Draw(rt, "at"),
				points: rapid.OneOf(rapid.Just(uint32(maxPoints)), rapid.Uint32()).Draw(rt, "points"), processing: amount.Draw(rt, "processing"),
				revenue: amount.Draw(rt, "revenue"), offset: int64(i),
			}
		}
		b := blockOf(rows...)
		in := b.Intent("usage", partition, 0, int64(n), 0, n)
		in.InsertBy = s.Deadline()
		if err := s.Insert(t.Context(), in, b, 0, n); err != nil {
			rt.Fatalf("%v", err)
		}
		same(rt, s.rows(t, partition), rows)
	})
}

// Up to 256 different values a key is one byte, above that four.
func TestDictionariesOfEverySizeAreStored(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	for partition, n := range []int{1, 2, 255, 256, 257, 5000} {
		rows := make([]row, n)
		for i := range rows {
			rows[i] = plain(i)
			rows[i].at = plain(0).at - int64(i%1000)
			rows[i].service, rows[i].endpoint = fmt.Sprintf("service-%d", i), fmt.Sprintf("/v1/%d", n-i)
		}
		b := blockOf(rows...)
		in := b.Intent("usage", partition, 0, int64(n), 0, n)
		in.InsertBy = s.Deadline()
		if err := s.Insert(t.Context(), in, b, 0, n); err != nil {
			t.Fatal(err)
		}
		got := s.rows(t, partition)
		wanted := map[int64]row{}
		for _, r := range rows {
			wanted[r.offset] = r
		}
		for _, r := range got {
			if r != wanted[r.offset] {
				t.Fatalf("%d values: row is\n%+v, want\n%+v", n, r, wanted[r.offset])
			}
		}
		if len(got) != n {
			t.Errorf("%d values: %d rows", n, len(got))
		}
	}
}

func TestOnlyTheLiveRowsOfTheRangeAreInserted(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	rows := plains(10)
	for i := range rows {
		rows[i] = rows[i].monthsAgo(i % 3)
	}
	b := blockOf(rows...)
	b.Drop(4)
	in := b.Intent("usage", 0, 2, 8, 2, 8)
	in.InsertBy = s.Deadline()
	if err := s.Insert(t.Context(), in, b, 2, 8); err != nil {
		t.Fatal(err)
	}
	same(t, s.rows(t, 0), []row{rows[2], rows[3], rows[5], rows[6], rows[7]})
	if c := s.counts(t); c != (counts{5, 5, 5, 5}) {
		t.Errorf("stored %+v", c)
	}
	if len(in.Parts) != 3 {
		t.Errorf("%d months, want 3", len(in.Parts))
	}
}

func TestABlockWithoutLiveRowsIsNoInsert(t *testing.T) {
	t.Parallel()
	b := blockOf(plains(2)...)
	b.Drop(0)
	b.Drop(1)
	if in := b.Intent("usage", 0, 0, 2, 0, 2); len(in.Parts) != 0 {
		t.Errorf("parts %v", in.Parts)
	}
}
