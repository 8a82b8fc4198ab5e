package verify

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"golang.org/x/sync/errgroup"
)

// repair mends what a check has found. Rows come first: which ones there are decides what the totals must be.
func (v *Verifier) repair(ctx context.Context, t *todo) (Repairs, error) {
	var mended Repairs
	totals := t.totals
	if len(t.doubles) > 0 {
		if err := v.removeDoubles(ctx, t.doubles, &mended); err != nil {
			return mended, err
		}
		if mended.RowsRemoved > 0 {
			var err error
			if _, totals, err = v.compareAggregates(ctx, 0); err != nil {
				return mended, err
			}
		}
	}
	published, err := v.publishConfigs(ctx, t.configs)
	if err != nil {
		return mended, err
	}
	mended.Configs = published
	totals = slices.DeleteFunc(totals, func(t total) bool { return t.irreparable })
	for _, a := range aggregates() {
		var own []total
		for _, t := range totals {
			if t.of.view == a.view {
				own = append(own, t)
			}
		}
		for some := range slices.Chunk(own, repairPerQuery) {
			v.cfg.Progress(Progress{Stage: "repair " + a.view, Done: mended.TotalsMended + mended.TotalsRebuilt, Total: int64(len(totals))})
			if err := v.repairTotals(ctx, some, &mended); err != nil {
				return mended, err
			}
		}
	}
	return mended, nil
}

const (
	// repairPerQuery is how many keys are looked at together. They are corrected one by one.
	repairPerQuery = 200
	// maxAttempts is how often a correction is sent that the server drops.
	maxAttempts = 50
	// inserts is how many corrections are under way at a time.
	inserts = 4
)

// repairTotals makes some totals of one aggregate what the rows add up to.
//
// Sums are corrected by inserting the difference. Its deduplication token is made of the key and of both sums, so two
// repairs at the same time correct once. The server drops it also when the same difference was mended before, not long
// ago, and has come back; so the keys are looked at after the insert, and for one that has not changed, the next token is
// tried. A maximum that is too large can't be lowered by an insert: such a key is deleted first.
func (v *Verifier) repairTotals(ctx context.Context, totals []total, mended *Repairs) error {
	now, err := v.lookAt(ctx, totals)
	if err != nil {
		return err
	}
	var todo, tooLate []total
	for _, t := range totals {
		n, differs := now[t.name()]
		switch {
		case !differs || !n.quiet || !n.sameAs(&t):
			// Mended by somebody else, or no longer quiet: the next check decides.
		case n.of.last && n.last[1] > n.last[0] && n.rows[0] != "0":
			tooLate = append(tooLate, n)
		default:
			todo = append(todo, n)
		}
	}
	if err := v.mend(ctx, todo, &mended.TotalsMended); err != nil || len(tooLate) == 0 {
		return err
	}
	if err := v.deleteTotals(ctx, tooLate); err != nil {
		return err
	}
	if now, err = v.lookAt(ctx, tooLate); err != nil {
		return err
	}
	todo = nil
	for _, t := range tooLate {
		if n, differs := now[t.name()]; differs {
			todo = append(todo, n)
		}
	}
	return v.mend(ctx, todo, &mended.TotalsRebuilt)
}

// mend corrects totals, with further tokens where that is needed, and counts them.
func (v *Verifier) mend(ctx context.Context, totals []total, count *int64) error {
	left, err := totals, error(nil)
	for attempt := 1; len(left) > 0 && attempt <= maxAttempts; attempt++ {
		if left, err = v.correct(ctx, left, attempt); err != nil {
			return err
		}
	}
	for i := range left {
		v.log.WarnContext(ctx, "a correction has no effect", slog.String("total", left[i].of.view+" "+left[i].name()))
	}
	*count += int64(len(totals) - len(left))
	return nil
}

// correct inserts differences, and returns those totals that the server has dropped them of.
func (v *Verifier) correct(ctx context.Context, totals []total, attempt int) (dropped []total, err error) {
	g, inserting := errgroup.WithContext(ctx)
	g.SetLimit(inserts)
	for i := range totals {
		g.Go(func() error { return v.insertDifference(inserting, &totals[i], attempt) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	after, err := v.lookAt(ctx, totals)
	if err != nil {
		return nil, err
	}
	for _, t := range totals {
		if n, differs := after[t.name()]; differs && slices.Equal(n.stored, t.stored) && n.last[1] == t.last[1] {
			dropped = append(dropped, t)
		}
	}
	return dropped, nil
}

// lookAt compares some keys of one aggregate and returns those that differ, by name.
func (v *Verifier) lookAt(ctx context.Context, totals []total) (map[string]total, error) {
	at, err := v.positions(ctx)
	if err != nil {
		return nil, err
	}
	a := totals[0].of
	names, expressions := make([]string, len(a.keys)), make([]string, len(a.keys))
	for i, k := range a.keys {
		names[i], expressions[i] = k.name, k.row
	}
	list, args := keyList(totals)
	condition := [2]string{"(" + strings.Join(expressions, ", ") + ") IN " + list, "(" + strings.Join(names, ", ") + ") IN " + list}
	query, queryArgs := v.comparison(a, at, condition, args, args)
	differing, err := v.readTotals(ctx, a, at, "SELECT * FROM ("+query+") WHERE differs", queryArgs)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]total, len(differing))
	for _, t := range differing {
		byName[t.name()] = t
	}
	return byName, nil
}

// keyList writes the keys of totals as an SQL list of tuples.
func keyList(totals []total) (list string, args []any) {
	tuples := make([]string, len(totals))
	for i := range totals {
		values := make([]string, len(totals[i].key))
		for n, k := range totals[i].of.keys {
			values[n] = k.literal
			args = append(args, totals[i].key[n])
		}
		tuples[i] = "(" + strings.Join(values, ", ") + ")"
	}
	return "(" + strings.Join(tuples, ", ") + ")", args
}

// insertDifference adds to a key what is missing; what is too much is a negative number.
func (v *Verifier) insertDifference(ctx context.Context, t *total, attempt int) error {
	var columns, values []string
	var args []any
	for i, k := range t.of.keys {
		columns, values, args = append(columns, k.name), append(values, k.literal), append(args, t.key[i])
	}
	for i, c := range t.of.sums {
		columns, values, args = append(columns, c.name), append(values, "?"), append(args, t.diff[i])
	}
	if t.of.last {
		columns, values = append(columns, "last_activity"), append(values, "fromUnixTimestamp64Milli(toInt64(?), 'UTC')")
		args = append(args, t.last[0])
	}
	token := fmt.Sprintf("tenantflow:verify:%s:%s:%s/%d:%s/%d:%d", t.of.store, t.name(),
		strings.Join(t.rows, ","), t.last[0], strings.Join(t.stored, ","), t.last[1], attempt)
	ctx = chgo.Context(ctx, chgo.WithSettings(chgo.Settings{
		"async_insert":               0,
		"insert_deduplicate":         1,
		"deduplicate_insert":         "enable",
		"insert_deduplication_token": token,
		"log_comment":                token,
	}))
	query := fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", t.of.store, strings.Join(columns, ", "), strings.Join(values, ", "))
	if err := v.conn.Exec(ctx, query, args...); err != nil {
		return fmt.Errorf("correct %s %s: %w", t.of.view, t.name(), err)
	}
	return nil
}

// deleteTotals takes all that a store holds of some keys out of it.
func (v *Verifier) deleteTotals(ctx context.Context, totals []total) error {
	a := totals[0].of
	names := make([]string, len(a.keys))
	for i, k := range a.keys {
		names[i] = k.name
	}
	list, args := keyList(totals)
	query := "ALTER TABLE " + a.store + " DELETE WHERE (" + strings.Join(names, ", ") + ") IN " + list + " SETTINGS mutations_sync = 2"
	if err := v.conn.Exec(longQuery(ctx), query, args...); err != nil {
		return fmt.Errorf("rebuild %d totals of %s: delete what is stored: %w", len(totals), a.view, err)
	}
	return nil
}

// aged deals with totals of billing periods, which are compared with all rows there are: a period is whatever the event
// says, so a row that has left by its age may be missing in any. The daily totals outlive the rows and tell which users
// had any that old. Of those, periods near the border are not judged, and no total is changed by itself.
func (v *Verifier) aged(ctx context.Context, totals []total, border string) (judged []total, expired int64, err error) {
	const perQuery = 500
	old := map[[3]string]bool{}
	for from := 0; from < len(totals); from += perQuery {
		some := totals[from:min(from+perQuery, len(totals))]
		list, args := make([]string, 0, len(some)), []any{border}
		for _, t := range some {
			list, args = append(list, "(?, ?, ?)"), append(args, t.key[0], t.key[1], t.key[2])
		}
		rows, err := v.conn.Query(longQuery(ctx), "SELECT DISTINCT company_id, user_id, toString(subscription_tier) FROM usage_daily_store "+
			"WHERE day < toDate(?) AND (company_id, user_id, subscription_tier) IN ("+strings.Join(list, ", ")+")", args...)
		if err != nil {
			return nil, 0, fmt.Errorf("look for usage from before %s: %w", border, err)
		}
		for rows.Next() {
			var key [3]string
			if err := rows.Scan(&key[0], &key[1], &key[2]); err != nil {
				_ = rows.Close() // the error at hand says more
				return nil, 0, fmt.Errorf("look for usage from before %s: %w", border, err)
			}
			old[key] = true
		}
		if err := rows.Close(); err != nil {
			return nil, 0, fmt.Errorf("look for usage from before %s: %w", border, err)
		}
	}
	day, err := time.Parse(time.DateOnly, border)
	if err != nil {
		return nil, 0, fmt.Errorf("read the border: %w", err)
	}
	first := time.Date(day.Year(), day.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, 2, 0).Format("2006-01")
	for _, t := range totals {
		if old[[3]string{t.key[0], t.key[1], t.key[2]}] {
			if t.key[3] < first {
				expired++
				continue
			}
			t.irreparable = true
		}
		judged = append(judged, t)
	}
	return judged, expired, nil
}
