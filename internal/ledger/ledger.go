// Package ledger keeps companies in memory by the service's own rules, as far as `tenantflow generate companies` has to know them to say
// what a company does next.
//
//	books := ledger.New(tenant.New(tenant.Config{Catalogue: tier.Default()}), tier.Default())
//	stream, err := generate.NewCompanies(generate.Companies{Seed: 1, Now: time.Now()}, books)
package ledger

import (
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/internal/generate"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
)

// A Ledger is what Postgres is to the rules. It implements [generate.Books]: what reaches it can be handled, and it panics where not.
type Ledger struct {
	rules     *tenant.Rules
	tiers     []string // in the order of upgrades
	companies map[string]*company
	companyOf map[string]string // by user
	payments  map[string]*tenant.Payment
}

type company struct {
	state        tenant.State
	last         map[string]time.Time // effect, by topic
	users        []string             // in the order in which they came
	transactions []*tenant.Transaction
	payments     []*tenant.Payment
}

// New returns an empty ledger.
func New(rules *tenant.Rules, tiers *tier.Catalogue) *Ledger {
	return &Ledger{rules: rules, tiers: tiers.Names(), companies: map[string]*company{}, companyOf: map[string]string{}, payments: map[string]*tenant.Payment{}}
}

// Apply implements [generate.Books].
func (l *Ledger) Apply(e *generate.TenantEvent) (code string) {
	envelope, err := e.Envelope()
	if err != nil {
		panic(err)
	}
	cause := &tenant.Cause{Event: &events.Event{Key: e.Company, Envelope: *envelope}}
	if cause.Payload, err = cause.Event.Payload(); err != nil {
		panic(err)
	}
	c := l.companies[e.Company]
	if c == nil {
		if e.Type != events.TypeCompanyRegistered {
			return tenant.UnknownCompany
		}
		c = &company{state: tenant.State{CompanyID: e.Company}, last: map[string]time.Time{}}
	}
	for l.load(c, e.Topic, cause); tenant.Next(&c.state, cause) == tenant.DueFirst; l.load(c, e.Topic, cause) {
		l.due(c, c.state.DueBefore(cause.Payload)[0])
	}
	return l.decide(c, e.Topic, cause)
}

// Settle implements [generate.Books].
func (l *Ledger) Settle(at time.Time, _ int) {
	for _, c := range l.companies {
		for due := c.state.Due(); len(due) > 0 && !due[0].At.After(at); due = c.state.Due() {
			l.due(c, due[0])
		}
		ofCompany := &events.ConfigUpdated{} // any event of company.events
		for due := c.state.DueBefore(ofCompany); len(due) > 0 && !due[0].At.After(at); due = c.state.DueBefore(ofCompany) {
			l.due(c, due[0])
		}
	}
}

func (l *Ledger) due(c *company, due tenant.Due) {
	cause := tenant.DueCause(c.state.CompanyID, due)
	topic, _ := events.TopicOf(cause.Event.Type)
	l.load(c, topic, cause)
	l.decide(c, topic, cause)
}

// load completes the state of a company with what the rules have to know for an event.
func (l *Ledger) load(c *company, topic string, cause *tenant.Cause) {
	s := &c.state
	user, payment := named(cause.Payload)
	s.LastEffect, s.Users, s.UserOf = c.last[topic], int64(len(c.users)), l.companyOf[user]
	s.Payment = nil
	if p := l.payments[payment]; p != nil {
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
	for _, t := range c.transactions {
		if a := t.Adjustment; a.PeriodStart.Equal(period.PeriodStart) && a.PeriodEnd.Equal(period.PeriodEnd) && a.AmountMinor > 0 {
			s.Books.Charged += a.AmountMinor
			s.Books.Tiers = append(s.Books.Tiers, t.NewTier)
		}
	}
	for _, p := range c.payments {
		if p.Status == tenant.PaymentReceived && p.PeriodStart != nil && p.PeriodStart.Equal(period.PeriodStart) {
			s.Books.Received += *p.AmountMinor
		}
	}
	if next := s.Subscription.Renewal; next != nil {
		c.lookAhead(next.Start)
	}
}

// lookAhead reads the money of the period that begins at a time to come.
func (c *company) lookAhead(start time.Time) {
	for _, p := range c.payments {
		belongs := p.PeriodStart != nil && p.PeriodStart.Equal(start)
		switch {
		case p.Status == tenant.PaymentReceived && (belongs || p.PeriodStart == nil && p.BillingPeriod == start.Format("2006-01")):
			c.state.Ahead.Received += *p.AmountMinor
		case p.Status == tenant.PaymentFailed && belongs:
			c.state.Ahead.Failed = true
		}
	}
}

// named are the user and the payment that an event names; empty: none.
func named(payload any) (user, payment string) {
	var by *events.Payment
	switch p := payload.(type) {
	case *events.CompanyRegistered:
		return p.InitialUser.UserID, ""
	case *events.UserAdded:
		return p.UserID, ""
	case *events.UserRemoved:
		return p.UserID, ""
	case *events.PaymentReceived:
		return "", p.PaymentID
	case *events.PaymentFailed:
		return "", p.PaymentID
	case *events.UpgradeRequested:
		by = p.Payment
	case *events.Renewed:
		by = p.Payment
	}
	if by == nil {
		return "", ""
	}
	return "", by.PaymentID
}

// decide has an event decided and writes what it does.
func (l *Ledger) decide(c *company, topic string, cause *tenant.Cause) (code string) {
	d, err := l.rules.Decide(&c.state, cause)
	switch {
	case err != nil:
		panic(err)
	case d.Refused != nil:
		return d.Refused.Code
	case !d.Held:
		c.last[topic] = d.At
		l.write(c, cause, d)
	}
	return ""
}

func (l *Ledger) write(c *company, cause *tenant.Cause, d *tenant.Decision) {
	s := &c.state
	if d.Create != nil {
		s.Company = d.Create
		l.companies[s.CompanyID] = c
	}
	if d.Config != nil {
		s.Config = d.Config
	}
	if d.Add != nil {
		c.users = append(c.users, d.Add.ID)
		l.companyOf[d.Add.ID] = s.CompanyID
	}
	if d.Remove != "" {
		c.users = slices.DeleteFunc(c.users, func(u string) bool { return u == d.Remove })
		delete(l.companyOf, d.Remove)
	}
	if d.Overrides != nil {
		s.Overrides = *d.Overrides
	}
	if d.Close {
		closed := *s.Company
		closed.Status = tenant.Closed
		s.Company = &closed
		if s.Subscription != nil { // nothing is sent between the closing and the event that ends it
			ended := *s.Subscription
			ended.ClosedAt = &d.At
			s.Subscription = &ended
		}
	}
	if d.Purge {
		for _, u := range c.users {
			delete(l.companyOf, u)
		}
		c.users = nil
	}
	l.writeMoney(c, cause, d)
}

func (l *Ledger) writeMoney(c *company, cause *tenant.Cause, d *tenant.Decision) {
	s, transaction := &c.state, ""
	if d.Transaction != nil {
		transaction = events.ResultID(cause.Event.Source, cause.Event.ID, "transaction", 0)
		c.transactions = append(c.transactions, d.Transaction)
	}
	if d.Payment != nil {
		p := l.payments[d.Payment.PaymentID]
		if p == nil {
			p = &tenant.Payment{}
			l.payments[d.Payment.PaymentID] = p
			c.payments = append(c.payments, p)
		}
		*p = *d.Payment
		p.CompanyID = s.CompanyID
		if transaction != "" {
			p.TransactionID = transaction
		}
	}
	if p := l.payments[d.Covers]; p != nil && p.PeriodStart != nil && p.PeriodStart.Equal(d.Subscription.PeriodStart) {
		p.TransactionID = transaction
	}
	for _, p := range c.payments {
		if d.Release != nil && p.PeriodStart != nil && p.PeriodStart.Equal(*d.Release) && p.TransactionID == "" {
			p.PeriodStart = nil
		}
	}
	if d.Subscription != nil {
		s.Subscription = d.Subscription
	}
	if d.Adopt {
		start := s.Subscription.PeriodStart
		for _, p := range c.payments {
			if p.PeriodStart == nil && p.Status == tenant.PaymentReceived && p.BillingPeriod == start.Format("2006-01") {
				p.PeriodStart = &start
			}
		}
	}
}

// Tenant implements [generate.Books].
func (l *Ledger) Tenant(id string) *generate.Tenant {
	c := l.companies[id]
	if c == nil {
		return nil
	}
	s := c.state.Subscription
	t := &generate.Tenant{Open: c.state.Company.Status == tenant.Active, Users: c.users, Tier: s.Tier, Rank: slices.Index(l.tiers, s.Tier), Paid: s.PriceMinor > 0,
		Status: s.Status, Period: periodOf(&s.Term), Pending: s.PendingTier, Ahead: s.Renewal != nil}
	if places := c.state.Overrides.Over(s.Limits).MaxUsers; places != tier.Unlimited {
		t.MaxUsers = int(places)
	}
	if s.PendingAt != nil {
		t.PendingAt = *s.PendingAt
	}
	if s.Expired != nil {
		ended := periodOf(s.Expired)
		t.Ended = &ended
	}
	return t
}

func periodOf(t *tenant.Term) generate.Period {
	day := t.AnchorDay
	if day == 0 {
		day = t.PeriodStart.UTC().Day()
	}
	return generate.Period{Start: t.PeriodStart, End: t.PeriodEnd, Day: day}
}

// Payment implements [generate.Books].
func (l *Ledger) Payment(id string) (generate.Payment, bool) {
	p := l.payments[id]
	if p == nil {
		return generate.Payment{}, false
	}
	return generate.Payment{CompanyID: p.CompanyID, Status: p.Status, TransactionID: p.TransactionID, Belongs: p.PeriodStart != nil}, true
}
