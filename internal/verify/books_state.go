package verify

import (
	"encoding/json"
	"fmt"
	"strings"

	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// subscription looks at the row of the subscription: it is what the audit log makes of it, and it makes sense in itself.
func (b *booksCheck) subscription() {
	s := b.Subscription
	place := "subscriptions " + b.CompanyID
	switch {
	case b.Unclosed:
		b.find(WrongSubscription, place, "the company is closed, and its subscription goes on: subscription.events is far behind, or the event that ends it was lost and comes again")
	case b.ClosedAlone:
		b.find(WrongSubscription, place, "the subscription has ended with its company, and the company is active: company.events is far behind, or the event was not this service's own")
	}
	if b.Status == "" || b.Status == tenant.Purged {
		return
	}
	if s == nil {
		if b.told { // a company that was made by hand need not have one
			b.find(NoSubscription, "companies "+b.CompanyID, "the company was registered by an event and has no row in subscriptions: its events can't be applied")
		}
		return
	}
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if s.LimitsFault != "" {
		say("%s", s.LimitsFault)
	}
	if b.told {
		b.againstAudit(s, say)
	}
	switch {
	case !b.told: // made by hand: its rows need not fit together
	case b.Status != tenant.Active, b.closed: // it keeps its tier
	case s.Status == tenant.StatusPastDue && (s.GraceUntil == nil || s.PriceMinor == 0):
		say("it is past due without a grace period or without a price")
	case s.Status == tenant.StatusPastDue && s.Received >= s.Charged:
		say("it is past due, and %d was received for the period that costs %d", s.Received, s.Charged)
	case s.Status == tenant.StatusActive && s.PriceMinor > 0 && s.RenewalUntil == nil:
		say("it is active and paid, and nothing says until when it waits for its renewal")
	case (s.Status == tenant.StatusCancelled || s.Status == tenant.StatusExpired) && s.PriceMinor > 0:
		say("it is %s and has a price", s.Status)
	}
	if len(wrong) > 0 {
		b.find(WrongSubscription, place, "%s", strings.Join(wrong, "; "))
	}
}

// againstAudit compares the subscription with what the audit log makes of it.
func (b *booksCheck) againstAudit(s *postgres.BookedSubscription, say func(string, ...any)) {
	now := &b.now
	if back := now.back; back != nil && s.Tier == back.tier && s.Expired == nil {
		now = back // a payment has brought it back
	}
	if s.Tier != now.tier {
		say("its tier is %s, and the audit log leads to %s", s.Tier, now.tier)
		return
	}
	if !now.start.IsZero() && (!s.PeriodStart.Equal(now.start) || !s.PeriodEnd.Equal(now.end)) {
		say("its period is %s to %s, and the audit log leads to %s to %s", stamp(s.PeriodStart), stamp(s.PeriodEnd), stamp(now.start), stamp(now.end))
	}
	if old := now.expired; old != nil && b.Status == tenant.Active && (s.Expired == nil || s.Expired.Tier != old.tier) {
		say("%s has expired, and it does not say so", old.tier)
	}
	// What begins a period is charged its price as a whole.
	t := b.transaction(now.last)
	var lines []tier.Line
	if t == nil || b.named[t.ID] || t.NewTier != s.Tier || json.Unmarshal(t.Lines, &lines) != nil || len(lines) != 1 || t.AmountMinor <= 0 {
		return
	}
	if whole := s.PriceMinor * int64(s.Months); t.PeriodStart != nil && t.PeriodStart.Equal(s.PeriodStart) && t.AmountMinor != whole {
		say("its period costs %d, and %d was charged for it by transaction %s", whole, t.AmountMinor, t.ID)
	}
}

// users compares the directory with the company's own table of users, and both with the subscription.
func (b *booksCheck) users() {
	if b.Status == "" || b.Status == tenant.Purged {
		return
	}
	switch {
	case b.SchemaFault != "":
		b.find(WrongUser, tenant.SchemaOf(b.CompanyID)+".users", "it can't be read: %s", b.SchemaFault)
	case b.HasSchema:
		b.compareUsers()
	case b.told:
		b.find(WrongUser, tenant.SchemaOf(b.CompanyID)+".users", "there is no such table: the company's schema is gone")
	}
	if !b.told || b.Subscription == nil || b.Subscription.Limits == nil {
		return // a company that was made by hand may have no configuration, and users beyond its limit
	}
	b.seats()
	b.config()
}

func (b *booksCheck) compareUsers() {
	own := make(map[string]*postgres.BookedUser, len(b.Users))
	for i := range b.Users {
		own[b.Users[i].ID] = &b.Users[i]
	}
	for i := range b.Directory {
		d := &b.Directory[i]
		u := own[d.ID]
		delete(own, d.ID)
		var wrong []string
		switch {
		case u == nil:
			wrong = append(wrong, "it is missing in "+tenant.SchemaOf(b.CompanyID)+".users")
		case u.Email != d.Email:
			wrong = append(wrong, "its email is another one than in "+tenant.SchemaOf(b.CompanyID)+".users")
		case u.Status != d.Status:
			wrong = append(wrong, fmt.Sprintf("it is %s, and %s in %s.users", d.Status, u.Status, tenant.SchemaOf(b.CompanyID)))
		}
		if len(wrong) > 0 {
			b.find(WrongUser, "user_directory "+d.ID, "%s", strings.Join(wrong, "; "))
			continue
		}
		if s := b.Subscription; s != nil && (u.Tier != s.Tier || sumOf(u.Limits) != sumOf(s.LimitsText)) {
			b.find(WrongLimits, tenant.SchemaOf(b.CompanyID)+".users "+d.ID, "its tier or limits are not those of the company's subscription")
		}
	}
	for i := range b.Users {
		if id := b.Users[i].ID; own[id] != nil {
			b.find(WrongUser, tenant.SchemaOf(b.CompanyID)+".users "+id, "it is missing in user_directory")
		}
	}
}

// seats looks whether as many users are active as the limits allow.
func (b *booksCheck) seats() {
	limit := b.Subscription.Limits.MaxUsers
	active := 0
	for i := range b.Directory {
		if b.Directory[i].Status == tenant.Active {
			active++
		}
	}
	if b.Status != tenant.Active {
		return
	}
	places := len(b.Directory)
	if limit != tier.Unlimited && int64(places) > int64(limit) {
		places = int(limit)
	}
	if active != places {
		b.find(WrongLimits, "user_directory "+b.CompanyID, "%d of %d users are active, and the limit is %s", active, len(b.Directory), limit)
	}
}

// config looks whether the configuration repeats what the subscription says.
func (b *booksCheck) config() {
	place := "company_config " + b.CompanyID
	if b.Config == nil {
		b.find(WrongLimits, place, "the company has no configuration")
		return
	}
	var c struct {
		Tier     string          `json:"subscription_tier"`
		MaxUsers json.RawMessage `json:"max_users"`
		Features json.RawMessage `json:"features_enabled"`
	}
	s := b.Subscription
	users, _ := json.Marshal(s.Limits.MaxUsers)    // never fails
	features, _ := json.Marshal(s.Limits.Features) // never fails
	switch err := json.Unmarshal(b.Config, &c); {
	case err != nil:
		b.find(WrongLimits, place, "it can't be read: %v", err)
	case c.Tier != s.Tier || sumOf(c.MaxUsers) != sumOf(users) || sumOf(c.Features) != sumOf(features):
		b.find(WrongLimits, place, "tier, max_users or features_enabled are not those of the company's subscription (%s)", s.Tier)
	}
}
