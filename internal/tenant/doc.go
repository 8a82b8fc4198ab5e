// Package tenant holds the rules of companies and their subscriptions: what an event does to a company, as a pure function of
// the company's state.
//
//	decision, err := rules.Decide(state, cause)
//
// A [Decision] says what is to be written and published, or why the event is refused. Nothing here reads a clock or a store:
// the time of an effect is the event's, so that a replay comes to the same periods and amounts.
package tenant

import (
	"encoding/json"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tier"
)

// States of a company.
const (
	Active = "active"
	Closed = "closed" // its data is kept
	Purged = "purged" // only books and audit are kept
)

// States of a subscription.
const (
	StatusActive    = tier.Active
	StatusPastDue   = tier.PastDue   // a payment has failed; it expires when the time of grace is over
	StatusCancelled = tier.Cancelled // by the customer; the company is on the free tier
	StatusExpired   = tier.Expired   // not renewed or not paid; the company is on the free tier
)

// Grace is how long a company keeps its tier after a payment has failed.
const Grace = 7 * 24 * time.Hour

// A State is what is known of one company when an event is judged.
type State struct {
	CompanyID    string
	Company      *Company      // nil: not registered
	Subscription *Subscription // nil: none
	// Config is the company's whole configuration, a JSON object.
	Config json.RawMessage
	// LastEffect is when the company was last changed: no later effect is dated before it. Zero: never.
	LastEffect time.Time
	// Users is how many users the company has, suspended ones included. Set for events about users.
	Users int64
	// UserOf is the company of the user that the event names; empty: there is no such user.
	UserOf string
	// EmailTaken tells that another user of the company has the email that the event names.
	EmailTaken bool
	// Payment is what is known of the payment that the event names; nil: nothing.
	Payment *Payment
	// SchemaVersion is the version of the company's tables, and NewestSchema the newest there is.
	SchemaVersion, NewestSchema int64
}

// A Company is a row of companies.
type Company struct {
	Name, BillingEmail, Currency, Status string
	CreatedAt                            time.Time
}

// A Subscription is a row of subscriptions.
type Subscription struct {
	Tier, Status string
	PeriodStart  time.Time
	PeriodEnd    time.Time
	PriceMinor   int64 // of the period, in minor units
	Currency     string
	// PendingTier is what the company falls to when the period ends; empty: it stays. CancelAtEnd: because it has cancelled.
	PendingTier string
	CancelAtEnd bool
	// GraceUntil is when a subscription that is past due expires.
	GraceUntil *time.Time
	// PreviousTier is the tier that an expiry has ended; a renewal that comes late reinstates it.
	PreviousTier string
	// AnchorDay is the day of the month on which periods begin; 0: that of PeriodStart.
	AnchorDay int
	Limits    tier.Limits
	Benefits  map[string]any
	// Partition is the one of the subscription topic that decides about the company; nil: none yet.
	Partition *int
	// Due is when something happens to it by itself: its end, or that of the time of grace. Read only.
	Due *time.Time
}

// current is what the catalogue's rules look at.
func (s *Subscription) current() tier.Current {
	return tier.Current{Tier: s.Tier, PriceMinor: s.PriceMinor, PeriodStart: s.PeriodStart, PeriodEnd: s.PeriodEnd, AnchorDay: s.AnchorDay}
}

// States of a payment.
const (
	PaymentPending  = "pending" // named by an upgrade or a renewal
	PaymentReceived = "received"
	PaymentFailed   = "failed"
)

// A Payment is a row of payments.
type Payment struct {
	PaymentID     string
	CompanyID     string
	AmountMinor   *int64 // nil: not known
	Currency      string
	PaidAt        *time.Time
	Method        string
	Status        string
	BillingPeriod string
	TransactionID string // empty: it belongs to none
	Reason        string // why it failed
}

// A Transaction is a row of billing_transactions.
type Transaction struct {
	Type             string // upgrade, downgrade or renewal
	OldTier, NewTier string
	Adjustment       tier.Adjustment
	Payment          json.RawMessage // the payment object as it came, whole; nil: none
}

// A User is somebody who comes to a company.
type User struct {
	ID, Email string
}

// A Seat is a user whose own status has changed: to active, or to suspended.
type Seat struct {
	UserID, Status string
}

// A Cause is an event as the rules see it.
type Cause struct {
	Event *events.Event
	// Payload is what Event.Payload gives, or a Due.
	Payload any
	// Partition is the one of the event's topic that it came from.
	Partition int
}

// A Decision is what an event does.
type Decision struct {
	// At is when the effect happens, in microseconds.
	At time.Time
	// Refused says why nothing is changed; nothing else is set then.
	Refused *tier.Refusal
	// Held: the event is kept for a part of the service that will be able to handle it.
	Held bool

	Create       *Company      // register the company
	Subscription *Subscription // write it
	Config       json.RawMessage
	BillingEmail string // empty: unchanged
	Add          *User
	Remove       string // a user id
	Seat         bool   // decide anew who is active and who is suspended, and tell every user the tier
	ListUsers    bool   // Written.Users is wanted
	Migrate      *int64 // bring the tables to this version; 0: the newest
	Close        bool
	Purge        bool // with Close
	Transaction  *Transaction
	Payment      *Payment

	// Action names the effect, for the history and the audit; Details are what the audit keeps: nothing of a person but
	// pseudonyms.
	Action  string
	Details map[string]any
	// Outputs makes the events that tell of the effect.
	Outputs func(w Written) []Output
}

// Written is what is known only when a decision has been written.
type Written struct {
	TransactionID string
	ConfigVersion int64
	Config        json.RawMessage
	Seats         []Seat
	Users         []string // all users of the company, sorted, if ListUsers
	SchemaBefore  int64
	Schema        int64 // the version of the tables
}

// suspended lists the users who have become suspended.
func (w *Written) suspended() []string {
	users := []string{}
	for _, s := range w.Seats {
		if s.Status == "suspended" {
			users = append(users, s.UserID)
		}
	}
	return users
}

// An Output is an event to be published.
type Output struct {
	Topic string // without prefix
	Type  string
	Data  map[string]any
	// Tombstone: no event, but the mark that there is none any more for the company.
	Tombstone bool
}
