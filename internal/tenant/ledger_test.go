package tenant_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/internal/analytics"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tenantmodel"
	"tenantflow/internal/tier"
)

// fataler is *testing.T or *rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// A ledger is what Postgres is to the rules, in memory and for one company.
type ledger struct {
	t       fataler
	rules   *tenant.Rules
	company string
	tiers   *tier.Catalogue
	state   tenant.State
	last    map[bool]time.Time // effect, by whether it is one of subscription.events
	inbox   map[tenantmodel.Identity]string
	queue   []*tenant.Cause

	payments     map[string]*tenant.Payment
	transactions map[string]*tenant.Transaction
	results      map[string]tenantmodel.Result
	// sent are the events with an identity of their own that were published.
	sent      []tenant.Output
	suspended bool // the one user
	// paid are the paid periods in the order in which they began.
	paid []tenant.Term
	// history is what is kept of the effects, and paying what the company pays a month from the time of each.
	history []analytics.Effect
	paying  []payingFrom
}

func newLedger(t fataler, rules *tenant.Rules, company string) *ledger {
	return &ledger{t: t, rules: rules, company: company, tiers: tier.Default(), state: tenant.State{CompanyID: company, Partitions: 3}, last: map[bool]time.Time{}, inbox: map[tenantmodel.Identity]string{},
		payments: map[string]*tenant.Payment{}, transactions: map[string]*tenant.Transaction{}, results: map[string]tenantmodel.Result{}}
}

// cause makes what the rules see of a record.
func cause(t fataler, r tenantmodel.Event) *tenant.Cause {
	t.Helper()
	r.Data["company_id"] = r.Company
	data, err := json.Marshal(r.Data)
	if err != nil {
		t.Fatalf("%v", err)
	}
	e := &events.Event{Key: r.Company, Envelope: events.Envelope{ID: r.ID, Source: r.Source, Type: r.Type, Time: r.Time, Data: data}}
	payload, err := e.Payload()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return &tenant.Cause{Event: e, Payload: payload, Partition: r.Partition, Appended: r.Appended}
}

// take brings one event to its end.
func (l *ledger) take(r tenantmodel.Event) {
	l.t.Helper()
	c := cause(l.t, r)
	if _, known := l.inbox[identity(c)]; known && c.Event.Source != tenant.DueSource {
		return
	}
	if slices.ContainsFunc(l.queue, func(q *tenant.Cause) bool { return identity(q) == identity(c) && c.Event.Source != tenant.DueSource }) {
		return
	}
	l.bring(c)
	for l.state.Company != nil && len(l.queue) > 0 {
		l.bring(l.queue[0])
	}
}

func identity(c *tenant.Cause) tenantmodel.Identity {
	return tenantmodel.Identity{Source: c.Event.Source, ID: c.Event.ID}
}

func (l *ledger) bring(c *tenant.Cause) {
	l.t.Helper()
	for range 100 {
		l.load(c)
		own := slices.Index(l.queue, c)
		l.state.Queue = tenant.Queue{Own: int64(own + 1), Head: int64(min(len(l.queue), 1))}
		switch tenant.Next(&l.state, c) {
		case tenant.Enqueue:
			l.queue = append(l.queue, c)
			return
		case tenant.HeadFirst:
			l.bring(l.queue[0])
		case tenant.DueFirst:
			due := tenant.DueCause(l.company, l.state.DueBefore(c.Payload)[0])
			due.Partition, due.Appended = c.Partition, c.Appended
			l.decide(due)
		case tenant.Drop:
			l.queue = slices.DeleteFunc(l.queue, func(q *tenant.Cause) bool { return q == c })
			return
		case tenant.Apply:
			l.decide(c)
			l.queue = slices.DeleteFunc(l.queue, func(q *tenant.Cause) bool { return q == c })
			return
		}
	}
	l.t.Fatalf("%s %s comes to no end", c.Event.Type, c.Event.Data)
}

// load reads what an event needs.
func (l *ledger) load(c *tenant.Cause) {
	s := &l.state
	s.LastEffect = l.last[ofSubscription(c)]
	s.Payment = nil
	if p := l.payments[paymentOf(c.Payload)]; p != nil {
		known := *p
		s.Payment = &known
	}
	s.Books, s.Ahead = tenant.Books{}, tenant.Ahead{}
	if s.Subscription == nil {
		return
	}
	period := &s.Subscription.Term
	if s.Subscription.Expired != nil {
		period = s.Subscription.Expired
	}
	for _, tx := range l.transactions {
		if a := tx.Adjustment; a.PeriodStart.Equal(period.PeriodStart) && a.PeriodEnd.Equal(period.PeriodEnd) {
			s.Books.Charged += a.AmountMinor
			if a.AmountMinor > 0 {
				s.Books.Tiers = append(s.Books.Tiers, tx.NewTier)
			}
		}
	}
	for _, p := range l.payments {
		if p.Status == tenant.PaymentReceived && p.PeriodStart != nil && p.PeriodStart.Equal(period.PeriodStart) {
			s.Books.Received += *p.AmountMinor
		}
	}
	if next := s.Subscription.Renewal; next != nil {
		s.Ahead = l.ahead(next.Start)
	}
}

// ahead is the money of the period that begins at a time to come.
func (l *ledger) ahead(start time.Time) (money tenant.Ahead) {
	for _, p := range l.payments {
		belongs := p.PeriodStart != nil && p.PeriodStart.Equal(start)
		switch {
		case p.Status == tenant.PaymentReceived && (belongs || p.PeriodStart == nil && p.BillingPeriod == start.Format("2006-01")):
			money.Received += *p.AmountMinor
		case p.Status == tenant.PaymentFailed && belongs:
			money.Failed = true
		}
	}
	return money
}

func ofSubscription(c *tenant.Cause) bool { return c.Event.Type[:3] == "sub" }

func paymentOf(payload any) string {
	of := func(p *events.Payment) string {
		if p == nil {
			return ""
		}
		return p.PaymentID
	}
	switch p := payload.(type) {
	case *events.UpgradeRequested:
		return of(p.Payment)
	case *events.Renewed:
		return of(p.Payment)
	case *events.PaymentReceived:
		return p.PaymentID
	case *events.PaymentFailed:
		return p.PaymentID
	}
	return ""
}

// decide has an event decided, twice, and writes what it does.
func (l *ledger) decide(c *tenant.Cause) {
	l.t.Helper()
	before, held := l.state, tenant.Subscription{}
	if l.state.Subscription != nil {
		held = *l.state.Subscription
	}
	d, err := l.rules.Decide(&l.state, c)
	if err != nil {
		l.t.Fatalf("%s: %v", c.Event.Type, err)
	}
	if !reflect.DeepEqual(before, l.state) || l.state.Subscription != nil && !reflect.DeepEqual(held, *l.state.Subscription) {
		l.t.Fatalf("deciding %s changes the state from\n%+v\nto\n%+v", c.Event.Type, held, l.state.Subscription)
	}
	if (d.Outputs == nil) != (d.Refused != nil || d.Silent) {
		l.t.Fatalf("%s: outputs and refusal %v", c.Event.Type, d.Refused)
	}
	l.inbox[identity(c)] = "done"
	defer l.home(c)
	if d.Refused != nil {
		l.inbox[identity(c)] = "rejected"
		topic, kind := events.TopicCompanyResults, events.TypeCompanyRejected
		if ofSubscription(c) {
			topic, kind = events.TopicSubscriptionResults, events.TypeSubscriptionRejected
		}
		l.publish(c, tenant.Output{Topic: topic, Type: kind, Data: map[string]any{"company_id": l.company, "code": d.Refused.Code, "request_id": c.Event.ID, "request_type": c.Event.Type}}, 0)
		return
	}
	if d.At.Before(l.state.LastEffect) {
		l.t.Fatalf("%s has its effect at %s, after one at %s", c.Event.Type, d.At, l.state.LastEffect)
	}
	l.write(c, d)
}

// home keeps which partition the events of the subscription are in.
func (l *ledger) home(c *tenant.Cause) {
	if named, isDue := tenant.NamedDue(c.Payload); !ofSubscription(c) || l.state.Subscription == nil || isDue && named.Kind == tenant.DueClosing {
		return
	}
	held := *l.state.Subscription
	if slices.Contains(held.ClosedIn, c.Partition) {
		return
	}
	held.Partition = &c.Partition
	l.state.Subscription = &held
}

func (l *ledger) write(c *tenant.Cause, d *tenant.Decision) {
	l.t.Helper()
	s := &l.state
	if !d.Undated {
		l.last[ofSubscription(c)] = d.At
	}
	w := tenant.Written{Users: []string{l.company + "-u"}, ConfigVersion: 1}
	if d.Create != nil {
		s.Company = d.Create
	}
	if d.Close {
		closed := *s.Company
		closed.Status = tenant.Closed
		if d.Purge {
			closed.Status, s.Config, s.Overrides = tenant.Purged, nil, nil
		}
		s.Company = &closed
	}
	if s.Company.Status == tenant.Purged && (d.Config != nil || d.Seat || d.ListUsers) {
		l.t.Fatalf("%s wants users or a configuration of a purged company", c.Event.Type)
	}
	if d.Config != nil {
		s.Config, w.Config = d.Config, d.Config
	}
	if d.Overrides != nil {
		s.Overrides = *d.Overrides
	}
	if d.Transaction != nil {
		w.TransactionID = events.ResultID(c.Event.Source, c.Event.ID, "transaction", 0)
		l.check(d, w.TransactionID)
		l.transactions[w.TransactionID] = d.Transaction
	}
	if p := d.Payment; p != nil {
		p.CompanyID = l.company
		if d.Transaction != nil {
			p.TransactionID = w.TransactionID
		}
		l.payments[p.PaymentID] = p
	}
	if p := l.payments[d.Covers]; p != nil && p.PeriodStart != nil && p.PeriodStart.Equal(d.Subscription.PeriodStart) {
		p.TransactionID = w.TransactionID
	}
	for _, p := range l.payments {
		if d.Release != nil && p.PeriodStart != nil && p.PeriodStart.Equal(*d.Release) && p.TransactionID == "" {
			p.PeriodStart = nil
		}
	}
	if d.Subscription != nil {
		l.follow(c, s.Subscription, d.Subscription)
		s.Subscription = d.Subscription
	}
	if d.Adopt {
		start := s.Subscription.PeriodStart
		for _, p := range l.payments {
			if p.PeriodStart == nil && p.Status == tenant.PaymentReceived && p.BillingPeriod == start.Format("2006-01") {
				p.PeriodStart = &start
			}
		}
	}
	if d.Forget {
		s.Subscription = nil
	} else {
		l.belong(c)
		l.limit(c, d)
	}
	l.keep(c, d)
	if d.Silent {
		return
	}
	n := map[string]int{}
	for _, out := range d.Outputs(w) {
		if out.Event != nil {
			l.sent = append(l.sent, out)
			continue
		}
		if out.Tombstone {
			continue
		}
		l.publish(c, out, n[out.Type])
		n[out.Type]++
	}
}

// limit seats the one user, and holds that the configuration says for how many there is a place.
func (l *ledger) limit(c *tenant.Cause, d *tenant.Decision) {
	l.t.Helper()
	s := &l.state
	if s.Subscription == nil || s.Company.Status == tenant.Purged {
		return
	}
	places := s.Overrides.Over(s.Subscription.Limits).MaxUsers
	if d.Seat {
		l.suspended = places == 0
	}
	var config struct {
		MaxUsers tier.Limit `json:"max_users"`
	}
	if err := json.Unmarshal(s.Config, &config); err != nil || config.MaxUsers != places {
		l.t.Fatalf("%s: max_users is %s and the configuration says %s (%v)", c.Event.Type, places, s.Config, err)
	}
}

// belong holds that a payment belongs to no period, or to one that was charged or is recorded ahead.
func (l *ledger) belong(c *tenant.Cause) {
	l.t.Helper()
	sub := l.state.Subscription
	for id, p := range l.payments {
		if p.PeriodStart == nil || sub.Renewal != nil && sub.Renewal.Start.Equal(*p.PeriodStart) {
			continue
		}
		if !slices.ContainsFunc(l.paid, func(t tenant.Term) bool { return t.PeriodStart.Equal(*p.PeriodStart) }) {
			l.t.Fatalf("%s leaves the payment %s with the period of %s, which there is not", c.Event.Type, id, p.PeriodStart)
		}
	}
}

// check holds a transaction against what is true of all.
func (l *ledger) check(d *tenant.Decision, id string) {
	l.t.Helper()
	tx := d.Transaction
	sum := int64(0)
	for _, line := range tx.Adjustment.Lines {
		sum += line.AmountMinor
	}
	if a := tx.Adjustment; sum != a.AmountMinor || a.AmountMinor < 0 {
		l.t.Fatalf("the lines %v sum to %d, the amount is %d", a.Lines, sum, a.AmountMinor)
	}
	if _, again := l.transactions[id]; again {
		l.t.Fatalf("the transaction %s is made twice", id)
	}
	for _, other := range l.transactions {
		if a, b := other.Adjustment, tx.Adjustment; a.AmountMinor > 0 && b.AmountMinor > 0 && other.NewTier == tx.NewTier && a.PeriodStart.Equal(b.PeriodStart) && a.PeriodEnd.Equal(b.PeriodEnd) {
			l.t.Fatalf("%s to %s is charged twice for %s: %d and %d", a.PeriodStart, a.PeriodEnd, tx.NewTier, a.AmountMinor, b.AmountMinor)
		}
	}
}

// follow holds a subscription against what is true of all, and against the paid periods before it.
func (l *ledger) follow(c *tenant.Cause, was, is *tenant.Subscription) {
	l.t.Helper()
	entry, _ := l.tiers.Tier(is.Tier)
	paid := is.PriceMinor > 0
	switch {
	case is.PriceMinor != entry.PriceMinor || is.Limits.DailyAPICalls != entry.DailyAPICalls:
		l.t.Fatalf("%s has the price %d and the limits %+v", is.Tier, is.PriceMinor, is.Limits)
	case !is.PeriodEnd.After(is.PeriodStart):
		l.t.Fatalf("a period from %s to %s", is.PeriodStart, is.PeriodEnd)
	case (is.Status == tenant.StatusPastDue) != (is.GraceUntil != nil):
		l.t.Fatalf("status %s, grace until %v", is.Status, is.GraceUntil)
	case is.ClosedAt != nil && len((&tenant.State{Subscription: is}).Due()) > 0:
		l.t.Fatalf("something is due to a closed subscription: %+v", is)
	case is.ClosedAt == nil && paid != (is.Status == tenant.StatusPastDue || is.RenewalUntil != nil):
		l.t.Fatalf("%s that ends never, or %s that does: %+v", is.Tier, is.Tier, is)
	case !paid && is.PendingTier != "", is.CancelAtEnd && is.PendingTier != tier.Free, (is.PendingTier == "") != (is.PendingAt == nil):
		l.t.Fatalf("pending %q at %v", is.PendingTier, is.PendingAt)
	case paid && is.Renewal != nil && !is.Renewal.Start.Equal(is.PeriodEnd):
		l.t.Fatalf("the renewal of %s begins at %s", is.PeriodEnd, is.Renewal.Start)
	case is.Renewal != nil && is.Renewal.Tier != "" && (is.PendingAt == nil || !is.PendingAt.Equal(is.Renewal.End)):
		l.t.Fatalf("the renewal begins with %s, and %q is pending at %v", is.Renewal.Tier, is.PendingTier, is.PendingAt)
	case is.PendingAt != nil && !is.PendingAt.Equal(is.PeriodEnd) && (is.Renewal == nil || !is.PendingAt.Equal(is.Renewal.End)):
		l.t.Fatalf("%s falls to %s at %s, which is the end of no period", is.PeriodEnd, is.PendingTier, is.PendingAt)
	}
	if !paid || was == nil || was.PeriodStart.Equal(is.PeriodStart) && was.PriceMinor > 0 {
		return
	}
	if n := len(l.paid); n > 0 && !(l.paid[n-1].PeriodStart.Equal(is.PeriodStart) && l.paid[n-1].PeriodEnd.Equal(is.PeriodEnd)) {
		last, left := l.paid[n-1], l.paid[n-1].PeriodEnd
		if was.PriceMinor == 0 && was.PeriodStart.Before(left) {
			left = was.PeriodStart // it was left before its end
		}
		if is.PeriodStart.Before(left) {
			l.t.Fatalf("%s: the period %s to %s overlaps that of %s to %s, left at %s", c.Event.Type, is.PeriodStart, is.PeriodEnd, last.PeriodStart, last.PeriodEnd, left)
		}
	}
	l.paid = append(l.paid, is.Term)
}

func (l *ledger) publish(c *tenant.Cause, out tenant.Output, ordinal int) {
	l.t.Helper()
	text, err := json.Marshal(out.Data)
	if err != nil {
		l.t.Fatalf("%v", err)
	}
	r := tenantmodel.Result{Topic: out.Topic, Type: out.Type, CompanyID: l.company}
	if err := json.Unmarshal(text, &r.Data); err != nil {
		l.t.Fatalf("%v", err)
	}
	l.results[events.ResultID(c.Event.Source, c.Event.ID, out.Type, ordinal)] = r
}

// world is what the ledger holds, as the model judges it.
func (l *ledger) world() *tenantmodel.World {
	w := tenantmodel.NewWorld()
	w.Inbox, w.Results = l.inbox, l.results
	if c := l.state.Company; c != nil {
		if c.Status == tenant.Purged {
			w.Companies[l.company] = tenantmodel.Company{Status: c.Status, Currency: c.Currency}
			l.money(w)
			return w
		}
		w.Companies[l.company] = tenantmodel.Company{Status: c.Status, Currency: c.Currency, BillingEmail: c.BillingEmail}
		w.Users[l.company+"-u"] = tenantmodel.User{CompanyID: l.company, Email: "u@x", Status: "active"}
		if l.suspended {
			w.Users[l.company+"-u"] = tenantmodel.User{CompanyID: l.company, Email: "u@x", Status: "suspended"}
		}
		w.Configs[l.company] = l.state.Config
	}
	at := func(t *time.Time) time.Time {
		if t == nil {
			return time.Time{}
		}
		return *t
	}
	if s := l.state.Subscription; s != nil {
		row := tenantmodel.Subscription{Tier: s.Tier, Status: s.Status, PeriodStart: s.PeriodStart, PeriodEnd: s.PeriodEnd, Months: s.Months, PriceMinor: s.PriceMinor,
			Currency: s.Currency, PendingTier: s.PendingTier, PendingAt: at(s.PendingAt), CancelAtPeriodEnd: s.CancelAtEnd, GraceUntil: at(s.GraceUntil), RenewalUntil: at(s.RenewalUntil)}
		if s.Renewal != nil {
			row.NextStart, row.NextEnd = s.Renewal.Start, s.Renewal.End
		}
		if s.Expired != nil {
			row.PreviousTier = s.Expired.Tier
		}
		w.Subscriptions[l.company] = row
	}
	for _, o := range l.state.Overrides {
		w.Overrides[l.company+" "+o.Limit] = tenantmodel.Override{Value: o.Value, Reason: o.Reason, SetAt: o.SetAt, ExpiresAt: at(o.ExpiresAt)}
	}
	l.money(w)
	return w
}

// money is what is left of the books of a company, whatever becomes of it.
func (l *ledger) money(w *tenantmodel.World) {
	for id, tx := range l.transactions {
		row := tenantmodel.Transaction{CompanyID: l.company, Type: tx.Type, OldTier: tx.OldTier, NewTier: tx.NewTier, AmountMinor: tx.Adjustment.AmountMinor, Currency: tx.Adjustment.Currency,
			PeriodStart: tx.Adjustment.PeriodStart, PeriodEnd: tx.Adjustment.PeriodEnd}
		for _, line := range tx.Adjustment.Lines {
			row.Lines = append(row.Lines, line.AmountMinor)
		}
		var named struct {
			PaymentID string `json:"payment_id"`
		}
		if tx.Payment != nil && json.Unmarshal(tx.Payment, &named) == nil {
			row.PaymentID = named.PaymentID
		}
		w.Transactions[id] = row
	}
	for id, p := range l.payments {
		row := tenantmodel.Payment{CompanyID: p.CompanyID, Status: p.Status, Currency: p.Currency, TransactionID: p.TransactionID}
		if p.PeriodStart != nil {
			row.PeriodStart = *p.PeriodStart
		}
		if p.AmountMinor != nil {
			row.AmountMinor = *p.AmountMinor
		}
		w.Payments[id] = row
	}
}
