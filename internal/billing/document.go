package billing

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"tenantflow/internal/analytics"
)

// The states of a period.
const (
	Open   = "open"   // it is not over
	Draft  = "draft"  // it is over, and not closed: the numbers may change
	Closed = "closed" // its export is stored and never changes
)

// Amounts are sums over usage rows, each with its sign.
type Amounts struct {
	Calls      int64                `json:"calls"`
	DataPoints int64                `json:"data_points"`
	Attributed analytics.Attributed `json:"attributed_revenue"`
}

func (a Amounts) plus(b Amounts) Amounts {
	return Amounts{a.Calls + b.Calls, a.DataPoints + b.DataPoints, analytics.Attributed{Decimal: a.Attributed.Add(b.Attributed.Decimal)}}
}

func (a Amounts) minus(b Amounts) Amounts {
	return Amounts{a.Calls - b.Calls, a.DataPoints - b.DataPoints, analytics.Attributed{Decimal: a.Attributed.Sub(b.Attributed.Decimal)}}
}

func (a Amounts) equal(b Amounts) bool {
	return a.Calls == b.Calls && a.DataPoints == b.DataPoints && a.Attributed.Equal(b.Attributed.Decimal)
}

func (a Amounts) zero() bool { return a.equal(Amounts{}) }

// A Document is an export.
type Document struct {
	ExportID       string         `json:"export_id,omitempty"` // of a closed one
	CompanyID      string         `json:"company_id"`
	Period         string         `json:"billing_period"`
	Revision       int            `json:"revision"` // of a closed one 1
	State          string         `json:"state"`
	GeneratedAt    time.Time      `json:"generated_at"`
	TimeZone       string         `json:"time_zone"`
	PeriodStart    time.Time      `json:"period_start"`
	PeriodEnd      time.Time      `json:"period_end"`
	Currency       string         `json:"currency"`
	AsOf           AsOf           `json:"as_of"`
	Charges        []Charge       `json:"charges"`
	Payments       []Payment      `json:"payments"`
	Usage          []UsageLine    `json:"usage"`
	Mismatched     []UsageLine    `json:"mismatched_usage"`
	Corrections    []Correction   `json:"corrections"`
	Totals         Totals         `json:"totals"`
	Reconciliation Reconciliation `json:"reconciliation"`
	NotExported    []PeriodUsage  `json:"not_exported"`
	LeavesOut      []string       `json:"leaves_out"`
}

// A Charge is what a period of the subscription costs, or the rest of one after a change of tier.
type Charge struct {
	TransactionID string          `json:"transaction_id"`
	Kind          string          `json:"kind"` // charge or proration
	Type          string          `json:"transaction_type"`
	OldTier       string          `json:"old_tier,omitempty"`
	NewTier       string          `json:"new_tier,omitempty"`
	Amount        analytics.Money `json:"amount"`
	Currency      string          `json:"currency"`
	Lines         []Line          `json:"lines"`
	PeriodStart   *time.Time      `json:"period_start,omitempty"`
	PeriodEnd     *time.Time      `json:"period_end,omitempty"`
	At            time.Time       `json:"created_at"`
	Corrects      string          `json:"corrects_period,omitempty"` // the period it belongs to: a closed one, or one of before the registration
	Cause         Cause           `json:"cause,omitempty"`
}

// A Line is a part of a charge.
type Line struct {
	Description string          `json:"description"`
	Amount      analytics.Money `json:"amount"`
}

// A Payment was received, or has failed.
type Payment struct {
	PaymentID     string           `json:"payment_id"`
	Status        string           `json:"status"`
	Amount        *analytics.Money `json:"amount"` // nil: not known, as of some that failed
	Currency      string           `json:"currency,omitempty"`
	Method        string           `json:"method,omitempty"`
	TransactionID string           `json:"transaction_id,omitempty"`
	At            time.Time        `json:"paid_at"`
	Corrects      string           `json:"corrects_period,omitempty"`
	Cause         Cause            `json:"cause,omitempty"`
}

// A UsageLine is the usage of a user with one tier and service.
type UsageLine struct {
	UserID  string `json:"user_id"`
	Tier    string `json:"subscription_tier"`
	Service string `json:"service_name"`
	Amounts
}

// A Cause says why something belongs to a period that was closed without it.
type Cause string

// The causes of corrections.
const (
	Voided      Cause = "voided"       // usage that was taken back since
	Late        Cause = "late"         // usage whose event stands behind the position of the export before
	Repaired    Cause = "repaired"     // rows that came or went at positions that were exported: lost, brought back, doubled, judged otherwise
	LateCharge  Cause = "late_charge"  // a transaction that was recorded since
	LatePayment Cause = "late_payment" // a payment that was recorded since
)

// A Correction is what has changed of the usage of a closed period.
type Correction struct {
	Period     string `json:"billing_period"`
	Cause      Cause  `json:"cause"`
	Mismatched bool   `json:"mismatched"`
	Identities int64  `json:"identities"` // events
	Amounts
}

// Totals are the sums of an export.
type Totals struct {
	Usage                 Amounts `json:"usage"`
	Mismatched            Amounts `json:"mismatched_usage"`
	Corrections           Amounts `json:"corrections"`
	MismatchedCorrections Amounts `json:"mismatched_corrections"`
	Charged               []Sum   `json:"charged"`
	Received              []Sum   `json:"received"`
}

// A Sum is money in one currency.
type Sum struct {
	Currency string          `json:"currency"`
	Amount   analytics.Money `json:"amount"`
}

// Reconciliation compares an export with both tables of ClickHouse.
type Reconciliation struct {
	RawRows    Amounts `json:"raw_rows"`    // all rows of the period
	Aggregates Amounts `json:"aggregates"`  // billing_monthly
	Export     Amounts `json:"export"`      // rows up to the position of the export, mismatched ones included
	Behind     Amounts `json:"after_as_of"` // rows that stand behind it
	Equal      bool    `json:"equal"`       // raw rows = aggregates = export + rows behind it
}

// PeriodUsage is usage of a period before the exported one for which no export is closed.
type PeriodUsage struct {
	Period string `json:"billing_period"`
	Amounts
}

// encode writes a value as JSON, with a line feed behind it.
func encode(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return nil, fmt.Errorf("write a billing export: %w", err)
	}
	return b.Bytes(), nil
}
