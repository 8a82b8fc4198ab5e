package tier

import "time"

// The states of a subscription.
const (
	Active    = "active"
	PastDue   = "past_due"
	Cancelled = "cancelled"
	Expired   = "expired"
)

// State is a subscription with what will become of it by itself.
type State struct {
	Current
	Status string
	// PendingTier is the tier that follows when the period ends; empty: none.
	PendingTier string
	// CancelAtPeriodEnd says that the pending tier is the end of the subscription and not another choice.
	CancelAtPeriodEnd bool
	// GraceUntil is how long a payment may be overdue. It counts only when the status is past_due.
	GraceUntil time.Time
}

// DueAt is when the subscription changes by itself; false: it does not. A period without a price does not end anything, and
// neither does one that was cancelled or has expired.
func (s State) DueAt() (time.Time, bool) {
	switch {
	case s.Status == Cancelled || s.Status == Expired:
		return time.Time{}, false
	case s.PendingTier != "" && s.Status == PastDue && !s.GraceUntil.IsZero() && s.GraceUntil.Before(s.PeriodEnd):
		return s.GraceUntil, true
	case s.PendingTier != "":
		return s.PeriodEnd, true
	case s.Status == PastDue:
		return s.GraceUntil, true
	default:
		return s.PeriodEnd, s.PriceMinor > 0
	}
}

// AtPeriodEnd says what a downgrade to a tier means that waits for the period's end: a period of a month begins there, at the new
// tier's price. It does not judge whether the downgrade is allowed; Downgrade does. A tier that is not in the catalogue is taken for
// the free one.
func (c *Catalogue) AtPeriodEnd(cur Current, newTier string) Change {
	to, _ := c.Tier(newTier)
	at := instant(cur.PeriodEnd)
	if to.PriceMinor == 0 {
		return Change{From: cur.Tier, To: to, At: at, Adjustment: noMoney(at), AnchorDay: at.Day()}
	}
	adjustment := fullPrice(to.PriceMinor, at)
	adjustment.PeriodEnd = NextPeriodEnd(at, cur.Anchor())
	return Change{From: cur.Tier, To: to, At: at, Adjustment: adjustment, AnchorDay: cur.Anchor()}
}

// Expire says what the end of a subscription that nobody has paid for means: a free period from the given time, and no money.
func (c *Catalogue) Expire(cur Current, at time.Time) Change {
	free, _ := c.Tier(Free)
	at = instant(at)
	return Change{From: cur.Tier, To: free, At: at, Adjustment: noMoney(at), AnchorDay: at.Day()}
}

// Settle applies what is due at the given time or before, in its order, and returns what the subscription is then. An event at
// that time meets it so.
func (c *Catalogue) Settle(s State, at time.Time) State {
	for {
		due, ends := s.DueAt()
		if !ends || due.After(at) {
			return s
		}
		switch {
		case s.PendingTier == "" || due.Before(s.PeriodEnd):
			s = after(c.Expire(s.Current, due), Expired)
		case s.CancelAtPeriodEnd:
			s = after(c.AtPeriodEnd(s.Current, Free), Cancelled)
		default:
			next := c.AtPeriodEnd(s.Current, s.PendingTier)
			if next.To.PriceMinor == 0 {
				s = after(next, Active)
				continue
			}
			grace, status := s.GraceUntil, s.Status
			s = after(next, status)
			s.GraceUntil = grace
		}
	}
}

// after is a subscription that a change has left in a status, with nothing pending.
func after(c Change, status string) State {
	return State{Status: status, Current: Current{Tier: c.To.Name, PriceMinor: c.To.PriceMinor,
		PeriodStart: c.Adjustment.PeriodStart, PeriodEnd: c.Adjustment.PeriodEnd, AnchorDay: c.AnchorDay}}
}
