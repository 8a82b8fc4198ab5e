package directory_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/internal/directory"
)

// A step is a company event as Postgres has recorded it: the user joins a company, or leaves its own (empty).
type step struct {
	company             string
	effective, recorded int // seconds
}

func second(n int) time.Time { return time.Unix(int64(n), 0) }

// asOf is what the triggers have made of the steps that were recorded until a time.
func asOf(steps []step, known int) *directory.Subscription {
	s := &directory.Subscription{}
	for _, one := range steps {
		if one.recorded > known {
			break
		}
		if one.company == "" {
			m := &s.Memberships[0]
			m.Until, m.EndedAt = second(max(one.effective, int(m.Since.Unix()))), second(one.recorded)
		} else {
			m := directory.Membership{CompanyID: one.company, Since: second(one.effective), RecordedAt: second(one.recorded)}
			s.Memberships = slices.Insert(s.Memberships, 0, m)
		}
		s.CompanyID = one.company
	}
	return s
}

// What was counted, by what was known then, is counted whenever it is counted again. Not included: a claim of a company that never had the
// user, from the time between two companies.
func TestBelongedTo_WhatCountedCountsLater(t *testing.T) {
	t.Parallel()
	company := rapid.SampledFrom([]string{"a", "b", "c"})
	rapid.Check(t, func(t *rapid.T) {
		var steps []step
		effective, recorded, at := 0, 0, ""
		for range rapid.IntRange(0, 6).Draw(t, "steps") {
			effective += rapid.IntRange(0, 5).Draw(t, "pause")
			recorded = max(recorded, effective) + rapid.IntRange(0, 8).Draw(t, "delay")
			next := ""
			if at == "" {
				next = company.Draw(t, "company")
			}
			steps, at = append(steps, step{next, effective, recorded}), next
		}
		record := rapid.IntRange(0, 40).Draw(t, "record")
		claim, when := company.Draw(t, "claim"), second(rapid.IntRange(0, 40).Draw(t, "when"))
		const margin = 1
		counted := rapid.IntRange(record-margin, 60).Draw(t, "counted")
		before := asOf(steps, counted)
		if before.CompanyID == "" && len(before.Memberships) > 0 || before.BelongedTo(claim, when, second(record-margin)) == directory.BelongsElsewhere {
			return
		}
		later := asOf(steps, rapid.IntRange(counted, 100).Draw(t, "later"))
		if later.BelongedTo(claim, when, second(record-margin)) == directory.BelongsElsewhere {
			t.Errorf("%s at %s, recorded at %d, counted at %d, not with %+v", claim, when, record, counted, later.Memberships)
		}
	})
}
