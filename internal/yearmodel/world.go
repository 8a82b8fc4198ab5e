package yearmodel

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// A Config describes a world.
type Config struct {
	Seed      uint64
	Companies int // at least 16
	Users     int // of all companies; at least 4 for each
	Rows      int // of usage, voids included; at least 10,000
	Now       time.Time
}

// A World is companies and what they have used in the year before its end, and the month before that.
type World struct {
	Config
	Companies []*Company

	first  day // of usage
	days   int
	calls  [][]int32 // by user and day from the first
	guests []guest
}

// A guest is a user whose calls were recorded under another company.
type guest struct {
	company *Company
	user    *user
}

// What the first companies are for. Those behind them live as chance has it, and the last tenth are calm: they only renew.
const (
	kindEmpty    = "empty"     // there was nothing but the registration
	kindOneMonth = "one month" // all its usage is in the last whole month
	kindClosed   = "closed"
	kindPurged   = "purged"
	kindHeavy    = "heavy"     // on the free tier, just above 80 % of its limit
	kindEdge     = "edge"      // at exactly 80 %
	kindNoLimit  = "no limit"  // an override takes the limit away
	kindHeavyPro = "heavy pro" // the same as heavy on pro, where there are rows enough
	kindSilent   = "silent"    // has months without use
	kindAny      = "any"
	kindCalm     = "calm"
)

var firstKinds = []string{kindEmpty, kindOneMonth, kindClosed, kindPurged, kindHeavy, kindEdge, kindNoLimit, kindHeavyPro, kindSilent}

// usageMonths is how many months have usage, the present one included.
const usageMonths = 13

// New makes the world of a config.
func New(c Config) (*World, error) {
	if c.Companies < 16 || c.Users < 4*c.Companies || c.Rows < 10_000 {
		return nil, fmt.Errorf("%d companies, %d users and %d rows are too few: at least 16, 4 for each, and 10,000", c.Companies, c.Users, c.Rows)
	}
	c.Now = c.Now.UTC().Truncate(time.Second)
	present := monthOf(c.Now)
	w := &World{Config: c, first: dayOf((present - usageMonths + 1).start())}
	w.days = int(dayOf(c.Now)-w.first) + 1
	users := 0
	person := func() int { users++; return users - 1 }
	calm := max(1, c.Companies/10)
	for n := range c.Companies {
		company := &Company{ID: fmt.Sprintf("year-%d-%d", c.Seed, n), Kind: kindAny, index: n, factor: 1, silent: map[month]bool{}}
		switch {
		case n < len(firstKinds):
			company.Kind = firstKinds[n]
		case n >= c.Companies-calm:
			company.Kind = kindCalm
		}
		w.Companies = append(w.Companies, company)
		left := c.Companies - n // the rest of the users is for those that are calm
		w.live(company, max(1, (c.Users-users)/left), person)
	}
	if users != c.Users {
		return nil, fmt.Errorf("the companies have %d users, want %d", users, c.Users)
	}
	if err := w.use(); err != nil {
		return nil, err
	}
	w.settleLimits()
	return w, nil
}

// live gives a company its life. share is how many users it would have if all that are left were spread evenly over the companies left.
func (w *World) live(c *Company, share int, person func() int) {
	rng := rand.New(rand.NewPCG(w.Seed, uint64(c.index)))
	present := monthOf(w.Now)
	l := &life{Company: c, rng: rng, end: w.Now, people: person, want: 1, top: pro}
	day := 24 * time.Hour
	l.registered = (present - 12).start().Add(time.Duration(rng.Int64N(int64(75 * day))))
	c.factor = 0.3 + 1.7*rng.Float64()*rng.Float64()
	switch c.Kind {
	case kindEmpty:
		l.top, c.unused = free, true
	case kindOneMonth:
		l.registered = (present - 1).start().Add(2 * day)
		c.only = present - 1
		l.want, l.full = 3, true
	case kindHeavy, kindEdge, kindNoLimit:
		l.top = free
	case kindHeavyPro:
		l.want, l.full, l.calm = 3, true, true
	case kindCalm:
		l.top, l.want, l.full, l.calm = enterprise, share, true, true
		l.registered = (present - 12).start().Add(time.Duration(rng.Int64N(int64(8 * day))))
		if rng.IntN(3) == 0 && share <= plans[pro].users {
			l.top = pro
		}
	default:
		switch dice := rng.IntN(100); {
		case dice < 14 && c.Kind == kindAny:
			l.top = free
		case dice < 55:
			l.want = 2 + rng.IntN(min(plans[pro].users-1, share))
		default:
			l.top, l.want = enterprise, 2+share/2+rng.IntN(share)
		}
		if rng.IntN(10) == 0 { // it came late
			l.registered = (present - 3).start().Add(time.Duration(rng.Int64N(int64(40 * day))))
		}
	}
	closes := c.Kind == kindClosed || c.Kind == kindPurged || c.Kind == kindAny && rng.IntN(40) == 0
	if closes {
		l.end = w.Now.Add(-time.Duration(1+rng.IntN(60)) * day)
		if !l.end.After(l.registered.Add(20 * day)) {
			l.end = w.Now.Add(-time.Hour)
		}
	}
	l.live()
	if closes {
		l.close(l.end, c.Kind == kindPurged)
	}
	if c.Kind == kindSilent || c.Kind == kindAny && rng.IntN(10) == 0 {
		for range 3 {
			c.silent[present-month(rng.IntN(10))] = true
		}
	}
}

// settleLimits gives some companies a limit of their own, near to what their users use, so that some of them are above 80 % of it.
func (w *World) settleLimits() {
	for _, c := range w.Companies {
		if c.closed || c.unused || len(c.users) == 0 {
			continue
		}
		l := &life{Company: c, now: w.Now, events: len(c.Steps)}
		at := w.Now.Add(-time.Minute)
		switch {
		case c.Kind == kindNoLimit:
			l.override(at, -1)
		case (c.Kind == kindAny || c.Kind == kindSilent) && c.index%3 == 0:
			sum, days := 0, 0
			for _, u := range c.users {
				for n := max(0, w.days-31); n < w.days-1; n++ {
					if calls := w.calls[u.index][n]; calls > 0 {
						sum, days = sum+int(calls), days+1
					}
				}
			}
			l.override(at, int64(sum/max(1, days)+1))
		}
	}
}
