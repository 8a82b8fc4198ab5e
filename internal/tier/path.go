package tier

import (
	"fmt"
	"slices"
	"time"
)

// The codes of a Refusal. They are those of the results that refuse an event.
const (
	UnknownTier          = "unknown_tier"
	InvalidUpgradePath   = "invalid_upgrade_path"
	InvalidDowngradePath = "invalid_downgrade_path"
)

// A Refusal says that a rule does not allow a change: a code for programs and a message for people.
type Refusal struct {
	Code, Message string
}

func (r *Refusal) Error() string { return r.Message }

// Current is the subscription before a change: what it was given when its period began, which is not always what the catalogue
// says now.
type Current struct {
	Tier string
	// PriceMinor is the price of a month in minor units of Currency.
	PriceMinor             int64
	PeriodStart, PeriodEnd time.Time
	// Months is how many months the period has; 0 is one.
	Months int
	// AnchorDay is the day of the month that periods begin on, 1 to 31; 0 is PeriodStart's.
	AnchorDay int
	// Charged are the tiers that this very period was charged for already. None is charged for twice.
	Charged []string
}

// whole is what the whole period costs at the price of a month.
func (cur Current) whole(price int64) int64 { return price * int64(max(1, cur.Months)) }

// A Change moves a subscription from one tier to another.
type Change struct {
	From string
	To   Tier
	// At is when the change takes effect, in UTC and whole microseconds, which is what the stores keep.
	At time.Time
	// Adjustment is the money. Its period is the one that holds after the change.
	Adjustment Adjustment
	// AnchorDay is the day of the month that periods begin on after the change, 1 to 31.
	AnchorDay int
}

// Upgrade says what an upgrade at the given time means. Upgrades lead to a later tier of the catalogue, and from a tier that has left
// it to any tier with a price. From a price of 0 a new period of a month begins and costs its full price; otherwise the period stays
// and the difference for what is left of it is charged. The error is a *Refusal.
func (c *Catalogue) Upgrade(cur Current, newTier string, at time.Time) (Change, error) {
	to, from, place, err := c.between(cur.Tier, newTier)
	if err != nil {
		return Change{}, err
	}
	if place <= from {
		return Change{}, &Refusal{Code: InvalidUpgradePath, Message: fmt.Sprintf("%s is not an upgrade from %s", newTier, cur.Tier)}
	}
	return change(cur, to, at), nil
}

// IsUpgrade reports whether there is an upgrade from one tier to another.
func (c *Catalogue) IsUpgrade(from, to string) bool {
	_, held, place, err := c.between(from, to)
	return err == nil && place > held
}

// Downgrade returns the tier that a downgrade leads to: an earlier one of the catalogue, or any from a tier that has left it. It says
// nothing about when. The error is a *Refusal.
func (c *Catalogue) Downgrade(cur Current, newTier string) (Tier, error) {
	to, from, place, err := c.between(cur.Tier, newTier)
	if err != nil {
		return Tier{}, err
	}
	if _, listed := c.Tier(cur.Tier); listed && place >= from {
		return Tier{}, &Refusal{Code: InvalidDowngradePath, Message: fmt.Sprintf("%s is not a downgrade from %s", newTier, cur.Tier)}
	}
	return to, nil
}

// DowngradeNow says what a downgrade that does not wait for the period's end means. Between tiers with a price the period stays.
// To a tier without a price a new period of a month begins. Nothing is paid back. The error is a *Refusal.
func (c *Catalogue) DowngradeNow(cur Current, newTier string, at time.Time) (Change, error) {
	to, err := c.Downgrade(cur, newTier)
	if err != nil {
		return Change{}, err
	}
	return change(cur, to, at), nil
}

// change is a move to another tier at once.
func change(cur Current, to Tier, at time.Time) Change {
	at = instant(at)
	switch {
	case to.PriceMinor == 0:
		return Change{From: cur.Tier, To: to, At: at, Adjustment: NoCharge(at, NextPeriodEnd(at, at.Day())), AnchorDay: at.Day()}
	case cur.PriceMinor > 0:
		return Change{From: cur.Tier, To: to, At: at, Adjustment: prorate(cur, to, at), AnchorDay: cur.Anchor()}
	}
	end := NextPeriodEnd(at, at.Day())
	price := to.PriceMinor
	if cur.PeriodStart.Equal(at) && cur.PeriodEnd.Equal(end) && slices.Contains(cur.Charged, to.Name) {
		price = 0 // it was left in the moment in which it began
	}
	return Change{From: cur.Tier, To: to, At: at, Adjustment: Charge(price, at, end), AnchorDay: at.Day()}
}

// between finds the new tier and the places of both in the catalogue's order.
func (c *Catalogue) between(current, newTier string) (to Tier, from, place int, err error) {
	to, known := c.Tier(newTier)
	if !known {
		return Tier{}, 0, 0, &Refusal{Code: UnknownTier, Message: fmt.Sprintf("there is no tier %q", newTier)}
	}
	held, _ := c.Tier(current)
	return to, c.place(held.Name), c.place(newTier), nil
}

func (c *Catalogue) place(name string) int {
	return slices.IndexFunc(c.tiers, func(t Tier) bool { return t.Name == name })
}

// Anchor is the day of the month that periods begin on, 1 to 31.
func (cur Current) Anchor() int {
	if cur.AnchorDay != 0 {
		return cur.AnchorDay
	}
	return cur.PeriodStart.UTC().Day()
}
