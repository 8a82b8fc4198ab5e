package accuracy

import "slices"

// fitMinimum is how many users a calibration is fitted on at least.
const fitMinimum = 30

// A Calibration turns scores into probabilities: a function that never falls as the score rises.
type Calibration struct{ blocks []block }

// A block is the scores from one on, up to the next block's, which all have one probability.
type block struct {
	from            int64
	happened, users float64
}

// Fit is the isotonic regression of what happened on the score, by pooling adjacent violators (Ayer et al., 1955; for scores: Zadrozny and Elkan,
// 2002). nil: there are fewer than 30 users, which say too little.
//
// A score below the lowest one has the lowest one's probability.
func Fit(cases []Case) *Calibration {
	if Count(cases).Users < fitMinimum {
		return nil
	}
	c := &Calibration{}
	rising := steps(cases)
	slices.Reverse(rising)
	for _, s := range rising {
		c.blocks = append(c.blocks, block{s.score, s.happened, s.happened + s.otherwise})
		for n := len(c.blocks); n > 1; n = len(c.blocks) {
			before, last := &c.blocks[n-2], c.blocks[n-1]
			if before.happened*last.users <= last.happened*before.users {
				break
			}
			before.happened += last.happened
			before.users += last.users
			c.blocks = c.blocks[:n-1]
		}
	}
	return c
}

// Of is the probability of a score.
func (c *Calibration) Of(score int64) float64 {
	i, found := slices.BinarySearchFunc(c.blocks, score, func(b block, score int64) int {
		switch {
		case b.from < score:
			return -1
		case b.from > score:
			return 1
		}
		return 0
	})
	if !found {
		i = max(i-1, 0)
	}
	return c.blocks[i].happened / c.blocks[i].users
}

// Brier is the mean square of what calibrated scores were wrong by (Brier, 1950), over months that follow each other: each month is judged with a
// calibration that was fitted on the months before it, and never on itself. Users of months for which there is no calibration yet are left out;
// users says how many were judged. nil: none.
func Brier(months [][]Case, judgedFrom int) (brier *float64, users int64) {
	var squares float64
	for i := max(judgedFrom, 0); i < len(months); i++ {
		c := Fit(slices.Concat(months[:i]...))
		if c == nil {
			continue
		}
		for _, one := range months[i] {
			off := c.Of(one.Score)
			if one.Happened {
				off = 1 - off
			}
			squares += off * off * float64(one.N)
			users += one.N
		}
	}
	if users == 0 {
		return nil, 0
	}
	return rounded(squares / float64(users)), users
}
