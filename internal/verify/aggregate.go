package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An aggregate is a view over a store of sums and maxima, and how its columns come from the rows.
type aggregate struct {
	view, store string
	keys        []keyColumn
	sums        []sumColumn
	last        bool   // it has a last_activity, the largest timestamp
	month       string // expression of the store's partition; empty: it has none
}

type keyColumn struct {
	name    string
	row     string // expression over a row
	literal string // turns the column's text back into its value; ? is the text
	time    bool   // is compared with the border
}

type sumColumn struct {
	name string
	row  string // expression over rows
}

func aggregates() []aggregate {
	text := func(name string) keyColumn { return keyColumn{name: name, row: name, literal: "?"} }
	const points, revenue = "toInt64(sum(data_points_consumed))", "toDecimal128(sum(revenue_attributed), 6)"
	return []aggregate{
		{
			view: "usage_analytics_hourly", store: "usage_hourly_store", month: "toYYYYMM(hour)",
			keys: []keyColumn{text("company_id"), text("subscription_tier"), text("service_name"),
				{name: "hour", row: "toStartOfHour(timestamp)", literal: "toDateTime(?, 'UTC')", time: true}},
			sums: []sumColumn{{"requests", "toInt64(count())"}, {"data_points", points},
				{"processing_time_ms", "toDecimal128(sum(usage_tracking.processing_time_ms), 3)"}, {"revenue", revenue}},
		},
		{
			view: "usage_daily", store: "usage_daily_store", month: "toYYYYMM(day)", last: true,
			keys: []keyColumn{text("company_id"), text("user_id"), text("subscription_tier"),
				{name: "day", row: "toDate(timestamp)", literal: "toDate(?)", time: true}},
			sums: []sumColumn{{"api_calls", "toInt64(count())"}, {"data_points", points}, {"revenue", revenue}},
		},
		{
			view: "billing_monthly", store: "billing_monthly_store", last: true,
			keys: []keyColumn{text("company_id"), text("user_id"), text("subscription_tier"), text("billing_period")},
			sums: []sumColumn{{"api_calls", "toInt64(count())"}, {"data_points", points}, {"revenue", revenue}},
		},
	}
}

// A total is one key of an aggregate whose sums are not what the rows add up to. Sums are exact decimal texts.
type total struct {
	of     *aggregate
	key    []string
	rows   []string // sums of the rows
	stored []string // sums of the store
	diff   []string // rows - stored
	last   [2]int64 // largest timestamp of the rows and of the store, in milliseconds
	quiet  bool

	irreparable bool // rows that it was made of may have left by their age
}

func (t *total) name() string { return strings.Join(t.key, "|") }

// finding describes the difference.
func (t *total) finding() Finding {
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
	}
	return Finding{Kind: WrongTotal, Where: t.of.view + " " + t.name(), Detail: strings.Join(parts, "; ")}
}

// sameAs tells whether two looks at a key saw the same difference. The sums themselves may have grown meanwhile.
func (t *total) sameAs(o *total) bool {
	return slices.Equal(t.diff, o.diff) && (t.last == o.last || t.last[0] == t.last[1] == (o.last[0] == o.last[1]))
}

func countOf(totals []total, view string) int {
	n := 0
	for i := range totals {
		if totals[i].of.view == view {
			n++
		}
	}
	return n
}

// maxTotals is how many differing keys of an aggregate and month are listed in one round.
const maxTotals = 20_000

// A chunk is the part of an aggregate that is compared in one query.
type chunk struct {
	of    *aggregate
	month int // 202611; 0: everything
}

// A look is the result of comparing a chunk.
type look struct {
	keys, differ int64
	totals       map[string]total // the first maxTotals of those that differ
}

// compareAggregates compares all totals with the rows. What seems to differ is looked at again, after longer than an
// insert can take; what differs the same way then is a difference, if nothing was under way in it. Then one last look
// follows at once: it makes sure that no insert slipped in between the reading of the rows and that of the sums.
func (v *Verifier) compareAggregates(ctx context.Context, found int64) ([]Aggregate, []total, error) {
	border, err := v.border(ctx)
	if err != nil {
		return nil, nil, err
	}
	all := aggregates()
	results := make([]Aggregate, len(all))
	var confirmed []total
	var suspect []chunk
	looks := map[chunk]*look{}
	for i := range all {
		results[i].View = all[i].view
		chunks, err := v.chunks(ctx, &all[i], border)
		if err != nil {
			return nil, nil, err
		}
		for n, c := range chunks {
			v.cfg.Progress(Progress{Stage: all[i].view, Done: int64(n), Total: int64(len(chunks)), Differences: found})
			l, err := v.look(ctx, c, border)
			if err != nil {
				return nil, nil, err
			}
			results[i].Keys += l.keys
			if l.differ > 0 {
				suspect, looks[c] = append(suspect, c), l
			}
		}
	}
	if len(suspect) == 0 {
		return results, nil, nil
	}
	v.cfg.Progress(Progress{Stage: "looking again", Total: int64(len(suspect)), Differences: found})
	if err := wait(ctx, v.cfg.InsertTimeout+margin); err != nil {
		return nil, nil, err
	}
	for n, c := range suspect {
		v.cfg.Progress(Progress{Stage: "looking again", Done: int64(n), Total: int64(len(suspect)), Differences: found})
		result := &results[slices.IndexFunc(results, func(a Aggregate) bool { return a.View == c.of.view })]
		totals, err := v.lookAgain(ctx, c, border, looks[c], result)
		if err != nil {
			return nil, nil, err
		}
		confirmed = append(confirmed, totals...)
	}
	return results, confirmed, nil
}

// lookAgain decides about the keys of a chunk that differed at first sight.
func (v *Verifier) lookAgain(ctx context.Context, c chunk, border string, first *look, result *Aggregate) ([]total, error) {
	second, err := v.look(ctx, c, border)
	if err != nil {
		return nil, err
	}
	if second.differ == 0 {
		return nil, nil
	}
	third, err := v.look(ctx, c, border)
	if err != nil {
		return nil, err
	}
	var confirmed []total
	for name, t := range third.totals {
		one, seen := first.totals[name]
		two, again := second.totals[name]
		switch {
		case !t.quiet || again && !two.quiet || !seen || !again || !one.sameAs(&t) || !two.sameAs(&t):
			result.Busy++
		default:
			confirmed = append(confirmed, t)
		}
	}
	slices.SortFunc(confirmed, func(a, b total) int { return strings.Compare(a.name(), b.name()) })
	if c.of.month == "" {
		var expired int64
		if confirmed, expired, err = v.aged(ctx, confirmed, border); err != nil {
			return nil, err
		}
		result.Expired += expired
	}
	result.Different += int64(len(confirmed))
	if third.differ > int64(len(third.totals)) && len(confirmed) > 0 {
		// Too many to be listed. They differed in every look, if not one by one.
		result.Different += third.differ - int64(len(third.totals))
	}
	return confirmed, nil
}

// border is the first day that is compared with rows, as YYYY-MM-DD: a day short of what the table may have dropped.
func (v *Verifier) border(ctx context.Context) (string, error) {
	var border string
	if err := v.conn.QueryRow(ctx, "SELECT toString(toDate(now('UTC') - INTERVAL 2 YEAR) + 2)").Scan(&border); err != nil {
		return "", fmt.Errorf("read ClickHouse's clock: %w", err)
	}
	return border, nil
}

// chunks lists what an aggregate is compared in: months, where store and rows have them.
func (v *Verifier) chunks(ctx context.Context, a *aggregate, border string) ([]chunk, error) {
	if a.month == "" {
		return []chunk{{of: a}}, nil
	}
	rows, err := v.conn.Query(ctx, "SELECT DISTINCT month FROM ("+
		"SELECT DISTINCT toYYYYMM(timestamp) AS month FROM usage_tracking UNION ALL SELECT DISTINCT "+a.month+" AS month FROM "+a.store+
		") WHERE month >= toYYYYMM(toDate(?)) ORDER BY month", border)
	if err != nil {
		return nil, fmt.Errorf("list the months of %s: %w", a.view, err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	var chunks []chunk
	for rows.Next() {
		var month uint32
		if err := rows.Scan(&month); err != nil {
			return nil, fmt.Errorf("list the months of %s: %w", a.view, err)
		}
		chunks = append(chunks, chunk{of: a, month: int(month)})
	}
	return chunks, rows.Err()
}

// look compares the keys of a chunk.
func (v *Verifier) look(ctx context.Context, c chunk, border string) (*look, error) {
	at, err := v.positions(ctx)
	if err != nil {
		return nil, err
	}
	condition := [2]string{"1", "1"} // of the rows and of the store
	var args []any
	for _, k := range c.of.keys {
		if k.time {
			condition[0] = "timestamp >= toDateTime64(?, 3, 'UTC') AND toYYYYMM(timestamp) = ?"
			condition[1] = k.name + " >= " + k.literal + " AND " + c.of.month + " = ?"
			args = []any{border, c.month}
			if strings.HasPrefix(k.literal, "toDateTime") {
				args[0] = border + " 00:00:00"
			}
		}
	}
	query, queryArgs := v.comparison(c.of, at, condition, args, args)
	l := &look{totals: map[string]total{}}
	var keys, differ uint64
	if err := v.conn.QueryRow(spill(ctx), "SELECT count(), countIf(differs) FROM ("+query+")", queryArgs...).Scan(&keys, &differ); err != nil {
		return nil, fmt.Errorf("compare %s with the rows: %w", c.of.view, err)
	}
	l.keys, l.differ = int64(keys), int64(differ) // #nosec G115 -- numbers of keys
	if differ == 0 {
		return l, nil
	}
	totals, err := v.readTotals(ctx, c.of, at, fmt.Sprintf("SELECT * FROM (%s) WHERE differs ORDER BY k LIMIT %d", query, maxTotals), queryArgs)
	if err != nil {
		return nil, err
	}
	for _, t := range totals {
		l.totals[t.name()] = t
	}
	return l, nil
}

// comparison is the query that puts, key by key, what the rows add up to beside what the store holds. Its columns: the
// key as texts, the sums of the rows, of the store and their difference as texts, the largest timestamps of both, the
// latest deadline of a row, whether a row's insert is not settled, and whether anything differs.
func (v *Verifier) comparison(a *aggregate, at *positions, condition [2]string, rowArgs, storeArgs []any) (query string, args []any) {
	pending, pendingArgs := at.pending(v.cfg.Topic)
	var names, keyTexts, rowKeys, rowSums, storeSums, noRows, noStore, outer, rowsOut, storedOut, diffOut, differs []string
	for _, k := range a.keys {
		names = append(names, k.name)
		keyTexts = append(keyTexts, "toString("+k.name+")")
		if k.row == k.name {
			rowKeys = append(rowKeys, k.name)
		} else {
			rowKeys = append(rowKeys, k.row+" AS "+k.name)
		}
	}
	for i, c := range a.sums {
		r, s := fmt.Sprintf("r%d", i), fmt.Sprintf("s%d", i)
		rowSums = append(rowSums, c.row+" AS "+r)
		storeSums = append(storeSums, "sum("+c.name+") AS "+s)
		noStore = append(noStore, "0 AS "+s)
		noRows = append(noRows, "0 AS "+r)
		outer = append(outer, "sum("+r+") AS sum_"+r, "sum("+s+") AS sum_"+s)
		rowsOut = append(rowsOut, "toString(sum_"+r+")")
		storedOut = append(storedOut, "toString(sum_"+s+")")
		diffOut = append(diffOut, "toString(sum_"+r+" - sum_"+s+")")
		differs = append(differs, "sum_"+r+" != sum_"+s)
	}
	const epoch = "toDateTime64(0, 3, 'UTC')"
	storeLast := epoch
	if a.last {
		storeLast = "max(" + a.store + ".last_activity)"
		// A key without rows has no maximum; its sums say whether that is right.
		differs = append(differs, "sum_r0 != 0 AND last_rows != last_store")
	}
	join := func(lists ...[]string) string {
		return strings.Join(slices.Concat(lists...), ", ")
	}
	query = "SELECT [" + join(keyTexts) + "] AS k, [" + join(rowsOut) + "] AS r, [" + join(storedOut) + "] AS s, [" + join(diffOut) + "] AS d, " +
		"toUnixTimestamp64Milli(last_rows) AS l0, toUnixTimestamp64Milli(last_store) AS l1, toUnixTimestamp64Milli(deadline) AS by, unsettled, " +
		"(" + strings.Join(differs, " OR ") + ") AS differs FROM (" +
		"SELECT " + join(names, outer) + ", max(lr) AS last_rows, max(ls) AS last_store, max(ib) AS deadline, max(pend) AS unsettled FROM (" +
		"SELECT " + join(rowKeys, rowSums, noStore) + ", max(timestamp) AS lr, " + epoch + " AS ls, max(_insert_by) AS ib, max(toUInt8(" + pending + ")) AS pend " +
		"FROM usage_tracking WHERE " + condition[0] + " GROUP BY " + join(names) +
		" UNION ALL " +
		"SELECT " + join(names, noRows, storeSums) + ", " + epoch + " AS lr, " + storeLast + " AS ls, " + epoch + " AS ib, toUInt8(0) AS pend " +
		"FROM " + a.store + " WHERE " + condition[1] + " GROUP BY " + join(names) +
		") GROUP BY " + join(names) + ")"
	return query, slices.Concat(pendingArgs, rowArgs, storeArgs)
}

// readTotals runs a comparison.
func (v *Verifier) readTotals(ctx context.Context, a *aggregate, at *positions, query string, args []any) ([]total, error) {
	rows, err := v.conn.Query(longQuery(ctx), query, args...)
	if err != nil {
		return nil, fmt.Errorf("compare %s with the rows: %w", a.view, err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	var totals []total
	for rows.Next() {
		t := total{of: a}
		var insertBy int64
		var unsettled, differs uint8
		if err := rows.Scan(&t.key, &t.rows, &t.stored, &t.diff, &t.last[0], &t.last[1], &insertBy, &unsettled, &differs); err != nil {
			return nil, fmt.Errorf("compare %s with the rows: %w", a.view, err)
		}
		t.quiet = unsettled == 0 && quiet(insertBy, at.now)
		totals = append(totals, t)
	}
	return totals, rows.Err()
}
