package totals

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// An aggregate is a view over a store of sums and maxima, and how its columns come from the rows.
type aggregate struct {
	view, store string
	keys, sums  []column
	last        bool   // it has a last_activity, the largest timestamp
	month       string // expression of the store's partition; empty: it has none
}

type column struct {
	name    string
	row     string // of a key: expression over a row; of a sum: over rows
	literal string // turns the column's text back into its value; ? is the text
	time    string // of a key: the layout of its text, if it is the time that is compared with the border
}

// named is the expression over a row under the name of the store.
func (c *column) named() string {
	if c.row == c.name {
		return c.name
	}
	return c.row + " AS " + c.name
}

// aggregates are the three of the usage tables. What a total must be is written here and nowhere else.
func aggregates() []aggregate {
	text := func(name string) column { return column{name: name, row: name, literal: "?"} }
	sum := func(name, row, literal string) column { return column{name: name, row: row, literal: literal} }
	count := func(name string) column { return sum(name, "toInt64(sum(sign))", "toInt64(?)") }
	points := sum("data_points", "toInt64(sum(sign * toInt64(data_points_consumed)))", "toInt64(?)")
	revenue := sum("revenue", "toDecimal128(sum(sign * revenue_attributed), 6)", "toDecimal128(?, 6)")
	return []aggregate{
		{
			view: "usage_analytics_hourly", store: "usage_hourly_store", month: "toYYYYMM(hour)",
			keys: []column{text("company_id"), text("subscription_tier"), text("service_name"),
				{name: "hour", row: "toStartOfHour(timestamp)", literal: "toDateTime(?, 'UTC')", time: time.DateTime}},
			sums: []column{count("requests"), points,
				sum("processing_time_ms", "toDecimal128(sum(sign * usage_tracking.processing_time_ms), 3)", "toDecimal128(?, 3)"), revenue},
		},
		{
			view: "usage_daily", store: "usage_daily_store", month: "toYYYYMM(day)", last: true,
			keys: []column{text("company_id"), text("user_id"), text("subscription_tier"),
				{name: "day", row: "toDate(timestamp)", literal: "toDate(?)", time: time.DateOnly}},
			sums: []column{count("api_calls"), points, revenue},
		},
		{
			view: "billing_monthly", store: "billing_monthly_store", last: true,
			keys: []column{text("company_id"), text("user_id"), text("subscription_tier"), text("billing_period")},
			sums: []column{count("api_calls"), points, revenue},
		},
	}
}

// names are the key columns of the store, as a list.
func (a *aggregate) names() string { return each(a.keys, ", ", "{name}") }

// rowKeys are the same as expressions over a row.
func (a *aggregate) rowKeys() string { return each(a.keys, ", ", "{row}") }

// keyList writes keys as an SQL list of tuples.
func (a *aggregate) keyList(keys [][]string) (list string, args []any) {
	tuples := make([]string, len(keys))
	for i, key := range keys {
		values := make([]string, len(key))
		for n, k := range a.keys {
			values[n] = k.literal
			args = append(args, key[n])
		}
		tuples[i] = "(" + strings.Join(values, ", ") + ")"
	}
	return "(" + strings.Join(tuples, ", ") + ")", args
}

// A Total is one key of an aggregate whose sums are not what the rows add up to. Sums are exact decimal texts.
type Total struct {
	of     *aggregate
	month  int // of the chunk it was found in
	key    []string
	rows   []string // sums of the rows
	stored []string // sums of the store
	diff   []string // rows - stored
	last   [2]int64 // largest timestamp of the rows and of the store, in milliseconds

	pending []uint16 // partitions whose pending insert has a row in it
	beyond  []uint16 // partitions of which it has rows behind what was committed or pending when the look began

	begin       time.Time // before all of its rows; zero: unknown
	irreparable bool      // rows that it was made of may have left by their age
	unexplained bool      // it is higher than the rows, and rows may be missing
}

// View is the view whose total it is.
func (t *Total) View() string { return t.of.view }

// Name is the key: the view's key columns as texts, with a bar between them.
func (t *Total) Name() string { return strings.Join(t.key, "|") }

// Correctable reports whether Correct would try to correct it. [Lowering.Mark] has a say in that.
func (t *Total) Correctable() bool { return !t.irreparable && !t.unexplained }

// String says what is wrong with it, and why it is not corrected if it is not.
func (t *Total) String() string {
	var parts []string
	for i, c := range t.of.sums {
		if t.rows[i] != t.stored[i] {
			parts = append(parts, fmt.Sprintf("%s is %s, the rows make %s", c.name, t.stored[i], t.rows[i]))
		}
	}
	if t.of.last && t.last[0] != t.last[1] {
		at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
		parts = append(parts, fmt.Sprintf("last_activity is %s, the rows make %s", at(t.last[1]), at(t.last[0])))
	}
	if t.irreparable {
		parts = append(parts, "not repaired: older rows of the user have left by their age, and may have counted here")
	} else if t.unexplained {
		parts = append(parts, "higher than the rows; not lowered, because rows may be missing: publish the events again")
	}
	return strings.Join(parts, "; ")
}

// sameAs reports whether two looks at a key saw the same difference. The sums themselves may have grown meanwhile.
func (t *Total) sameAs(o *Total) bool {
	return slices.Equal(t.diff, o.diff) && (t.last == o.last || (t.last[0] == t.last[1]) == (o.last[0] == o.last[1]))
}

// lowersLast reports whether the largest timestamp is too large. A key without rows has none; its sums say whether that
// is right.
func (t *Total) lowersLast() bool { return t.of.last && t.last[1] > t.last[0] && t.rows[0] != "0" }

// adds reports whether a row has to be inserted: a sum differs, or the largest timestamp is too small.
func (t *Total) adds() bool {
	return t.of.last && t.last[0] > t.last[1] || slices.ContainsFunc(t.diff, func(d string) bool { return d != "0" })
}
