package verify

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
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
	for i := range totals {
		v.cfg.Progress(Progress{Stage: "repair", Done: int64(i), Total: int64(len(totals))})
		if err := v.repairTotal(ctx, &totals[i], &mended); err != nil {
			return mended, err
		}
	}
	return mended, nil
}

// maxAttempts is how often a correction is sent that the server drops.
const maxAttempts = 50

// repairTotal makes one total what the rows add up to.
//
// Sums are corrected by inserting the difference. Its deduplication token is made of the key and of both sums, so two
// repairs at the same time correct once. The server drops it also when the same difference was mended before, not long
// ago, and has come back; so the key is looked at after the insert, and when nothing has changed, the next token is
// tried. A maximum that is too large can't be lowered by an insert: then the key is deleted first.
func (v *Verifier) repairTotal(ctx context.Context, t *total, mended *Repairs) error {
	if t.irreparable {
		return nil
	}
	now, err := v.lookAt(ctx, t)
	if err != nil || now == nil || !now.quiet || !now.sameAs(t) {
		return err // mended by somebody else, or no longer quiet: the next look decides
	}
	rebuilt := false
	if now.of.last && now.last[1] > now.last[0] && now.rows[0] != "0" {
		if err := v.deleteTotal(ctx, now); err != nil {
			return err
		}
		rebuilt = true
		if now, err = v.lookAt(ctx, t); err != nil || now == nil {
			return err
		}
	}
	for attempt := 1; attempt <= maxAttempts; attempt++ {
		if err := v.insertDifference(ctx, now, attempt); err != nil {
			return err
		}
		after, err := v.lookAt(ctx, t)
		if err != nil {
			return err
		}
		if after == nil || !slices.Equal(after.stored, now.stored) || after.last[1] != now.last[1] {
			if rebuilt {
				mended.TotalsRebuilt++
			} else {
				mended.TotalsMended++
			}
			return nil
		}
	}
	v.log.WarnContext(ctx, "a correction has no effect", slog.String("total", t.of.view+" "+t.name()))
	return nil
}

// lookAt compares one key. nil: it does not differ.
func (v *Verifier) lookAt(ctx context.Context, t *total) (*total, error) {
	at, err := v.positions(ctx)
	if err != nil {
		return nil, err
	}
	var ofRows, ofStore []string
	var args []any
	for i, k := range t.of.keys {
		ofRows = append(ofRows, k.row+" = "+k.literal)
		ofStore = append(ofStore, k.name+" = "+k.literal)
		args = append(args, t.key[i])
	}
	condition := [2]string{strings.Join(ofRows, " AND "), strings.Join(ofStore, " AND ")}
	query, queryArgs := v.comparison(t.of, at, condition, args, args)
	totals, err := v.readTotals(ctx, t.of, at, "SELECT * FROM ("+query+") WHERE differs", queryArgs)
	if err != nil || len(totals) == 0 {
		return nil, err
	}
	return &totals[0], nil
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

// deleteTotal takes all that a store holds of a key out of it.
func (v *Verifier) deleteTotal(ctx context.Context, t *total) error {
	var conditions []string
	var args []any
	for i, k := range t.of.keys {
		conditions, args = append(conditions, k.name+" = "+k.literal), append(args, t.key[i])
	}
	query := "ALTER TABLE " + t.of.store + " DELETE WHERE " + strings.Join(conditions, " AND ") + " SETTINGS mutations_sync = 2"
	if err := v.conn.Exec(ctx, query, args...); err != nil {
		return fmt.Errorf("rebuild %s %s: delete what is stored: %w", t.of.view, t.name(), err)
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
