package billing

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/internal/analytics"
)

// A usage is an event of the model: what its producer sent.
type usage struct {
	period  analytics.Month
	at      time.Time
	points  int
	revenue string
	offset  int64 // of its row; -1: it is lost
	voided  bool
}

// Sum over all exports of a period = rows - voids = the model, for any order of arrival, late events, voids, loss and replay, and wherever between
// them periods are closed; closed bytes never change. Duplicates leave no row, so they are no step here.
func TestExports_SumIsWhatTheRowsAddUpTo(t *testing.T) {
	t.Parallel()
	f := setup(t)
	months := []analytics.Month{ago(5), ago(4), ago(3), ago(2)}
	companies := 0
	const histories = 5 // each costs a second
	rapid.Check(t, func(r *rapid.T) {
		if companies++; companies > histories {
			return
		}
		company := fmt.Sprint("c-", companies)
		f.exec(t, "INSERT INTO companies (company_id, name, billing_email, created_at) VALUES ('"+company+"', 'A', 'a@x', '2020-01-01')")
		var sent []*usage
		next := int64(0)
		f.log.reach(0, 1_000_000)
		exports := map[analytics.Month]*Export{}
		place := func(u *usage, void bool) row {
			row := row{company: company, user: "u", at: u.at, period: u.period.String(), points: u.points, revenue: u.revenue, offset: next, void: void}
			next++
			return row
		}
		closeOne := func(period analytics.Month) {
			f.log.reach(next, 1_000_000)
			exports[period] = f.closed(t, company, period)
		}
		steps := rapid.IntRange(6, 14).Draw(r, "steps")
		for range steps {
			switch rapid.IntRange(0, 5).Draw(r, "step") {
			case 0, 1: // usage arrives, of any period, in any order
				var rows []row
				for range rapid.IntRange(1, 4).Draw(r, "events") {
					period := rapid.SampledFrom(months).Draw(r, "period")
					u := &usage{period: period, at: period.Start().Add(time.Duration(rapid.IntRange(-48, 400).Draw(r, "hour")) * time.Hour), points: rapid.IntRange(0, 9).Draw(r, "points"),
						revenue: fmt.Sprintf("0.%06d", rapid.IntRange(0, 999_999).Draw(r, "revenue")), offset: next}
					rows = append(rows, place(u, false))
					sent = append(sent, u)
				}
				f.put(t, rows...)
			case 2: // a void
				if u := one(r, sent, func(u *usage) bool { return !u.voided && u.offset >= 0 }); u != nil {
					f.put(t, place(u, true))
					u.voided = true
				}
			case 3: // a row is lost
				if u := one(r, sent, func(u *usage) bool { return !u.voided && u.offset >= 0 }); u != nil {
					f.lose(t, company, 0, u.offset)
					u.offset = -1
				}
			case 4: // what was lost is published again
				if u := one(r, sent, func(u *usage) bool { return u.offset < 0 }); u != nil {
					u.offset = next
					f.put(t, place(u, false))
				}
			case 5:
				closeOne(rapid.SampledFrom(months).Draw(r, "closed"))
			}
		}
		before := map[analytics.Month]*Export{}
		for _, period := range append(months, ago(1)) {
			if exports[period] != nil {
				before[period] = exports[period]
			}
			closeOne(period)
		}
		sums := map[string]Amounts{}
		for period, x := range exports {
			if b := before[period]; b != nil && (string(b.JSON) != string(x.JSON) || string(b.CSV) != string(x.CSV)) {
				r.Fatalf("the export of %s has changed", period)
			}
			d := x.document(t)
			sums[d.Period] = sums[d.Period].plus(d.Totals.Usage)
			for _, c := range d.Corrections {
				sums[c.Period] = sums[c.Period].plus(c.Amounts)
			}
		}
		for _, period := range months {
			var want Amounts
			for _, u := range sent {
				if u.period == period && !u.voided && u.offset >= 0 {
					want = want.plus(amountsOf(1, int64(u.points), u.revenue))
				}
			}
			if got := sums[period.String()]; !got.equal(want) {
				r.Fatalf("%s of %s: the exports say %+v, the rows %+v", period, company, got, want)
			}
		}
	})
}

// one draws one of those that fit; nil: none does.
func one(r *rapid.T, from []*usage, fits func(*usage) bool) *usage {
	var all []*usage
	for _, u := range from {
		if fits(u) {
			all = append(all, u)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return rapid.SampledFrom(all).Draw(r, "which")
}
