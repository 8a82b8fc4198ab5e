package tenant_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
)

// A book follows one company through decisions, as the tables would.
type book struct {
	state    *tenant.State
	payments map[string]*tenant.Payment
	periods  []*period
}

// A period is what was had and charged in it.
type period struct {
	start, end time.Time
	charged    int64
	changes    int64
	prices     []price
}

// A price is what a period costs from a time on.
type price struct {
	from  time.Time
	minor int64
}

func newBook(t *rapid.T, rules *tenant.Rules, at time.Time) *book {
	b := &book{state: &tenant.State{CompanyID: "acme"}, payments: map[string]*tenant.Payment{}}
	d := b.decide(t, rules, at, &events.CompanyRegistered{CompanyID: "acme", Name: "Acme", BillingEmail: "a@x", Currency: "USD",
		InitialUser: events.InitialUser{UserID: "u", Email: "u@x"}})
	if d.Refused != nil {
		t.Fatalf("the registration is refused: %v", d.Refused)
	}
	b.state.Company = d.Create
	return b
}

// decide has an event judged, twice, and takes its effects into the book.
func (b *book) decide(t *rapid.T, rules *tenant.Rules, at time.Time, payload any) *tenant.Decision {
	before, err := json.Marshal(b.state)
	if err != nil {
		t.Fatal(err)
	}
	b.state.Payment = b.payments[payment(payload)]
	c := &tenant.Cause{Event: &events.Event{Key: "acme", Envelope: events.Envelope{ID: "e", Source: "/s", Type: "t", Time: at}}, Payload: payload}
	if due, ok := payload.(*tenant.Due); ok {
		c.Event.Time = due.At
	}
	d, err := rules.Decide(b.state, c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := rules.Decide(b.state, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range []*tenant.Decision{d, again} {
		if (one.Outputs == nil) != (one.Refused != nil || one.Held) {
			t.Fatalf("%T: outputs and refusal %v", payload, one.Refused)
		}
	}
	same := func(d *tenant.Decision) any {
		var out any
		if d.Outputs != nil {
			out = d.Outputs(tenant.Written{TransactionID: "x"})
		}
		return []any{d.At, d.Refused, d.Subscription, d.Transaction, d.Payment, d.Config, out}
	}
	if !reflect.DeepEqual(same(d), same(again)) {
		t.Fatalf("%T is decided in two ways", payload)
	}
	b.state.Payment = nil
	if after, err := json.Marshal(b.state); err != nil || string(after) != string(before) {
		t.Fatalf("deciding %T changes the state: %s to %s, %v", payload, before, after, err)
	}
	if d.Refused == nil {
		b.take(t, d)
	}
	return d
}

func payment(payload any) string {
	switch p := payload.(type) {
	case *events.UpgradeRequested:
		if p.Payment != nil {
			return p.Payment.PaymentID
		}
	case *events.PaymentReceived:
		return p.PaymentID
	case *events.PaymentFailed:
		return p.PaymentID
	}
	return ""
}

func (b *book) take(t *rapid.T, d *tenant.Decision) {
	if d.At.Before(b.state.LastEffect) {
		t.Fatalf("an effect at %s, after one at %s", d.At, b.state.LastEffect)
	}
	b.state.LastEffect = d.At
	if d.Config != nil {
		b.state.Config = d.Config
	}
	if p := d.Payment; p != nil {
		p.CompanyID = "acme"
		if d.Transaction != nil {
			p.TransactionID = "some"
		}
		b.payments[p.PaymentID] = p
	}
	if tx := d.Transaction; tx != nil {
		sum := int64(0)
		for _, line := range tx.Adjustment.Lines {
			sum += line.AmountMinor
		}
		if sum != tx.Adjustment.AmountMinor {
			t.Fatalf("the lines %v sum to %d, the amount is %d", tx.Adjustment.Lines, sum, tx.Adjustment.AmountMinor)
		}
	}
	s := d.Subscription
	if s == nil {
		if d.Transaction != nil {
			t.Fatalf("%+v for no change", d.Transaction)
		}
		return
	}
	s.Due = due(s)
	b.state.Subscription = s
	entry, _ := tier.Default().Tier(s.Tier)
	switch {
	case s.PriceMinor != entry.PriceMinor || s.Limits.DailyAPICalls != entry.DailyAPICalls:
		t.Fatalf("%s has the price %d and the limits %+v", s.Tier, s.PriceMinor, s.Limits)
	case !s.PeriodEnd.After(s.PeriodStart):
		t.Fatalf("a period from %s to %s", s.PeriodStart, s.PeriodEnd)
	case (s.Status == tenant.StatusPastDue) != (s.GraceUntil != nil):
		t.Fatalf("status %s, grace until %v", s.Status, s.GraceUntil)
	case d.Transaction != nil && (!d.Transaction.Adjustment.PeriodStart.Equal(s.PeriodStart) || !d.Transaction.Adjustment.PeriodEnd.Equal(s.PeriodEnd)):
		t.Fatalf("%+v is charged for another period than %s to %s", d.Transaction, s.PeriodStart, s.PeriodEnd)
	case s.PriceMinor == 0 && (s.PendingTier != "" || s.Status == tenant.StatusPastDue):
		t.Fatalf("a free subscription with something to come: %+v", s)
	case s.CancelAtEnd && s.PendingTier != tier.Free:
		t.Fatalf("a cancellation to %s", s.PendingTier)
	}
	// What is free begins and ends a period of its own, also in the moment in which another one begins.
	var p *period
	if n := len(b.periods); n > 0 {
		p = b.periods[n-1]
	}
	if p == nil || !p.start.Equal(s.PeriodStart) || !p.end.Equal(s.PeriodEnd) || s.PriceMinor == 0 || p.prices[len(p.prices)-1].minor == 0 {
		p = &period{start: s.PeriodStart, end: s.PeriodEnd}
		b.periods = append(b.periods, p)
	}
	p.prices = append(p.prices, price{d.At, s.PriceMinor})
	if d.Transaction != nil {
		p.charged += d.Transaction.Adjustment.AmountMinor
		p.changes++
	}
}

// due is what the column due_at says.
func due(s *tenant.Subscription) *time.Time {
	switch {
	case s.Status == tenant.StatusCancelled || s.Status == tenant.StatusExpired:
		return nil
	case s.PendingTier != "" && s.Status == tenant.StatusPastDue && s.GraceUntil.Before(s.PeriodEnd):
		return s.GraceUntil
	case s.PendingTier != "":
		return &s.PeriodEnd
	case s.Status == tenant.StatusPastDue:
		return s.GraceUntil
	case s.PriceMinor > 0:
		return &s.PeriodEnd
	}
	return nil
}

// checkMoney holds the money of every period against what was had in it: of the prices paid, each for its share of the period up to
// the next one, and the last for the rest of it, whether the company stayed or left (what is paid is not given back). Every change may
// have been rounded once, by at most half a minor unit.
func (b *book) checkMoney(t *rapid.T) {
	for _, p := range b.periods {
		within := func(at time.Time) int64 { // nanoseconds of the period
			return min(max(0, at.Sub(p.start).Nanoseconds()), p.end.Sub(p.start).Nanoseconds())
		}
		worth := new(big.Rat)
		for i, had := range p.prices {
			from, to := within(had.from), within(p.end)
			if i == 0 {
				from = 0 // paid for from its start
			}
			if i+1 < len(p.prices) {
				to = within(p.prices[i+1].from)
			}
			worth.Add(worth, new(big.Rat).Mul(big.NewRat(to-from, within(p.end)), new(big.Rat).SetInt64(had.minor)))
		}
		off := new(big.Rat).Sub(new(big.Rat).SetInt64(p.charged), worth)
		if off.Abs(off).Cmp(big.NewRat(p.changes+1, 2)) > 0 {
			t.Fatalf("in the period %s to %s %d were charged in %d transactions for what was worth %s", p.start, p.end, p.charged, p.changes, worth.FloatString(3))
		}
	}
}

func TestNoCentIsLostOrInventedWhateverHappensToASubscription(t *testing.T) {
	t.Parallel()
	rules := tenant.New(tier.Default())
	rapid.Check(t, func(t *rapid.T) {
		// Leap days, ends of months, changes to and from daylight saving time: all of it is UTC inside.
		zone := rapid.SampledFrom([]*time.Location{time.UTC, zoneOf(t, "Europe/Berlin"), zoneOf(t, "America/New_York")}).Draw(t, "zone")
		now := rapid.SampledFrom([]time.Time{
			time.Date(2024, 1, 31, 23, 59, 59, 999_999_000, zone), time.Date(2024, 2, 29, 0, 0, 0, 0, zone), time.Date(2025, 12, 31, 12, 0, 0, 1000, zone),
			time.Date(2026, 3, 29, 1, 59, 0, 0, zone), time.Date(2026, 10, 25, 2, 30, 0, 0, zone), time.Date(2026, 11, 23, 8, 0, 0, 0, zone),
		}).Draw(t, "start")
		b := newBook(t, rules, now)
		tiers := []string{"free", "pro", "enterprise"}
		for range rapid.IntRange(1, 25).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(40*24*time.Hour)).Draw(t, "pause")))
			payload := anyEvent(t, b, tiers, now)
			for tenant.IsDue(b.state, payload, tenant.EffectTime(b.state, now)) {
				before := *b.state.Subscription
				d := b.decide(t, rules, now, tenant.DueCause(b.state).Payload)
				if d.Refused != nil {
					t.Fatalf("what is due is refused: %v", d.Refused)
				}
				if reflect.DeepEqual(before, *b.state.Subscription) {
					t.Fatal("what is due changes nothing")
				}
			}
			b.decide(t, rules, now, payload)
		}
		b.checkMoney(t)
	})
}

func anyEvent(t *rapid.T, b *book, tiers []string, now time.Time) any {
	id := fmt.Sprintf("p%d", rapid.IntRange(1, 4).Draw(t, "payment"))
	effective := rapid.SampledFrom([]string{events.EffectivePeriodEnd, events.EffectiveImmediate}).Draw(t, "effective")
	switch rapid.IntRange(0, 6).Draw(t, "event") {
	case 0, 1:
		return &events.UpgradeRequested{CompanyID: "acme", NewTier: rapid.SampledFrom(tiers).Draw(t, "tier"), Payment: &events.Payment{PaymentID: id}}
	case 2:
		return &events.DowngradeRequested{CompanyID: "acme", NewTier: rapid.SampledFrom(tiers).Draw(t, "tier"), Effective: effective}
	case 3:
		return &events.CancelRequested{CompanyID: "acme", Effective: effective}
	case 4:
		s := b.state.Subscription
		end := tier.NextPeriodEnd(s.PeriodEnd, s.AnchorDay)
		if rapid.IntRange(0, 5).Draw(t, "odd") == 0 {
			end = s.PeriodStart
		}
		return &events.Renewed{CompanyID: "acme", PeriodStart: s.PeriodEnd, PeriodEnd: end}
	case 5:
		return &events.Expired{CompanyID: "acme", ExpiredAt: now}
	}
	if rapid.Bool().Draw(t, "failed") {
		return &events.PaymentFailed{CompanyID: "acme", PaymentID: id}
	}
	return &events.PaymentReceived{CompanyID: "acme", PaymentID: id, AmountMinor: 4900, Currency: "USD", PaidAt: now}
}

func zoneOf(t *rapid.T, name string) *time.Location {
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}
