package model

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tenantflow/internal/generate"
)

// A Difference is one point in which a result is not what it should be.
type Difference struct {
	Where string `json:"where"` // "rows", "hourly acme-0001|pro|reporting|2026-11-23T16", ...
	Got   string `json:"got"`
	Want  string `json:"want"`
}

func (d Difference) String() string {
	return fmt.Sprintf("%s: got %s, want %s", d.Where, d.Got, d.Want)
}

// Compare returns where the two contents differ, totals before groups, groups in the order of their keys. No result
// means that they are equal.
func Compare(got, want Tables) []Difference {
	var found []Difference
	compare := func(where string, got, want any) {
		if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
			found = append(found, Difference{where, g, w})
		}
	}
	compare("rows", got.Rows, want.Rows)
	compare("identities", hex(got.Identities), hex(want.Identities))
	compare("contents", hex(got.Contents), hex(want.Contents))
	compare("total", got.Total, want.Total)
	found = append(found, compareSums("hourly", got.Hourly, want.Hourly)...)
	found = append(found, compareSums("daily", got.Daily, want.Daily)...)
	return append(found, compareSums("monthly", got.Monthly, want.Monthly)...)
}

// CompareDeadLetters returns the reasons whose counts differ.
func CompareDeadLetters[R ~string](got, want map[R]int64) []Difference {
	var found []Difference
	reasons := slices.Collect(maps.Keys(want))
	for reason := range got {
		if _, ok := want[reason]; !ok {
			reasons = append(reasons, reason)
		}
	}
	slices.Sort(reasons)
	for _, reason := range reasons {
		if got[reason] != want[reason] {
			found = append(found, Difference{
				Where: "dead letters " + string(reason),
				Got:   fmt.Sprint(got[reason]),
				Want:  fmt.Sprint(want[reason]),
			})
		}
	}
	return found
}

// Describe puts the first few differences on lines of their own and counts the rest. It is empty for none.
func Describe(differences []Difference) string {
	const most = 20
	var b strings.Builder
	for i, d := range differences {
		if i == most {
			fmt.Fprintf(&b, "and %d more differences\n", len(differences)-most)
			break
		}
		fmt.Fprintln(&b, d)
	}
	return b.String()
}

func compareSums(view string, got, want map[string]Sums) []Difference {
	var found []Difference
	for key, w := range want {
		g, ok := got[key]
		switch {
		case !ok:
			found = append(found, Difference{view + " " + key, "nothing", w.String()})
		case g != w:
			found = append(found, Difference{view + " " + key, g.String(), w.String()})
		}
	}
	for key, g := range got {
		if _, ok := want[key]; !ok {
			found = append(found, Difference{view + " " + key, g.String(), "nothing"})
		}
	}
	slices.SortFunc(found, func(a, b Difference) int { return cmp.Compare(a.Where, b.Where) })
	return found
}

func hex(f Fingerprint) string { return string(generate.AppendHex(nil, uint64(f), 16)) }
