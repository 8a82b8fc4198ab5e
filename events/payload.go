package events

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"
)

// When a downgrade or a cancellation takes effect.
const (
	EffectivePeriodEnd = "period_end" // the default
	EffectiveImmediate = "immediate"
)

// UpgradeRequested is the data of subscription.upgrade_requested.v1.
type UpgradeRequested struct {
	CompanyID    string
	NewTier      string
	Payment      *Payment // nil when there is none
	ExpectedTier string   // "" when the company may have any tier
}

// A Payment says how something is paid.
type Payment struct {
	PaymentID string
	Method    string          // "" when it is not said
	All       json.RawMessage // the whole object, members this service does not know included
}

// DowngradeRequested is the data of subscription.downgrade_requested.v1.
type DowngradeRequested struct {
	CompanyID string
	NewTier   string
	Effective string // EffectivePeriodEnd or EffectiveImmediate
}

// CancelRequested is the data of subscription.cancel_requested.v1.
type CancelRequested struct {
	CompanyID string
	Effective string // EffectivePeriodEnd or EffectiveImmediate
}

// Renewed is the data of subscription.renewed.v1.
type Renewed struct {
	CompanyID   string
	PeriodStart time.Time
	PeriodEnd   time.Time // whether it is after PeriodStart is for the business rules
	Payment     *Payment
}

// Expired is the data of subscription.expired.v1.
type Expired struct {
	CompanyID string
	ExpiredAt time.Time // the event's time when it is not said
}

// PaymentReceived is the data of subscription.payment_received.v1.
type PaymentReceived struct {
	CompanyID     string
	PaymentID     string
	AmountMinor   int64 // integer minor units; may be anything, 0 and less included
	Currency      string
	PaidAt        time.Time
	Method        string
	BillingPeriod string // YYYY-MM, "" when it is not said
}

// PaymentFailed is the data of subscription.payment_failed.v1.
type PaymentFailed struct {
	CompanyID string
	PaymentID string
	Reason    string
}

// ChangeWithdrawn is the data of subscription.change_withdrawn.v1, as a request.
type ChangeWithdrawn struct {
	CompanyID string
}

// SubscriptionDue is the data of subscription.due.v1.
type SubscriptionDue struct {
	CompanyID string
	Kind      string
	DueAt     time.Time
}

// CompanyRegistered is the data of company.registered.v1.
type CompanyRegistered struct {
	CompanyID    string
	Name         string
	BillingEmail string
	Currency     string // USD when it is not said
	InitialUser  InitialUser
	Config       json.RawMessage // an object, nil when there is none
}

// InitialUser is the first user of a company.
type InitialUser struct {
	UserID string
	Email  string
}

// ConfigUpdated is the data of company.config_updated.v1.
type ConfigUpdated struct {
	CompanyID string
	Config    json.RawMessage // a JSON merge patch (RFC 7396), an object
}

// UserAdded is the data of company.user_added.v1.
type UserAdded struct {
	CompanyID string
	UserID    string
	Email     string
}

// UserRemoved is the data of company.user_removed.v1.
type UserRemoved struct {
	CompanyID string
	UserID    string
}

// UserErasureRequested is the data of company.user_erasure_requested.v1.
type UserErasureRequested struct {
	CompanyID string
	UserID    string
}

// SchemaUpgradeRequested is the data of company.schema_upgrade_requested.v1.
type SchemaUpgradeRequested struct {
	CompanyID     string
	TargetVersion int64 // 0 for the newest
}

// CompanyClosed is the data of company.closed.v1.
type CompanyClosed struct {
	CompanyID string
	Purge     bool
	Reason    string
}

// Payload gives the data of a subscription or company event as a pointer to the struct of its type: *UpgradeRequested,
// *CompanyRegistered and so on. Defaults are filled in, times are UTC, integers are exact even where they were written
// as 49e2. The error is for types without such a struct; data that a Decoder has accepted has no others.
//
// Members are taken by their exact names. (encoding/json would take COMPANY_ID for company_id as well, behind the back of
// the schema and of the check of the key.)
func (e *Event) Payload() (any, error) {
	data, rejection := parseData(e.Data)
	if rejection != nil {
		return nil, fmt.Errorf("take the payload out of event %s: %w", quoted(e.ID), rejection)
	}
	m, _ := data.(map[string]any)
	o := object(m)
	company := o.text("company_id")
	switch e.Type {
	case TypeUpgradeRequested:
		payment, err := o.payment()
		return &UpgradeRequested{company, o.text("new_tier"), payment, o.text("expected_tier")}, err
	case TypeDowngradeRequested:
		return &DowngradeRequested{company, o.text("new_tier"), o.textOr("effective", EffectivePeriodEnd)}, nil
	case TypeCancelRequested:
		return &CancelRequested{company, o.textOr("effective", EffectivePeriodEnd)}, nil
	case TypeRenewed:
		payment, err := o.payment()
		return &Renewed{company, o.time("period_start", e.Time), o.time("period_end", e.Time), payment}, err
	case TypeExpired:
		return &Expired{company, o.time("expired_at", e.Time)}, nil
	case TypePaymentReceived:
		return &PaymentReceived{company, o.text("payment_id"), o.integer("amount_minor"), o.text("currency"),
			o.time("paid_at", e.Time), o.text("method"), o.text("billing_period")}, nil
	case TypePaymentFailed:
		return &PaymentFailed{company, o.text("payment_id"), o.text("reason")}, nil
	case TypeChangeWithdrawn:
		return &ChangeWithdrawn{company}, nil
	case TypeSubscriptionDue:
		return &SubscriptionDue{company, o.text("kind"), o.time("due_at", e.Time)}, nil
	case TypeCompanyRegistered:
		user := o.object("initial_user")
		config, err := o.object("config").raw()
		return &CompanyRegistered{company, o.text("name"), o.text("billing_email"), o.textOr("currency", "USD"),
			InitialUser{user.text("user_id"), user.text("email")}, config}, err
	case TypeConfigUpdated:
		config, err := o.object("config").raw()
		return &ConfigUpdated{company, config}, err
	case TypeUserAdded:
		return &UserAdded{company, o.text("user_id"), o.text("email")}, nil
	case TypeUserRemoved:
		return &UserRemoved{company, o.text("user_id")}, nil
	case TypeUserErasureRequested:
		return &UserErasureRequested{company, o.text("user_id")}, nil
	case TypeSchemaUpgradeRequested:
		return &SchemaUpgradeRequested{company, o.integer("target_version")}, nil
	case TypeLimitsOverridden:
		return o.limitsOverridden(company, e.Time), nil
	case TypeCompanyDue:
		return &CompanyDue{company, o.text("kind"), o.text("name"), o.time("due_at", e.Time)}, nil
	case TypeUsageVoidRequested:
		return o.voidRequest(company, e.Time), nil
	case TypeCompanyClosed:
		purge, _ := o["purge"].(bool)
		return &CompanyClosed{company, purge, o.text("reason")}, nil
	}
	return nil, fmt.Errorf("take the payload out of event %s: type %s has none", quoted(e.ID), quoted(e.Type))
}

// An object is a JSON object that its schema has accepted: a member is absent or of the right type.
type object map[string]any

func (o object) text(name string) string { return o.textOr(name, "") }

func (o object) textOr(name, otherwise string) string {
	if s, ok := o[name].(string); ok {
		return s
	}
	return otherwise
}

func (o object) integer(name string) int64 {
	n, ok := o[name].(json.Number)
	if !ok {
		return 0
	}
	if n[0] == '-' {
		value, _, _ := fixedPoint([]byte(n[1:]), 0)
		return -value
	}
	value, _, _ := fixedPoint([]byte(n), 0)
	return value
}

func (o object) time(name string, otherwise time.Time) time.Time {
	if s, ok := o[name].(string); ok {
		if t, ok := parseTime([]byte(s)); ok {
			return t
		}
	}
	return otherwise
}

func (o object) object(name string) object {
	m, _ := o[name].(map[string]any)
	return m
}

func (o object) payment() (*Payment, error) {
	p := o.object("payment")
	if p == nil {
		return nil, nil
	}
	all, err := p.raw()
	return &Payment{PaymentID: p.text("payment_id"), Method: p.text("method"), All: all}, err
}

// raw gives the object as JSON, nil for none. Numbers keep their text.
func (o object) raw() (json.RawMessage, error) {
	if o == nil {
		return nil, nil
	}
	text, err := json.Marshal(map[string]any(o))
	if err != nil {
		return nil, fmt.Errorf("write an object of the data: %w", err)
	}
	return text, nil
}

// UserID is the user that the event's data names, for a registration the initial one; empty: it names none, or can't be read.
func (e *Event) UserID() string {
	var data struct {
		UserID  string `json:"user_id"`
		Initial struct {
			UserID string `json:"user_id"`
		} `json:"initial_user"`
	}
	if json.Unmarshal(e.Data, &data) != nil {
		return ""
	}
	return cmp.Or(data.UserID, data.Initial.UserID)
}
