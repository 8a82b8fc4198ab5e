package totals

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// Lowering says which totals may be lowered. A total that is higher than its rows may be wrong, or it is right and rows
// are missing: deleted by hand, or lost with a disk. Then lowering it would lose the last trace of them.
type Lowering struct {
	// All: every total may be lowered. An operator has said so.
	All bool

	// Explained are rows that were counted twice and stand only once now. A total may be lowered by what they add up to.
	Explained Sums

	// Repeated are, of each insert that was sent once more, what its rows add up to: a view may have counted it twice. A
	// total may be lowered by exactly that, of one of them.
	Repeated []Sums

	// Held: every event since Since is in the log, and the log was compared with the rows and none is missing. A total
	// whose rows are all from after Since may be lowered. The zero time: every event there ever was.
	Held  bool
	Since time.Time
}

// Mark finds out about each total whether it would be corrected, for [Total.Correctable] and [Total.String].
func (l *Lowering) Mark(wrong []Total) {
	for i := range wrong {
		wrong[i].unexplained = !l.allows(&wrong[i])
	}
}

// lowers reports whether a total would become smaller by being corrected.
func (t *Total) lowers() bool {
	return t.lowersLast() || slices.ContainsFunc(t.diff, func(d string) bool { return strings.HasPrefix(d, "-") })
}

// allows reports whether a total may be made what the rows add up to.
func (l *Lowering) allows(t *Total) bool {
	if !t.lowers() || l.All || l.Explained.cover(t) || slices.ContainsFunc(l.Repeated, func(s Sums) bool { return s.equal(t) }) {
		return true
	}
	return l.Held && (l.Since.IsZero() || t.begin.After(l.Since))
}

// Sums are what some rows add up to: by view and key, in the order of the view's sums.
type Sums map[string]map[string][]decimal.Decimal

// Add takes further sums in.
func (s Sums) Add(more Sums) {
	for view, keys := range more {
		if s[view] == nil {
			s[view] = map[string][]decimal.Decimal{}
		}
		for key, sums := range keys {
			total := make([]decimal.Decimal, len(sums))
			for i := range sums {
				total[i] = sums[i]
				if known := s[view][key]; known != nil {
					total[i] = total[i].Add(known[i])
				}
			}
			s[view][key] = total
		}
	}
}

// Replace takes further sums in, which stand for the same rows where a key has some already.
func (s Sums) Replace(more Sums) {
	for view, keys := range more {
		if s[view] == nil {
			s[view] = map[string][]decimal.Decimal{}
		}
		maps.Copy(s[view], keys)
	}
}

// cover reports whether a total is higher than its rows by these sums at most.
func (s Sums) cover(t *Total) bool {
	sums := s[t.of.view][t.Name()]
	if sums == nil {
		return false
	}
	for i, d := range t.diff {
		diff, err := decimal.NewFromString(d)
		if err != nil || diff.Neg().GreaterThan(sums[i]) {
			return false
		}
	}
	return true
}

// equal reports whether a total is higher than its rows by exactly these sums.
func (s Sums) equal(t *Total) bool {
	sums := s[t.of.view][t.Name()]
	for i, d := range t.diff {
		diff, err := decimal.NewFromString(d)
		if err != nil || sums == nil || !diff.Neg().Equal(sums[i]) {
			return false
		}
	}
	return true
}

// SumsOf adds up the rows of usage_tracking that meet an SQL condition.
func (c *Checker) SumsOf(ctx context.Context, condition string, args ...any) (Sums, error) {
	result := Sums{}
	for _, a := range aggregates() {
		query := statement("sums", struct {
			Keys, Sums []column
			Rows       string
		}{a.keys, a.sums, condition})
		answer, err := Ask(LongQuery(ctx, nil), c.conn, query, End{Row: "CAST([], 'Array(String)'), CAST([], 'Array(String)')"}, args...)
		if err != nil {
			return nil, fmt.Errorf("add up rows as %s does: %w", a.view, err)
		}
		keys := map[string][]decimal.Decimal{}
		for {
			var key, values []string
			if !answer.Next(&key, &values) {
				break
			}
			for _, v := range values {
				d, err := decimal.NewFromString(v)
				if err != nil {
					_ = answer.Close() // the error at hand says more
					return nil, fmt.Errorf("add up rows as %s does: %w", a.view, err)
				}
				keys[strings.Join(key, "|")] = append(keys[strings.Join(key, "|")], d)
			}
		}
		if err := answer.Close(); err != nil {
			return nil, fmt.Errorf("add up rows as %s does: %w", a.view, err)
		}
		result[a.view] = keys
	}
	return result, nil
}

// begins says of hours and days when they begin.
func (s *suspects) begins() error {
	for i := range s.wrong {
		t := &s.wrong[i]
		for n, k := range s.of.keys {
			if k.time == "" {
				continue
			}
			var err error
			if t.begin, err = time.Parse(k.time, t.key[n]); err != nil {
				return fmt.Errorf("read the key %s of %s: %w", t.Name(), t.of.view, err)
			}
		}
	}
	return nil
}

// age deals with totals of billing periods, which are compared with all rows there are: a period is whatever the event
// says, so a row of any age may be in it, and one that has left by its age may be missing in any. The daily totals outlive
// the rows and tell since when a user has any. Where that is before the border, periods near the border are not judged,
// and no total is corrected.
func (c *Checker) age(ctx context.Context, s *suspects, border string) error {
	const perQuery = 500
	first := map[[3]string]time.Time{}
	for from := 0; from < len(s.wrong); from += perQuery {
		some := s.wrong[from:min(from+perQuery, len(s.wrong))]
		list, args := make([]string, 0, len(some)), []any{}
		for _, t := range some {
			list, args = append(list, "(?, ?, ?)"), append(args, t.key[0], t.key[1], t.key[2])
		}
		answer, err := Ask(LongQuery(ctx, nil), c.conn, statement("first_days", strings.Join(list, ", ")), End{Row: "'', '', '', toDate(0)"}, args...)
		if err != nil {
			return fmt.Errorf("look since when users have usage: %w", err)
		}
		var key [3]string
		var day time.Time
		for answer.Next(&key[0], &key[1], &key[2], &day) {
			first[key] = day
		}
		if err := answer.Close(); err != nil {
			return fmt.Errorf("look since when users have usage: %w", err)
		}
	}
	day, err := time.Parse(time.DateOnly, border)
	if err != nil {
		return fmt.Errorf("read the border: %w", err)
	}
	near := time.Date(day.Year(), day.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, 2, 0).Format("2006-01")
	judged := s.wrong[:0]
	for _, t := range s.wrong {
		begin, known := first[[3]string{t.key[0], t.key[1], t.key[2]}]
		if known && begin.Before(day) {
			if t.key[3] < near {
				s.expired++
				continue
			}
			t.irreparable = true
		}
		t.begin = begin
		judged = append(judged, t)
	}
	s.wrong = judged
	return nil
}
