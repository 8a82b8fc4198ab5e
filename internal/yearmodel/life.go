package yearmodel

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"time"
)

// How long a paid period waits for its renewal, and a failed payment to be made good.
const (
	renewalGrace = 72 * time.Hour
	paymentGrace = 7 * 24 * time.Hour
)

// A life writes what happens to a company, one thing after the other, until the world ends. It notes what each costs when it happens: no
// answer is computed from the events.
type life struct {
	*Company
	rng  *rand.Rand
	end  time.Time // of the world
	top  string    // the highest tier that it wants
	want int       // users
	full bool      // all of them come at once, as soon as there is room
	calm bool      // nothing happens but renewals

	now        time.Time // of the last thing that has happened
	start, due time.Time // of the paid period
	months     int
	anchor     int
	billed     int64
	over       bool // nothing more happens
	events     int
	people     func() int // the index of the next user
}

// event has something happen.
func (l *life) event(topic, kind string, at time.Time, data map[string]any) {
	l.events++
	data["company_id"] = l.ID
	l.Steps = append(l.Steps, Step{Event: &Event{Topic: topic, Type: kind, Company: l.ID, ID: fmt.Sprintf("%s-%d", l.ID, l.events), At: at, Data: data}})
	if at.After(l.now) {
		l.now = at
	}
}

// pass has everything happen that is due by a time.
func (l *life) pass(by time.Time) {
	l.Steps = append(l.Steps, Step{Passed: by})
	if by.After(l.now) {
		l.now = by
	}
}

// between picks a time of whole seconds; false: there is no room for one, or the life is over before.
func (l *life) between(from, to time.Time) (time.Time, bool) {
	if !from.After(l.now) {
		from = l.now.Add(time.Minute)
	}
	from = from.Truncate(time.Second).Add(time.Second)
	room := int64(to.Sub(from) / time.Second)
	if room <= 0 {
		return time.Time{}, false
	}
	at := from.Add(time.Duration(l.rng.Int64N(room)) * time.Second)
	if !at.Before(l.end) {
		l.over = true
		return time.Time{}, false
	}
	return at, true
}

// moves notes which tier the company has from a time on, and so what it pays.
func (l *life) moves(at time.Time, tier string) {
	l.tier = tier
	l.held = append(l.held, tierFrom{at, tier})
	l.levels = append(l.levels, level{at, plans[tier].price})
}

// bill notes a charge for the present period.
func (l *life) bill(minor int64) {
	l.billed += minor
	l.charges = append(l.charges, charge{monthOf(l.start), l.tier, minor})
}

// begins begins a paid period of the present tier, and charges for it.
func (l *life) begins(start time.Time, months int) {
	l.start, l.months, l.due, l.billed = start, months, later(start, months, l.anchor), 0
	l.bill(plans[l.tier].price * int64(months))
}

func (l *life) payment() string { return fmt.Sprintf("%s-p%d", l.ID, l.events) }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// live writes the whole life.
func (l *life) live() {
	l.registered = l.registered.Truncate(time.Second)
	first := l.people()
	l.users = append(l.users, &user{id: fmt.Sprintf("%s-u1", l.ID), index: first, joined: l.registered})
	l.event(companyEvents, "company.registered.v1", l.registered, map[string]any{
		"name": "Company " + l.ID, "billing_email": "billing@" + l.ID + ".example",
		"initial_user": map[string]any{"user_id": l.users[0].id, "email": "u1@" + l.ID + ".example"},
	})
	l.tier, l.held = free, []tierFrom{{l.registered, free}}
	wait := 20 * 24 * time.Hour
	if l.full {
		wait = 2 * time.Hour
	}
	for !l.over {
		if l.tier != free {
			l.period()
			continue
		}
		if l.top == free {
			break
		}
		at, ok := l.between(l.now.Add(time.Hour), l.now.Add(time.Hour+wait))
		if !ok {
			break
		}
		to := pro
		if l.top == enterprise && (l.full || l.rng.IntN(2) == 0) {
			to = enterprise
		}
		l.upgrade(at, to)
		wait = 70 * 24 * time.Hour
	}
	l.pass(l.end)
}

// upgrade begins a paid period, or goes on with the present one at a higher price.
func (l *life) upgrade(at time.Time, to string) {
	from := l.tier
	l.event(subscriptionEvents, "subscription.upgrade_requested.v1", at, map[string]any{"new_tier": to,
		"payment": map[string]any{"payment_id": l.payment(), "method": "card"}})
	l.moves(at, to)
	if from == free {
		l.anchor = at.Day()
		l.begins(at, 1)
		return
	}
	more := (plans[to].price - plans[from].price) * int64(l.months)
	left, whole := int64(l.due.Sub(at)/time.Second), int64(l.due.Sub(l.start)/time.Second)
	share := new(big.Rat).Mul(big.NewRat(more, 1), big.NewRat(left, whole))
	l.bill(toInteger(share).Int64())
}

// period lives through a paid period and its end.
func (l *life) period() {
	l.hire()
	if l.over {
		return
	}
	last := l.due.Add(-2 * time.Hour)
	dice := l.rng.IntN(100)
	switch {
	case l.calm || dice < 55:
	case dice < 70 && l.tier == pro && l.top == enterprise:
		if at, ok := l.between(l.start.Add(time.Hour), last); ok {
			l.upgrade(at, enterprise)
		}
	case dice < 76 && l.tier == enterprise:
		if at, ok := l.between(l.start.Add(time.Hour), last); ok { // nothing is paid back
			l.event(subscriptionEvents, "subscription.downgrade_requested.v1", at, map[string]any{"new_tier": pro, "effective": "immediate"})
			l.moves(at, pro)
		}
	case dice < 79:
		if at, ok := l.between(l.start.Add(time.Hour), last); ok {
			kind, data := "subscription.cancel_requested.v1", map[string]any{"effective": "immediate"}
			if l.rng.IntN(2) == 0 {
				kind, data["new_tier"] = "subscription.downgrade_requested.v1", free
			}
			l.event(subscriptionEvents, kind, at, data)
			l.moves(at, free)
			return
		}
	case dice < 87 && l.months == 1:
		if !l.bounce() {
			return
		}
	case dice < 91 && len(l.users) > 3:
		l.leave()
	}
	if !l.over {
		l.ending()
	}
}

// bounce has the payment of the period fail, if there is time for that; false: the period is over by it.
func (l *life) bounce() bool {
	failed, ok := l.between(l.start.Add(24*time.Hour), l.start.Add(10*24*time.Hour))
	if !ok {
		return true
	}
	payment := l.payment()
	l.event(subscriptionEvents, "subscription.payment_failed.v1", failed, map[string]any{"payment_id": payment, "reason": "declined"})
	received := func(at time.Time) {
		l.event(subscriptionEvents, "subscription.payment_received.v1", at, map[string]any{"payment_id": payment, "amount_minor": l.billed, "currency": "USD", "paid_at": stamp(at), "method": "card"})
	}
	ends := failed.Add(paymentGrace)
	how := l.rng.IntN(4)
	if how == 0 {
		at, ok := l.between(failed.Add(time.Hour), ends.Add(-time.Hour))
		if ok {
			received(at)
		}
		return ok
	}
	if ends.After(l.end) {
		l.over = true
		return false
	}
	l.pass(ends)
	tier := l.tier
	l.moves(ends, free)
	switch how {
	case 1: // paid within the grace, and told of it afterwards: nothing has happened
		received(ends.Add(-time.Hour))
		l.moves(ends, tier)
		return true
	case 2: // the period goes on, by a renewal of the same one
		at, ok := l.between(ends.Add(time.Hour), l.due.Add(-3*time.Hour))
		if !ok {
			return false
		}
		l.event(subscriptionEvents, "subscription.renewed.v1", at, map[string]any{"period_start": stamp(l.start), "period_end": stamp(l.due)})
		l.moves(at, tier)
		return true
	}
	return false
}

// ending lives through the end of a paid period.
func (l *life) ending() {
	dice := l.rng.IntN(100)
	if l.calm {
		dice = 0
	}
	switch {
	case dice < 62:
		l.renew(1)
	case dice < 64:
		l.renew([]int{2, 3, 12}[l.rng.IntN(3)])
	case dice < 70: // renewed within the grace, from the end on
		at, ok := l.between(l.due.Add(time.Minute), l.due.Add(renewalGrace-time.Hour))
		if !ok {
			l.lapse()
			return
		}
		l.renewal(at, l.due, 1)
		l.begins(l.due, 1)
	case dice < 75 && l.tier == enterprise:
		l.fall(pro, l.rng.IntN(2) == 0)
	case dice < 80:
		l.fall(free, false)
	case dice < 85: // it changes its mind
		at, ok := l.before()
		if !ok {
			l.lapse()
			return
		}
		l.event(subscriptionEvents, "subscription.cancel_requested.v1", at, map[string]any{})
		if at, ok = l.between(at.Add(time.Minute), l.due.Add(-time.Hour)); ok {
			l.event(subscriptionEvents, "subscription.change_withdrawn.v1", at, map[string]any{})
			l.renew(1)
		}
	case dice < 88: // told of the expiry within the grace
		at, ok := l.between(l.due.Add(time.Minute), l.due.Add(renewalGrace-time.Hour))
		if !ok {
			l.lapse()
			return
		}
		l.event(subscriptionEvents, "subscription.expired.v1", at, map[string]any{"expired_at": stamp(l.due)})
		l.moves(at, free)
	default:
		l.lapse()
	}
}

// before picks a time in the last days of the period.
func (l *life) before() (time.Time, bool) {
	return l.between(l.due.Add(-5*24*time.Hour), l.due.Add(-90*time.Minute))
}

// renewal is the event of a period that follows.
func (l *life) renewal(at, start time.Time, months int) {
	l.event(subscriptionEvents, "subscription.renewed.v1", at, map[string]any{"period_start": stamp(start), "period_end": stamp(later(start, months, l.anchor)),
		"payment": map[string]any{"payment_id": l.payment()}})
}

// renew records the next period before this one ends.
func (l *life) renew(months int) {
	at, ok := l.before()
	if !ok {
		l.lapse()
		return
	}
	l.renewal(at, l.due, months)
	l.turn(func() { l.begins(l.due, months) })
}

// turn has something happen at the end of the period, if that comes before the world's.
func (l *life) turn(then func()) {
	if l.due.After(l.end) {
		l.over = true
		return
	}
	if l.due.After(l.now) {
		l.now = l.due
	}
	then()
}

// fall goes down to another tier at the period's end, or cancels; a paid one may be renewed for a longer period.
func (l *life) fall(to string, renewed bool) {
	at, ok := l.before()
	if !ok {
		l.lapse()
		return
	}
	kind, data := "subscription.downgrade_requested.v1", map[string]any{"new_tier": to}
	if to == free && l.rng.IntN(2) == 0 {
		kind, data = "subscription.cancel_requested.v1", map[string]any{"effective": "period_end"}
	}
	l.event(subscriptionEvents, kind, at, data)
	months := 1
	if renewed {
		if at, ok = l.between(at.Add(time.Minute), l.due.Add(-time.Hour)); ok {
			months = 1 + l.rng.IntN(3)
			l.renewal(at, l.due, months)
		}
	}
	l.turn(func() {
		l.moves(l.due, to)
		if to != free {
			l.begins(l.due, months)
		}
	})
}

// lapse is not renewed; some come back.
func (l *life) lapse() {
	ends := l.due.Add(renewalGrace)
	if l.over || ends.After(l.end) {
		l.over = true
		return
	}
	l.pass(ends)
	tier := l.tier
	l.moves(ends, free)
	if l.rng.IntN(2) == 0 {
		return
	}
	if at, ok := l.between(ends.Add(time.Hour), ends.Add(20*24*time.Hour)); ok { // the period that begins at the end of the expired one
		l.renewal(at, l.due, 1)
		l.moves(at, tier)
		l.begins(l.due, 1)
	}
}

// hire adds users while there is room.
func (l *life) hire() {
	wanted := l.want - len(l.users)
	places := plans[l.tier].users
	here := 0
	for _, u := range l.users {
		if u.left.IsZero() {
			here++
		}
	}
	if places > 0 {
		wanted = min(wanted, places-here)
	}
	if wanted <= 0 || l.tier != l.top {
		return
	}
	if !l.full {
		wanted = (wanted*2 + 2) / 3
	}
	at := l.now
	for range wanted {
		if at = at.Add(time.Duration(30+l.rng.IntN(90)) * time.Second); !at.Before(l.end) {
			return
		}
		u := &user{id: fmt.Sprintf("%s-u%d", l.ID, len(l.users)+1), index: l.people(), joined: at}
		l.users = append(l.users, u)
		l.event(companyEvents, "company.user_added.v1", at, map[string]any{"user_id": u.id, "email": fmt.Sprintf("u%d@%s.example", len(l.users), l.ID)})
	}
}

// leave has a user leave.
func (l *life) leave() {
	at, ok := l.between(l.start.Add(time.Hour), l.due.Add(-6*24*time.Hour))
	if !ok {
		return
	}
	u := l.users[1+l.rng.IntN(len(l.users)-1)]
	if !u.left.IsZero() {
		return
	}
	u.left = at
	l.event(companyEvents, "company.user_removed.v1", at, map[string]any{"user_id": u.id})
}

// close ends the company, and purges it or not.
func (l *life) close(at time.Time, purge bool) {
	l.event(companyEvents, "company.closed.v1", at, map[string]any{"purge": purge, "reason": "the year's end"})
	l.closed, l.purged = true, purge
	l.levels = append(l.levels, level{at, 0})
}

// override gives the company a limit of its own; below 0: none.
func (l *life) override(at time.Time, calls int64) {
	var value any = calls
	if calls < 0 {
		value = "unlimited"
	}
	l.event(companyEvents, "company.limits_overridden.v1", at, map[string]any{"limits": map[string]any{"daily_api_calls": value}, "reason": "agreed for the year"})
	l.limit = &calls
}
