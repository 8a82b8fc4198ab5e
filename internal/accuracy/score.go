package accuracy

import (
	"cmp"
	"math"
	"slices"
)

// A Case is how many users had the same score, and did the same afterwards.
type Case struct {
	Score    int64 // in any unit; the higher, the likelier it was held to be
	Flagged  bool  // it was predicted
	Happened bool
	N        int64
}

// Counts are how many users there were, and how the prediction did for them.
type Counts struct {
	Users    int64
	Happened int64
	Flagged  int64
	Hits     int64 // flagged, and it happened
}

// Count adds cases up.
func Count(cases []Case) (c Counts) {
	for _, one := range cases {
		c.Users += one.N
		if one.Happened {
			c.Happened += one.N
		}
		if one.Flagged {
			c.Flagged += one.N
		}
		if one.Flagged && one.Happened {
			c.Hits += one.N
		}
	}
	return c
}

// BaseRate is the share of users for whom it happened; nil: there are none.
func (c Counts) BaseRate() *float64 { return share(c.Happened, c.Users) }

// Precision is the share of the flagged for whom it happened; nil: none was flagged.
func (c Counts) Precision() *float64 { return share(c.Hits, c.Flagged) }

// Recall is the share of those for whom it happened that was flagged; nil: it happened for none.
func (c Counts) Recall() *float64 { return share(c.Hits, c.Happened) }

func share(part, whole int64) *float64 {
	if whole <= 0 {
		return nil
	}
	return rounded(float64(part) / float64(whole))
}

// rounded is a measure with four decimals.
func rounded(x float64) *float64 {
	x = math.Round(x*1e4) / 1e4
	return &x
}

// A step is the users of one score.
type step struct {
	score               int64
	happened, otherwise float64
}

// steps adds cases up by score, the highest first.
func steps(cases []Case) []step {
	sorted := slices.Clone(cases)
	slices.SortFunc(sorted, func(a, b Case) int { return cmp.Compare(b.Score, a.Score) })
	var all []step
	for _, c := range sorted {
		if c.N <= 0 {
			continue
		}
		if len(all) == 0 || all[len(all)-1].score != c.Score {
			all = append(all, step{score: c.Score})
		}
		if last := &all[len(all)-1]; c.Happened {
			last.happened += float64(c.N)
		} else {
			last.otherwise += float64(c.N)
		}
	}
	return all
}

// A Rank is how well scores put users for whom it happened before the others.
type Rank struct {
	AUC       float64
	Low, High float64 // the ends of the 95 % interval
}

// z95 is the quantile of the normal distribution for an interval of 95 %.
const z95 = 1.959964

// RankOf is the area under the ROC curve: how often a user for whom it happened has the higher score than one for whom it did not, of all pairs of
// the two, where equal scores count half (Mann and Whitney's U over the number of pairs). nil: it happened for all, or for none.
//
// The interval is Hanley and McNeil's (Radiology 143, 1982), cut at 0 and 1. Their error is 0 for a perfect order, however few users there are, so
// it is taken at an area of half a pair from there.
func RankOf(cases []Case) *Rank {
	var pairs, happened, otherwise float64
	for _, s := range steps(cases) {
		pairs += s.otherwise * (happened + s.happened/2) // those above, and half of the equal ones
		happened += s.happened
		otherwise += s.otherwise
	}
	if happened == 0 || otherwise == 0 {
		return nil
	}
	auc := pairs / (happened * otherwise)
	half := 1 / (2 * happened * otherwise)
	a := math.Min(math.Max(auc, half), 1-half)
	q1, q2 := a/(2-a), 2*a*a/(1+a)
	variance := (a*(1-a) + (happened-1)*(q1-a*a) + (otherwise-1)*(q2-a*a)) / (happened * otherwise)
	width := z95 * math.Sqrt(math.Max(variance, 0))
	return &Rank{*rounded(auc), *rounded(math.Max(auc-width, 0)), *rounded(math.Min(auc+width, 1))}
}

// Lift is how many times as often it happened among the tenth with the highest scores as among all, at least one user. Of users with equal scores
// at the border of the tenth, a share counts. nil: there are no users, or it happened for none.
func Lift(cases []Case) *float64 {
	all := Count(cases)
	if all.Happened == 0 {
		return nil
	}
	top := math.Ceil(float64(all.Users) / 10)
	left, hits := top, 0.0
	for _, s := range steps(cases) {
		users := s.happened + s.otherwise
		taken := math.Min(left, users)
		hits += s.happened * taken / users
		if left -= taken; left <= 0 {
			break
		}
	}
	return rounded(hits / top / (float64(all.Happened) / float64(all.Users)))
}
