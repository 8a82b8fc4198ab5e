package analytics

import (
	"slices"
	"time"
)

// An Effect is a row of the history of a subscription, as far as it moves the monthly recurring revenue.
type Effect struct {
	At    time.Time
	Event string // as in subscription_events
	Tier  string // that the company has from then on; of a cancellation, an expiry and a closing: the one that ended
	// PriceMinor is the price of a month of that tier. Nil: the row is of before it was recorded, and the catalogue's is taken.
	PriceMinor *Money
	Reinstated bool // the event has brought back what an expiry had ended
}

// A Movement is how the monthly recurring revenue of a company moved in a month:
// Start + New + Expansion + Reactivated - Contraction - Churned = End.
type Movement struct {
	Month       Month `json:"month"`
	Start       Money `json:"start"`
	New         Money `json:"new"`         // the first paid tier ever
	Expansion   Money `json:"expansion"`   // to a higher price
	Reactivated Money `json:"reactivated"` // a paid tier again, after none
	Contraction Money `json:"contraction"` // to a lower price that is not 0
	Churned     Money `json:"churned"`     // to no price: cancelled, expired, closed, or down to a free tier
	End         Money `json:"end"`
}

// A level is the monthly recurring revenue from a time on, and the tier that it is for.
type level struct {
	at   time.Time
	mrr  Money
	tier string // of an effect; empty: the record does not say
}

// Movements returns how the monthly recurring revenue moved in each of the months from first to last. The effects are in the order in
// which they were recorded; prices are the catalogue's, by tier.
//
// Monthly recurring revenue is the monthly price of the tier that the company holds. It is held until the expiry: a payment that failed and a
// period that waits for its renewal change nothing while their grace period lasts. No change is offset against another one: a company that
// expires and comes back in one month has churned and was reactivated.
func Movements(effects []Effect, prices map[string]Money, first, last Month) []Movement {
	levels := levelsOf(effects, prices)
	all := make([]Movement, 0, max(0, last-first+1))
	mrr, paidBefore := Money(0), false
	for month := first; month <= last; month++ {
		m := Movement{Month: month}
		for len(levels) > 0 && MonthOf(levels[0].at) < month { // only before the first of the months
			mrr, levels = levels[0].mrr, levels[1:]
			paidBefore = paidBefore || mrr > 0
		}
		m.Start = mrr
		for len(levels) > 0 && MonthOf(levels[0].at) == month {
			m.add(mrr, levels[0].mrr, paidBefore)
			mrr, levels = levels[0].mrr, levels[1:]
			paidBefore = paidBefore || mrr > 0
		}
		m.End = mrr
		all = append(all, m)
	}
	return all
}

// add takes one change in.
func (m *Movement) add(from, to Money, paidBefore bool) {
	switch {
	case from == 0 && to > 0 && !paidBefore:
		m.New += to
	case from == 0:
		m.Reactivated += to
	case to == 0:
		m.Churned += from
	case to > from:
		m.Expansion += to - from
	default:
		m.Contraction += from - to
	}
}

// levelsOf lists the levels by time, one a moment: a downgrade and a renewal that meet at the end of a period are one change.
func levelsOf(effects []Effect, prices map[string]Money) []level {
	var levels []level
	for i := range effects {
		if mrr, moves := effects[i].mrr(prices); moves {
			levels = append(levels, level{effects[i].At, mrr, effects[i].heldTier()})
		}
	}
	// The closing of a company may be recorded before earlier events, if those are in another partition.
	slices.SortStableFunc(levels, func(a, b level) int { return a.at.Compare(b.at) })
	last := levels[:0]
	for _, l := range levels {
		if n := len(last); n > 0 && last[n-1].at.Equal(l.at) {
			last[n-1] = l
			continue
		}
		last = append(last, l)
	}
	return last
}

// mrr is what the company pays a month after the effect; false: the effect says nothing about it. The registration doesn't: a company begins
// with the free tier, and an event that waited for it may have an earlier time.
func (e *Effect) mrr(prices map[string]Money) (Money, bool) {
	switch e.Event {
	case "subscription.upgraded", "subscription.downgraded", "subscription.renewed":
	case "subscription.payment_recorded":
		if !e.Reinstated {
			return 0, false
		}
	case "subscription.cancelled", "subscription.expired", "subscription.closed":
		return 0, true
	default:
		return 0, false
	}
	if e.PriceMinor != nil {
		return *e.PriceMinor, true
	}
	return prices[e.Tier], true // 0 for a tier that has left the catalogue
}
