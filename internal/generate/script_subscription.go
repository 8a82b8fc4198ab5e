package generate

import (
	"fmt"
	"slices"
	"time"

	"tenantflow/events"
)

// subscriptionEvent makes one event of subscription.events.
func (sc *scene) subscriptionEvent() {
	r := &sc.g.random
	if !sc.state().Open {
		sc.subscribe(events.TypeUpgradeRequested, map[string]any{"new_tier": "enterprise"})
		return
	}
	if r.chance(sc.g.config.Rejected) && sc.refusedSubscriptionEvent() {
		return
	}
	s := sc.state()
	var can []func()
	may := func(allowed bool, do func()) {
		if allowed {
			can = append(can, do)
		}
	}
	paid, moving, renewable := s.Paid, !sc.quiet, s.End.Year() < 3000 && s.Pending != "free" && !s.Ahead
	// In a quiet phase nothing may bring a tier back or fall due before the stream ends: the schedule may look at any time.
	still := func(due time.Time) bool { return moving || due.After(sc.g.config.Now) }
	may(moving || s.Status == active && s.Ended == nil, sc.payIn)
	may(still(sc.start.Add(sc.half).Add(grace)), sc.failToPay)
	may(moving && s.Rank < 2, sc.goUp)
	may(moving && s.Rank < 2, sc.goUp)
	may(moving && paid, func() { sc.goDown("immediate") })
	may(paid && still(s.End), func() { sc.goDown(pick(r, "", "period_end")) })
	may(moving && paid, func() { sc.subscribe(events.TypeCancelRequested, map[string]any{"effective": "immediate"}) })
	may(paid && still(s.End), func() { sc.subscribe(events.TypeCancelRequested, map[string]any{}) })
	may(paid && renewable, sc.renew)
	may(paid && renewable, sc.renew)
	may(!s.PendingAt.IsZero(), func() { sc.subscribe(events.TypeChangeWithdrawn, map[string]any{}) })
	may(moving && s.Status == pastDue && !sc.swapped, sc.expire)
	may(moving && s.Ended != nil && !sc.swapped, sc.expire)
	may(moving && s.Ended != nil, sc.reinstate)
	may(moving && s.Ended != nil, sc.reinstate)
	if len(can) == 0 {
		can = append(can, func() { sc.subscribe(events.TypeChangeWithdrawn, map[string]any{}) })
	}
	pick(r, can...)()
}

// subscribe adds an event. Now and then it is dated before the one that came before it.
func (sc *scene) subscribe(kind string, data map[string]any) bool {
	r := &sc.g.random
	if n := len(sc.subs); n > 0 && r.chance(0.05) && !sc.subs[n-1].refused {
		if at := sc.subs[n-1].Time.Add(-time.Duration(1+r.below(1000)) * time.Millisecond); at.After(sc.start.Add(sc.half)) {
			return sc.addAt(events.TopicSubscription, kind, data, at)
		}
	}
	if len(sc.subs) == 0 && len(sc.company) == 1 && sc.phase == sc.begins && r.chance(0.2) { // dated before the registration
		return sc.addAt(events.TopicSubscription, kind, data, sc.company[0].Time.Add(-time.Minute))
	}
	return sc.add(events.TopicSubscription, kind, data)
}

func (sc *scene) goUp() {
	r := &sc.g.random
	s := sc.state()
	data := map[string]any{"new_tier": "enterprise"}
	if s.Rank == 0 && r.chance(0.6) {
		data["new_tier"] = "pro"
	}
	if r.chance(0.3) {
		data["expected_tier"] = s.Tier
	}
	sc.nameAPayment(data)
	sc.subscribe(events.TypeUpgradeRequested, data)
}

func (sc *scene) goDown(effective string) {
	s := sc.state()
	data := map[string]any{"new_tier": "free"}
	if s.Rank == 2 && sc.g.random.chance(0.6) {
		data["new_tier"] = "pro"
	}
	if effective != "" {
		data["effective"] = effective
	}
	sc.subscribe(events.TypeDowngradeRequested, data)
}

// renew is about the period after this one, a longer one, or this one once more.
func (sc *scene) renew() {
	r := &sc.g.random
	s := sc.state()
	start, end := s.End, s.End
	for range pick(r, 1, 1, 1, 2, 12) {
		end = MonthAfter(end, s.Day)
	}
	if r.chance(0.25) {
		start, end = s.Start, s.End
	}
	data := map[string]any{"period_start": stamp(start), "period_end": stamp(end)}
	sc.nameAPayment(data)
	sc.subscribe(events.TypeRenewed, data)
}

// reinstate is about the period that an expiry has ended, or the one that begins at its end.
func (sc *scene) reinstate() {
	s := sc.state().Ended
	start, end := s.Start, s.End
	if sc.g.random.chance(0.3) {
		start, end = s.End, MonthAfter(s.End, s.Day)
	}
	data := map[string]any{"period_start": stamp(start), "period_end": stamp(end)}
	sc.nameAPayment(data)
	sc.subscribe(events.TypeRenewed, data)
}

func (sc *scene) expire() {
	r := &sc.g.random
	data := map[string]any{}
	if r.chance(0.5) {
		data["expired_at"] = stamp(sc.start.Add(-time.Duration(r.below(1000)) * time.Minute))
	}
	sc.subscribe(events.TypeExpired, data)
}

// nameAPayment lets an event name what pays for it: a new payment, or one that has come already.
func (sc *scene) nameAPayment(data map[string]any) {
	r := &sc.g.random
	if !r.chance(0.6) {
		return
	}
	payment := map[string]any{}
	if id := sc.payment(func(p Payment) bool { return p.Status == received && p.TransactionID == "" }); id != "" && r.chance(0.5) {
		payment["payment_id"] = id
	} else {
		payment["payment_id"] = sc.newPayment()
	}
	if r.chance(0.5) {
		payment["method"] = "card"
	}
	data["payment"] = payment
}

func (sc *scene) newPayment() string {
	id := fmt.Sprintf("%s/p-%d", sc.id, len(sc.payments)+1)
	sc.payments = append(sc.payments, id)
	sc.g.newPayments = append(sc.g.newPayments, id)
	return id
}

// payment is one of the company's that is like that; empty: there is none.
func (sc *scene) payment(like func(Payment) bool) string {
	known := slices.DeleteFunc(slices.Clone(sc.payments), func(id string) bool {
		p, ok := sc.g.books.Payment(id)
		return !ok || !like(p)
	})
	if len(known) == 0 {
		return ""
	}
	return pick(&sc.g.random, known...)
}

// openPayment is one that has not come yet, or a new one.
func (sc *scene) openPayment() string {
	id := sc.payment(func(p Payment) bool { return p.Status != received })
	if id == "" || sc.g.random.chance(0.3) {
		return sc.newPayment()
	}
	return id
}

func (sc *scene) payIn() {
	sc.subscribe(events.TypePaymentReceived, sc.money(sc.openPayment(), int64(1+sc.g.random.below(100_000)), currency))
}

func (sc *scene) money(id string, amount int64, in string) map[string]any {
	data := map[string]any{"payment_id": id, "amount_minor": amount, "currency": in, "paid_at": stamp(sc.start)}
	if sc.g.random.chance(0.5) {
		data["method"], data["billing_period"] = "transfer", sc.start.Format("2006-01")
	}
	return data
}

func (sc *scene) failToPay() {
	sc.subscribe(events.TypePaymentFailed, map[string]any{"payment_id": sc.openPayment(), "reason": "card declined"})
}

// refusedSubscriptionEvent makes one that a rule refuses; false: this one can't be made now.
func (sc *scene) refusedSubscriptionEvent() bool {
	r := &sc.g.random
	s := sc.state()
	tiers := []string{"free", "pro", "enterprise"}
	switch r.below(9) {
	case 0:
		kind := pick(r, events.TypeUpgradeRequested, events.TypeDowngradeRequested)
		return sc.subscribe(kind, map[string]any{"new_tier": pick(r, "gold", "Pro", "größe", "pro ")})
	case 1:
		return sc.subscribe(events.TypeUpgradeRequested, map[string]any{"new_tier": tiers[r.below(s.Rank+1)]})
	case 2:
		if s.Rank == 0 && r.chance(0.5) {
			return sc.subscribe(events.TypeCancelRequested, map[string]any{})
		}
		return sc.subscribe(events.TypeDowngradeRequested, map[string]any{"new_tier": tiers[s.Rank+r.below(3-s.Rank)], "effective": pick(r, "immediate", "period_end")})
	case 3:
		return sc.subscribe(events.TypeUpgradeRequested, map[string]any{"new_tier": "enterprise", "expected_tier": tiers[(s.Rank+1+r.below(2))%3]})
	case 4:
		return sc.subscribe(events.TypePaymentReceived, sc.money(sc.id+"/never", -int64(r.below(2)*4900), currency))
	case 5:
		return sc.subscribe(events.TypePaymentReceived, sc.money(sc.id+"/never", 4900, "EUR"))
	case 6:
		start, end := s.End, s.End
		switch n := r.below(4); {
		case n == 0:
			end = MonthAfter(end, s.Day).Add(time.Second)
		case n == 1:
			start, end = s.Start, MonthAfter(s.End, s.Day)
		case n == 2:
			start, end = s.End.AddDate(0, 6, 0), s.End.AddDate(0, 7, 0)
		default:
			end = s.End.AddDate(3, 1, 0)
		}
		return sc.subscribe(events.TypeRenewed, map[string]any{"period_start": stamp(start), "period_end": stamp(end)})
	case 7:
		switch {
		case r.chance(0.5):
			return sc.subscribe(events.TypeExpired, map[string]any{"expired_at": stamp(sc.g.config.Now.Add(time.Duration(1+r.below(1000)) * time.Hour))})
		case s.PendingAt.IsZero():
			return sc.subscribe(events.TypeChangeWithdrawn, map[string]any{})
		}
		return sc.subscribe(events.TypeRenewed, map[string]any{"period_start": stamp(s.PendingAt), "period_end": stamp(MonthAfter(s.PendingAt, s.Day))})
	default:
		return sc.refusedPayment()
	}
}

// refusedPayment names a payment that is already taken.
func (sc *scene) refusedPayment() bool {
	r := &sc.g.random
	s := sc.state()
	id := sc.payment(func(p Payment) bool { return p.Status == received })
	if id == "" || r.chance(0.3) {
		others := slices.DeleteFunc(slices.Clone(sc.g.earlierPayments), func(id string) bool {
			p, known := sc.g.books.Payment(id)
			return !known || p.CompanyID == sc.id
		})
		if len(others) == 0 {
			return false
		}
		id = pick(r, others...)
	}
	switch {
	case s.Rank < 2 && sc.taken(id) && r.chance(0.5):
		return sc.subscribe(events.TypeUpgradeRequested, map[string]any{"new_tier": "enterprise", "payment": map[string]any{"payment_id": id}})
	case r.chance(0.5):
		return sc.subscribe(events.TypePaymentFailed, map[string]any{"payment_id": id})
	default:
		return sc.subscribe(events.TypePaymentReceived, sc.money(id, 4900, currency))
	}
}

// taken reports whether a payment pays for something else than what names it next.
func (sc *scene) taken(id string) bool {
	p, known := sc.g.books.Payment(id)
	if !known || p.CompanyID == sc.id && p.Status == "failed" {
		return false
	}
	return p.CompanyID != sc.id || p.TransactionID != "" || p.Belongs
}

// lapse is the story of a company whose period has ended before the stream does. The schedule may find what is due as soon as it is in the
// log, so nothing follows but what would find it too.
func (sc *scene) lapse(n int) {
	r := &sc.g.random
	began := sc.g.config.Now.AddDate(0, 0, -40)
	sc.addAt(events.TopicSubscription, events.TypeUpgradeRequested, map[string]any{"new_tier": pick(r, "pro", "enterprise"),
		"payment": map[string]any{"payment_id": sc.newPayment()}}, began)
	s := sc.state()
	period := map[string]any{"period_start": stamp(s.End), "period_end": stamp(MonthAfter(s.End, s.Day))}
	switch r.below(6) {
	case 0: // recorded ahead
		sc.addAt(events.TopicSubscription, events.TypeRenewed, period, began.AddDate(0, 0, 20))
	case 1: // in the grace period
		sc.addAt(events.TopicSubscription, events.TypeRenewed, period, s.End.Add(time.Hour))
	case 2: // with a downgrade at the same end
		sc.addAt(events.TopicSubscription, events.TypeDowngradeRequested, map[string]any{"new_tier": "pro"}, began.AddDate(0, 0, 19))
		sc.addAt(events.TopicSubscription, events.TypeRenewed, period, began.AddDate(0, 0, 20))
	case 3:
		sc.addAt(events.TopicSubscription, events.TypeCancelRequested, map[string]any{}, began.AddDate(0, 0, 19))
	}
	if n > 0 && r.chance(0.5) {
		sc.add(events.TopicSubscription, events.TypeUpgradeRequested, map[string]any{"new_tier": pick(r, "pro", "enterprise"), "expected_tier": pick(r, "free", "pro")})
	}
}

// runOut is the story of a company for which something falls due at Config.Soon after the stream's end, and of which nothing is heard
// any more. A limit of its own may end then as well.
func (sc *scene) runOut() {
	r := &sc.g.random
	due := sc.g.config.Now.Add(sc.g.config.Soon)
	say := func(kind string, at time.Time, data map[string]any) {
		sc.addAt(events.TopicSubscription, kind, data, at)
	}
	if r.chance(0.5) {
		sc.addAt(events.TopicCompany, events.TypeLimitsOverridden, map[string]any{"limits": map[string]any{"daily_api_calls": 5000, "max_users": 3}, "reason": "a trial",
			"expires_at": stamp(due)}, sc.start)
	}
	start, found := monthBefore(due)
	expires, lapsed := monthBefore(due.Add(-patience))
	if lapsed && r.chance(0.2) { // the wait for a renewal ends then
		say(events.TypeUpgradeRequested, expires, map[string]any{"new_tier": pick(r, "pro", "enterprise")})
		return
	}
	if !found || r.chance(0.2) { // a grace period ends then
		say(events.TypeUpgradeRequested, due.AddDate(0, 0, -9), map[string]any{"new_tier": pick(r, "pro", "enterprise")})
		say(events.TypePaymentFailed, due.Add(-grace), map[string]any{"payment_id": sc.newPayment(), "reason": "card expired"})
		return
	}
	say(events.TypeUpgradeRequested, start, map[string]any{"new_tier": "enterprise", "payment": map[string]any{"payment_id": sc.newPayment()}})
	start = start.Add(time.Hour)
	switch r.below(5) {
	case 0:
		say(events.TypeDowngradeRequested, start, map[string]any{"new_tier": "pro"})
	case 3, 4:
		say(events.TypeRenewed, start, map[string]any{"period_start": stamp(due), "period_end": stamp(MonthAfter(due, sc.state().Day)), "payment": map[string]any{"payment_id": sc.newPayment()}})
	case 1:
		say(events.TypeDowngradeRequested, start, map[string]any{"new_tier": "free", "effective": "period_end"})
	case 2:
		say(events.TypeCancelRequested, start, map[string]any{})
	}
}

// monthBefore is when a month starts that ends at the given time; false: none does.
func monthBefore(end time.Time) (start time.Time, found bool) {
	for days := 28; days <= 31; days++ {
		if start = end.AddDate(0, 0, -days); MonthAfter(start, start.Day()).Equal(end) {
			return start, true
		}
	}
	return start, false
}
