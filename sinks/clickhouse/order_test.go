package clickhouse

import (
	"bytes"
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestRowsAreSentInTheOrderOfTheTablesKey(t *testing.T) {
	t.Parallel()
	var o order // one for all, as it is used
	rapid.Check(t, func(t *rapid.T) {
		b := NewBlock()
		var rows []int32
		for i := range rapid.IntRange(0, 60).Draw(t, "rows") {
			r := plain(i)
			// Few values, some the beginning of others, so that every part of the key decides now and then.
			r.company = rapid.SampledFrom([]string{"a", "ab", "b", "", "größe"}).Draw(t, "company")
			r.user = rapid.SampledFrom([]string{"u", "uu", "v", "b"}).Draw(t, "user")
			r.id = rapid.SampledFrom([]string{"1", "10", "2", "ß"}).Draw(t, "id")
			r.at = rapid.Int64Range(-2, 2).Draw(t, "at")
			u := r.usage()
			b.Append(u, u.IdentityHash(), r.offset)
			if rapid.IntRange(0, 3).Draw(t, "sent") > 0 {
				rows = append(rows, int32(i))
			}
		}
		less := func(i, j int32) int {
			return cmp.Or(bytes.Compare(b.company.at(int(i)), b.company.at(int(j))), bytes.Compare(b.user.at(int(i)), b.user.at(int(j))),
				cmp.Compare(b.timestamp[i], b.timestamp[j]), bytes.Compare(b.eventID.at(int(i)), b.eventID.at(int(j))))
		}
		before := slices.Clone(rows)
		got := o.of(b, rows)
		if !slices.Equal(rows, before) {
			t.Fatal("the rows it was given have changed")
		}
		if !slices.IsSortedFunc(got, less) {
			t.Fatalf("%v is not sorted", got)
		}
		again := slices.Clone(got)
		slices.Sort(again)
		if !slices.Equal(again, before) {
			t.Fatalf("%v became %v", before, got)
		}
	})
}
