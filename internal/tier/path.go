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
	// PriceMinor is the price of the period in minor units of Currency.
	PriceMinor             int64
	PeriodStart, PeriodEnd time.Time
	// AnchorDay is the day of the month that periods begin on, 1 to 31; 0 is PeriodStart's.
	AnchorDay int
}

// A Change is what becomes of a subscription.
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

// Upgrade says what an upgrade at the given time means. Upgrades lead to a later tier of the catalogue; a current tier that is
// not in the catalogue is taken for the free one. From a price of 0 a new period of a month begins and costs its full price;
// otherwise the period stays and the difference for what is left of it is charged. The error is a *Refusal.
func (c *Catalogue) Upgrade(cur Current, newTier string, at time.Time) (Change, error) {
	to, from, place, err := c.between(cur.Tier, newTier)
	if err != nil {
		return Change{}, err
	}
	if place <= from {
		return Change{}, &Refusal{Code: InvalidUpgradePath, Message: fmt.Sprintf("%s is not an upgrade from %s", newTier, cur.Tier)}
	}
	at = instant(at)
	if cur.PriceMinor == 0 {
		return Change{From: cur.Tier, To: to, At: at, Adjustment: fullPrice(to.PriceMinor, at), AnchorDay: at.Day()}, nil
	}
	return Change{From: cur.Tier, To: to, At: at, Adjustment: prorate(cur, to.PriceMinor, at), AnchorDay: cur.Anchor()}, nil
}

// Downgrade returns the tier that a downgrade leads to: an earlier one of the catalogue. It says nothing about when. The error is
// a *Refusal.
func (c *Catalogue) Downgrade(cur Current, newTier string) (Tier, error) {
	to, from, place, err := c.between(cur.Tier, newTier)
	if err != nil {
		return Tier{}, err
	}
	if place >= from {
		return Tier{}, &Refusal{Code: InvalidDowngradePath, Message: fmt.Sprintf("%s is not a downgrade from %s", newTier, cur.Tier)}
	}
	return to, nil
}

// DowngradeNow says what a downgrade that does not wait for the period's end means. Between tiers with a price the period stays
// and what was paid too much for the rest of it comes back, as a negative amount. To a tier without a price nothing comes back,
// and a new period of a month begins. The error is a *Refusal.
func (c *Catalogue) DowngradeNow(cur Current, newTier string, at time.Time) (Change, error) {
	to, err := c.Downgrade(cur, newTier)
	if err != nil {
		return Change{}, err
	}
	at = instant(at)
	switch {
	case to.PriceMinor == 0:
		return Change{From: cur.Tier, To: to, At: at, Adjustment: noMoney(at), AnchorDay: at.Day()}, nil
	case cur.PriceMinor == 0: // only in a catalogue whose prices do not rise with its tiers
		return Change{From: cur.Tier, To: to, At: at, Adjustment: fullPrice(to.PriceMinor, at), AnchorDay: at.Day()}, nil
	}
	return Change{From: cur.Tier, To: to, At: at, Adjustment: prorate(cur, to.PriceMinor, at), AnchorDay: cur.Anchor()}, nil
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
