package tenant

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tier"
)

// Codes of a refusal, beside those of package tier.
const (
	TierChanged         = "tier_changed"
	UnknownCompany      = "unknown_company"
	CompanyExists       = "company_exists"
	CompanyClosed       = "company_closed"
	UserExists          = "user_exists"
	UserLimitReached    = "user_limit_reached"
	UnknownUser         = "unknown_user"
	InvalidConfig       = "invalid_config"
	DuplicatePayment    = "duplicate_payment"
	InvalidAmount       = "invalid_amount"
	UnsupportedCurrency = "unsupported_currency"
	CurrencyMismatch    = "currency_mismatch"
	InvalidPeriod       = "invalid_period"
	NotExpired          = "not_expired"
	NothingScheduled    = "nothing_scheduled"
	NothingToRenew      = "nothing_to_renew"
	SchemaFault         = "schema_fault"   // the company's own schema or role stands in the way
	InvalidVersion      = "invalid_config" // of a schema: there is no code of its own
)

// Config is what the rules depend on.
type Config struct {
	Catalogue *tier.Catalogue
	// RenewalGrace is how long a paid period that has ended waits for its renewal, 0 to MaxRenewalGrace. It holds for periods that
	// begin from then on. Default: DefaultRenewalGrace; below 0: none.
	RenewalGrace time.Duration
	// VoidWindow is how old usage may be at most, by the time of the request, to be taken back. Default: DefaultVoidWindow.
	VoidWindow time.Duration
}

// Rules judge events by a catalogue of tiers. They may be used by several goroutines at once.
type Rules struct {
	catalogue    *tier.Catalogue
	renewalGrace time.Duration
	voidWindow   time.Duration
}

// New returns rules.
func New(config Config) *Rules {
	if config.RenewalGrace == 0 {
		config.RenewalGrace = DefaultRenewalGrace
	}
	return &Rules{catalogue: config.Catalogue, renewalGrace: min(max(0, config.RenewalGrace.Truncate(time.Microsecond)), MaxRenewalGrace),
		voidWindow: cmp.Or(config.VoidWindow, DefaultVoidWindow)}
}

// Decide says what an event does to a company. The company is registered, unless the event registers it. The error means that
// the state can't be understood, which is a fault and not the event's.
func (r *Rules) Decide(s *State, c *Cause) (*Decision, error) {
	d := &Decision{At: EffectTime(s, c.Event.Time)}
	if registered, ok := c.Payload.(*events.CompanyRegistered); ok {
		return r.register(d, s, registered)
	}
	if !moves(c.Payload) {
		return r.decideCompany(d, s, c)
	}
	switch {
	case s.closed(c.Partition):
		return d.refuse(CompanyClosed, "the company is closed"), nil
	case s.Subscription == nil:
		return nil, fmt.Errorf("company %s has no subscription; insert its row into public.subscriptions", s.CompanyID)
	}
	d, err := r.decideSubscription(d, s, c)
	if err == nil && s.Company.Status == Purged {
		d.ofPurged()
	}
	return d, err
}

// decideCompany decides an event of company.events.
func (r *Rules) decideCompany(d *Decision, s *State, c *Cause) (*Decision, error) {
	if closing, ok := c.Payload.(*events.CompanyClosed); ok && closing.Purge && s.Company.Status == Closed {
		return r.closeCompany(d, s, closing), nil // what was kept is not to be kept any longer
	}
	if p, ok := c.Payload.(*events.UsageVoidRequested); ok && c.Looked != nil {
		return r.void(s, c, p), nil
	}
	if s.Company.Status != Active {
		return d.refuse(CompanyClosed, "the company is closed"), nil
	}
	switch p := c.Payload.(type) {
	case *events.ConfigUpdated:
		return r.updateConfig(d, s, p)
	case *events.UserAdded:
		return r.addUser(d, s, p), nil
	case *events.UserRemoved:
		return r.removeUser(d, s, p), nil
	case *events.UserErasureRequested:
		d.Held = true
		return d, nil
	case *events.SchemaUpgradeRequested:
		return r.upgradeSchema(d, s, p), nil
	case *events.LimitsOverridden:
		return r.override(d, s, p)
	case *events.CompanyDue:
		return r.endOverride(d, s, c, p)
	case *events.UsageVoidRequested:
		return r.requestVoid(d, s, c, p), nil
	case *events.CompanyClosed:
		return r.closeCompany(d, s, p), nil
	}
	return nil, fmt.Errorf("no rule for an event of type %s", c.Event.Type)
}

// decideSubscription decides an event of subscription.events.
func (r *Rules) decideSubscription(d *Decision, s *State, c *Cause) (*Decision, error) {
	next := *s.Subscription
	next.Partition = &c.Partition
	if named, isDue := NamedDue(c.Payload); !isDue || named.Kind != DueClosing {
		next.reopen()
	}
	switch p := c.Payload.(type) {
	case *events.UpgradeRequested:
		return r.upgrade(d, s, &next, p)
	case *events.DowngradeRequested:
		return r.downgrade(d, s, &next, p)
	case *events.CancelRequested:
		return r.cancel(d, s, &next, p)
	case *events.Renewed:
		return r.renew(d, s, &next, c.Event, p)
	case *events.ChangeWithdrawn:
		return r.withdraw(d, s, &next), nil
	case *events.Expired:
		return r.expired(d, s, &next, c.Event.Time, p)
	case *events.PaymentReceived:
		return r.receivePayment(d, s, &next, c.Event.Time, p)
	case *events.PaymentFailed:
		return r.failPayment(d, s, &next, p), nil
	case *events.SubscriptionDue:
		return r.happen(d, s, &next, c, p)
	}
	return nil, fmt.Errorf("no rule for an event of type %s", c.Event.Type)
}

func (d *Decision) refuse(code, format string, args ...any) *Decision {
	return &Decision{At: d.At, Refused: &tier.Refusal{Code: code, Message: fmt.Sprintf(format, args...)}}
}

// Pseudonym stands for a user in the audit log: the same for the same user of the same company, without the user's name.
func Pseudonym(company, user string) string {
	sum := sha256.Sum256([]byte(company + "\n" + user))
	return "user-" + hex.EncodeToString(sum[:12])
}

// stamp writes a time as events do.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
