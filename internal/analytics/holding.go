package analytics

import (
	"cmp"
	"time"

	"tenantflow/internal/tier"
)

// A Holding is what a company has from a time on, until the next one.
type Holding struct {
	From  time.Time
	Tier  string // empty: none, the company is closed
	Price Money  // of a month; 0: it pays nothing
}

// Holdings lists what a company has held since it was registered, by time. It begins with the free tier. Effects and prices are those of
// [Movements], and so are the times and the amounts.
func Holdings(registered time.Time, effects []Effect, prices map[string]Money) []Holding {
	levels := levelsOf(effects, prices)
	if len(levels) > 0 && levels[0].at.Before(registered) {
		registered = levels[0].at // an event that waited for its company
	}
	all := []Holding{{From: registered, Tier: tier.Free}}
	for _, l := range levels {
		last := all[len(all)-1]
		next := Holding{From: l.at, Tier: l.tier, Price: l.mrr}
		switch l.tier {
		case "": // a record of an older version; the price says whether it is paid for
			next.Tier = cmp.Or(last.Tier, tier.Free)
		case closed:
			next.Tier = ""
		}
		if next.From.Equal(last.From) {
			all = all[:len(all)-1]
		}
		all = append(all, next)
	}
	return all
}

// closed stands for the tier of a company that is closed. It is no name of a tier.
const closed = "-closed-"

// heldTier is the tier that a company has after an effect that moves its monthly recurring revenue.
func (e *Effect) heldTier() string {
	switch e.Event {
	case "subscription.cancelled", "subscription.expired":
		return tier.Free
	case "subscription.closed":
		return closed
	default:
		return e.Tier
	}
}

// HeldBefore returns what is held at the end of all that is before a time: the last of the holdings that begin before it. False: none does.
// So what takes effect as a month begins belongs to that month, as it does in [Movements].
func HeldBefore(holdings []Holding, at time.Time) (Holding, bool) {
	for i := len(holdings) - 1; i >= 0; i-- {
		if holdings[i].From.Before(at) {
			return holdings[i], true
		}
	}
	return Holding{}, false
}
