package billing

import (
	"fmt"
	"strings"
	"testing"
)

// ClickHouse reads back what it has written: typed, and with the texts as they are.
func TestParquet_ReadsBack(t *testing.T) {
	t.Parallel()
	f := setup(t)
	period := ago(3)
	f.transaction(t, "=t", 4900, period.Start(), `[]`)
	f.put(t, row{user: "u", service: "it's a \\ \"=1\"\n\x00é", at: period.Start(), points: 3, revenue: "0.000001", offset: 1})
	x := f.closed(t, "acme", period)
	file, err := f.Parquet(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	hex := fmt.Sprintf("%x", file)
	rows, err := f.Conn.Query(t.Context(), "SELECT line, reference, service_name, toString(ifNull(calls, -1)), toString(attributed_revenue), toString(amount), toString(starts_at) FROM format(Parquet, unhex('"+hex+"')) ORDER BY line")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var got []string
	for rows.Next() {
		var line, reference, service, calls string
		var revenue, amount, starts *string
		if err := rows.Scan(&line, &reference, &service, &calls, &revenue, &amount, &starts); err != nil {
			t.Fatal(err)
		}
		show := func(s *string) string {
			if s == nil {
				return "-"
			}
			return *s
		}
		got = append(got, fmt.Sprintf("%s %s %q %s %s %s %s", line, reference, service, calls, show(revenue), show(amount), show(starts)))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("charge =t \"\" -1 - 49 %s\nusage  %q 1 0.000001 - -", period.Start().Format("2006-01-02 15:04:05.000000"), "it's a \\ \"=1\"\n\x00é")
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}
