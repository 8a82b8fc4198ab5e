package migrations_test

import (
	"fmt"
	"testing"
)

func TestAPeriodWithoutAPriceGoesOnByItself(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	// Whatever the present is: it lies in the period, periods begin on the day of the start or the month's last, and one with a price
	// stays as it is.
	for _, start := range []string{"2024-01-31 10:00+00", "2024-02-29 23:59:59.999999+00", "2025-12-31 00:00+05", "2026-10-25 02:30+02", "2020-03-30 12:00+00"} {
		for _, check := range []struct{ what, condition string }{
			{"now lies in it", "p.starts <= now() AND now() < p.ends"},
			{"it is whole months after the start", `p.starts AT TIME ZONE 'UTC' = s AT TIME ZONE 'UTC'
				+ (12 * (extract(year FROM p.starts AT TIME ZONE 'UTC') - extract(year FROM s AT TIME ZONE 'UTC'))
				+ extract(month FROM p.starts AT TIME ZONE 'UTC') - extract(month FROM s AT TIME ZONE 'UTC'))::int * interval '1 month'`},
			{"it is a month", "p.ends - p.starts BETWEEN interval '28 days' AND interval '31 days'"},
		} {
			if got := d.one(d.owner, fmt.Sprintf("SELECT (%s)::text FROM (SELECT timestamptz '%s' AS s) AS x, current_period(s, s + interval '30 days', 0) AS p", check.condition, start)); got != "true" {
				t.Errorf("from %s: %s: %s", start, check.what, got)
			}
		}
		paid := fmt.Sprintf("SELECT (p.starts = s AND p.ends = s + interval '30 days')::text FROM (SELECT timestamptz '%s' AS s) AS x, current_period(s, s + interval '30 days', 4900) AS p", start)
		if got := d.one(d.owner, paid); got != "true" {
			t.Errorf("from %s, with a price: %s", start, got)
		}
	}
	if got := d.one(d.owner, "SELECT (p.starts = s AND p.ends = s + interval '1 month')::text FROM (SELECT now() - interval '1 day' AS s) AS x, current_period(s, s + interval '1 month', 0) AS p"); got != "true" {
		t.Errorf("the first period: %s", got)
	}
}
