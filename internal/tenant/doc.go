// Package tenant holds the rules of companies and their subscriptions, as pure functions of a company's [State]: what has to happen
// first ([Next]), what is due ([State.Due]), what an event does ([Rules.Decide]) and what it would do ([Rules.Preview]).
//
//	step := tenant.Next(state, cause)            // is something else to be done before?
//	decision, err := rules.Decide(state, cause)  // if not: what the event does
//
// A [Decision] says what is to be written and published, or why the event is refused. Nothing here reads a clock or a store:
// the time of an effect is the event's, so that a replay comes to the same periods and amounts.
//
// # Time
//
// Only events of subscription.events move a subscription in time. What is due to it at or before such an event's time happens before
// the event, whatever the event is. What the clock alone says is due comes as an event of the log, too (subscription.due.v1). So periods,
// amounts and tiers follow from the log and not from when it is read. The closing of a company comes over the other topic; the subscription
// ends with it where the log of subscription.events says so, by an event that is published when the company is closed.
//
// In the same way only events of company.events move the overrides of a company's limits: an override that ends at or before the time of
// such an event ends before the event, and what the clock alone says comes as company.due.v1. Who has a place and which limits a result
// names depends on the tier and on the overrides, and so on the order of the two topics.
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
	StatusActive    = "active"
	StatusPastDue   = "past_due"  // a payment has failed; it expires when the grace period is over
	StatusCancelled = "cancelled" // by the customer; the company is on the free tier
	StatusExpired   = "expired"   // not renewed or not paid; the company is on the free tier
)

// PaymentGrace is how long a company keeps its tier after a payment has failed.
const PaymentGrace = 7 * 24 * time.Hour

// Grace periods of a paid period that has ended and was not renewed.
const (
	DefaultRenewalGrace = 72 * time.Hour
	MaxRenewalGrace     = 28 * 24 * time.Hour // shorter than any period: none is over before it can begin
)

// A State holds what is known of one company when an event is judged.
type State struct {
	CompanyID    string
	Company      *Company      // nil: not registered
	Subscription *Subscription // nil: none
	// Overrides are the limits that hold in place of the subscription's.
	Overrides Overrides
	// Config is the company's whole configuration, a JSON object.
	Config json.RawMessage
	// LastEffect is when an event of the cause's own topic last changed the company: no later effect of that topic is dated before it.
	// Zero: never.
	LastEffect time.Time
	// Queue is what waits to be applied to the company.
	Queue Queue
	// Partitions is how many subscription.events has; 0: not known.
	Partitions int
	// Books is what the paid period has cost and brought in: the present one, or the one that an expiry has ended.
	Books Books
	// Ahead is the money of the period that is recorded ahead.
	Ahead Ahead
	// Users is how many users the company has, suspended ones included. Set for events about users.
	Users int64
	// UserOf is the company of the user that the event names; empty: there is no such user.
	UserOf string
	// EmailTaken means that another user of the company has the email that the event names.
	EmailTaken bool
	// Payment is what is known of the payment that the event names; nil: nothing.
	Payment *Payment
	// Voided means that the usage that the event takes back is taken back already.
	Voided bool
	// SchemaVersion is the version of the company's tables, and NewestSchema the newest there is.
	SchemaVersion, NewestSchema int64
}

// A Company is a row of companies.
type Company struct {
	Name, BillingEmail, Currency, Status string
	CreatedAt                            time.Time
}

// A Queue describes the events of a company that wait in the inbox. They are applied in their order, and later events of the
// company queue behind them, whatever they wait for.
type Queue struct {
	Head int64 // the place of the first of them; 0: none waits
	Own  int64 // the place of the cause itself; 0: it does not wait
	// Blocked: the first of them was tried and can't be applied yet.
	Blocked bool
}

// Books is what a paid period has cost and brought in, in minor units.
type Books struct {
	Charged  int64
	Received int64    // of the payments that belong to the period
	Tiers    []string // those it was charged for
}

// Ahead is what is known of the money of a period before it begins.
type Ahead struct {
	Received int64 // of the payments that belong to it, or will when it begins, in minor units
	Failed   bool  // a payment that belongs to it has failed and was not named again since
}

// A Term is a tier and the period that it is held for: what an expiry ends, and what a reinstatement brings back.
type Term struct {
	Tier        string         `json:"tier"`
	PeriodStart time.Time      `json:"period_start"`
	PeriodEnd   time.Time      `json:"period_end"`
	Months      int            `json:"months"`
	PriceMinor  int64          `json:"price_minor"` // of a month, copied when the period began or the tier changed
	AnchorDay   int            `json:"anchor_day"`  // the day of the month on which periods begin; 0: that of PeriodStart
	Limits      tier.Limits    `json:"limits"`
	Benefits    map[string]any `json:"benefits,omitempty"`
	// PendingTier is what the company falls to at PendingAt, the end of its last recorded period; empty: it stays. CancelAtEnd: because it
	// has cancelled.
	PendingTier string     `json:"pending_tier,omitempty"`
	PendingAt   *time.Time `json:"pending_at,omitempty"`
	CancelAtEnd bool       `json:"cancel_at_end,omitempty"`
	// Failed: a payment of the period has failed, and not all of it has come since.
	Failed bool `json:"failed,omitempty"`
	// GraceUntil is when a subscription that is past due expires, and of one that has expired, when it would have.
	GraceUntil *time.Time `json:"grace_until,omitempty"`
}

// A Subscription is a row of subscriptions.
type Subscription struct {
	Term
	Status   string
	Currency string
	// RenewalUntil is when a paid period expires that was not renewed. Nil: it has no price, or is past due.
	RenewalUntil *time.Time
	// Renewal is the period that was recorded ahead; nil: none.
	Renewal *Renewal
	// Expired is what an expiry has ended; nil: none has, or it can't come back.
	Expired *Term
	// ClosedAt is when it ended with its company; nil: it has not. Its tier and period stay.
	ClosedAt *time.Time
	// ClosedIn are the partitions that its closing was read in, where no other event was read before. Empty: it ended for the events of all.
	ClosedIn []int
	// Partition is the one of the subscription topic that decides about the company; nil: none yet.
	Partition *int
}

// A Renewal is a period that begins at its start.
type Renewal struct {
	Start  time.Time `json:"-"`
	End    time.Time `json:"-"`
	Months int       `json:"months"`
	// Tier is what the company falls to when the period begins, after something else was scheduled for its end; empty: see PendingTier.
	Tier      string `json:"tier,omitempty"`
	PaymentID string `json:"payment_id,omitempty"`
	// Payment is the whole object that the renewal named; nil: none.
	Payment json.RawMessage `json:"payment,omitempty"`
	// RequestID and RequestSource are the identity of the event that recorded it.
	RequestID     string `json:"request_id"`
	RequestSource string `json:"request_source"`
}

// paid reports whether there is a period to be paid for.
func (t *Term) paid() bool { return t.PriceMinor > 0 }

// current is what the catalogue's rules look at.
func (s *State) current() tier.Current {
	t := &s.Subscription.Term
	current := tier.Current{Tier: t.Tier, PriceMinor: t.PriceMinor, PeriodStart: t.PeriodStart, PeriodEnd: t.PeriodEnd, Months: t.Months, AnchorDay: t.AnchorDay}
	if of := s.Subscription.Expired; of == nil || of.PeriodStart.Equal(t.PeriodStart) && of.PeriodEnd.Equal(t.PeriodEnd) {
		current.Charged = s.Books.Tiers // which are those of the period that has expired, if one has
	}
	return current
}

// anchor is the day of the month on which the term's periods begin.
func (t *Term) anchor() int {
	if t.AnchorDay != 0 {
		return t.AnchorDay
	}
	return t.PeriodStart.UTC().Day()
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
	TransactionID string // empty: it covers none
	// PeriodStart is the start of the period that it belongs to; nil: to none, yet.
	PeriodStart *time.Time
	Reason      string // why it failed
}

// A Transaction is a row of billing_transactions.
type Transaction struct {
	Type             string // upgrade, downgrade or renewal
	OldTier, NewTier string
	Adjustment       tier.Adjustment
	Payment          json.RawMessage // the payment object as it came, whole; nil: none
}

// A User is a person who comes to a company.
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
	// Payload is what Event.Payload gives.
	Payload any
	// Partition is the one of the event's topic that it came from, and Offset its place there.
	Partition int
	Offset    int64
	// Appended is when the broker took the event.
	Appended time.Time
	// Looked is what was found of the usage that the event takes back; nil: it was not looked up.
	Looked *UsageLookup
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
	Remove       string     // a user id
	Overrides    *Overrides // which the company has from now on; nil: the same
	Seat         bool       // decide again who is active and who is suspended, and give every user the tier
	ListUsers    bool       // Written.Users is wanted
	Migrate      *int64     // bring the tables to this version; 0: the newest
	Close        bool
	Purge        bool // with Close
	Undated      bool // later effects of the topic may be dated before it
	Silent       bool // with Subscription alone: nothing is published, and no record is kept
	Forget       bool // delete the subscription: the company is purged, and no event will change it
	Void         *Void
	Transaction  *Transaction
	Payment      *Payment // write it
	// Covers is a payment that is known already and pays for the transaction, if it still belongs to its period. Empty: none.
	Covers string
	// Release is the start of a period that will not be: what belongs to it and pays for no transaction belongs to no period any more. Nil: none.
	Release *time.Time
	// Adopt: payments received for the month in which the subscription's period begins belong to that period.
	Adopt bool

	// Action names the effect, for the history and the audit; Details are what the audit keeps: nothing of a person but
	// pseudonyms.
	Action  string
	Details map[string]any
	// Outputs makes the events that report the effect.
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

// suspended lists the users whom the decision has suspended.
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
	// Event is an event with an identity of its own, in place of Data; nil: it is a result of the cause.
	Event *events.Envelope
	// Partition is the one that the event is for; nil: that of the key.
	Partition *int
	// Everywhere: it is for every partition.
	Everywhere bool
	// Tombstone: no event, but the mark that there is none any more for the company.
	Tombstone bool
	// Void is the data of an event that takes usage back, in place of Data. Its id follows from it.
	Void *events.UsageVoided
	// Key is the record's key, if it is not the company.
	Key string
}
