package business

import (
	"encoding/json"
	"time"

	"github.com/shopspring/decimal"

	"tenantflow/internal/analytics"
)

// Money is an amount in units of its currency.
type Money = analytics.Money

// A Ratio is a number with six decimals: a cost, or a cost for each unit of revenue.
type Ratio struct{ decimal.Decimal }

// String writes the number with its six decimals.
func (r Ratio) String() string { return r.StringFixed(6) }

// MarshalJSON writes the number with its six decimals.
func (r Ratio) MarshalJSON() ([]byte, error) { return []byte(r.String()), nil }

// A Report is the business metrics as of a time. A null has a reason beside it, in words.
type Report struct {
	ReportedAt   time.Time       `json:"reported_at"`
	Month        analytics.Month `json:"month"`         // the last whole one
	PresentMonth analytics.Month `json:"present_month"` // which is not over
	Tiers        []Tier          `json:"tiers"`
	ARPU         []ARPU          `json:"arpu"`
	Conversion   Conversion      `json:"conversion"`
	Lifetime     []Lifetime      `json:"lifetime_value"`
	Churn        Churn           `json:"churn"`
	Storage      Storage         `json:"storage_cost"`
	Latency      []Latency       `json:"query_latency"`
	Retention    Retention       `json:"retention_compliance"`
	Isolation    Isolation       `json:"isolation"`
	Health       Health          `json:"health"`
	Months       []Month         `json:"months"`   // with the present one, the oldest first; one for each currency
	Accuracy     json.RawMessage `json:"accuracy"` // of predictions; null: not measured
}

// A Tier is how many companies have a tier now.
type Tier struct {
	Tier      string `json:"subscription_tier"`
	Companies int    `json:"companies"`
	Known     bool   `json:"in_catalogue"`
}

// An ARPU is the charged revenue for each active user of a tier in one month.
type ARPU struct {
	Month    analytics.Month `json:"month"`
	Complete bool            `json:"complete"` // false: the month is not over
	Tier     string          `json:"subscription_tier"`
	Currency string          `json:"currency"`
	Average
}

// An Average is revenue by active users.
type Average struct {
	Revenue    Money                `json:"revenue"`
	Users      int64                `json:"active_users"`
	ARPU       *Money               `json:"arpu"` // nil: no user was active
	Attributed analytics.Attributed `json:"attributed_revenue"`
	Reason     string               `json:"reason,omitempty"`
}

// A Conversion is how many companies came to pay.
type Conversion struct {
	WindowDays int                   `json:"window_days"` // that a company has, from its registration on
	From       string                `json:"registered_from"`
	Until      string                `json:"registered_before"`
	ToTier     string                `json:"to_tier"`
	Companies  int                   `json:"companies"`
	Converted  int                   `json:"converted"`         // whose first paid tier within the window was ToTier
	ToPaid     int                   `json:"converted_to_paid"` // who had any paid tier within the window
	Percentage *analytics.Hundredths `json:"percentage"`
	Target     analytics.Hundredths  `json:"target"`
	Met        *bool                 `json:"met"`
	Reason     string                `json:"reason,omitempty"`
}

// A Lifetime is what a company of a tier brings in until it leaves.
type Lifetime struct {
	Tier          string                `json:"subscription_tier"`
	Currency      string                `json:"currency"`
	Months        int                   `json:"months"` // whole ones that it is taken over
	Revenue       Money                 `json:"revenue"`
	CompanyMonths int                   `json:"company_months"`
	Churned       int                   `json:"churned"`
	Monthly       *Money                `json:"revenue_per_company_month"`
	ChurnRate     *analytics.Hundredths `json:"churn_percentage"` // a month
	Value         *Money                `json:"value"`
	Reason        string                `json:"reason,omitempty"`
}

// Churn is how many companies left a tier in the last whole month.
type Churn struct {
	Month analytics.Month `json:"month"`
	Paid  ChurnRate       `json:"paid"` // all paid tiers together
	Tiers []TierChurn     `json:"tiers"`
}

// A TierChurn is the churn of one tier.
type TierChurn struct {
	Tier string `json:"subscription_tier"`
	ChurnRate
}

// A ChurnRate is the share of companies that left.
type ChurnRate struct {
	AtStart    int                   `json:"companies_at_start"`
	Churned    int                   `json:"churned"`
	Percentage *analytics.Hundredths `json:"percentage"`
	Target     *analytics.Hundredths `json:"target"` // nil: of companies that pay nothing there is none
	Met        *bool                 `json:"met"`
	Reason     string                `json:"reason,omitempty"`
}

// Storage is what the stored data costs.
type Storage struct {
	Currency    string        `json:"currency"`
	PriceMinor  *int64        `json:"price_minor"` // of a GB and month; nil: not set
	NotMeasured int           `json:"companies_not_measured"`
	Total       StorageShare  `json:"total"`
	Tiers       []TierStorage `json:"tiers"`
	Reason      string        `json:"reason,omitempty"`
}

// A TierStorage is the part of a tier's companies in it.
type TierStorage struct {
	Tier *string `json:"subscription_tier"` // nil: of companies that have none, as they are closed
	StorageShare
}

// A StorageShare is what is stored, and its cost.
type StorageShare struct {
	Companies  int    `json:"companies"`
	Postgres   int64  `json:"postgres_bytes"`
	ClickHouse int64  `json:"clickhouse_bytes"`
	Cost       *Ratio `json:"monthly_cost"`
	Revenue    Money  `json:"revenue"` // charged in the last whole month
	PerRevenue *Ratio `json:"cost_per_revenue"`
}

// A Latency is how long queries about companies of a tier took.
type Latency struct {
	Tier   string                `json:"subscription_tier"`
	P95    *analytics.Hundredths `json:"p95_ms"`
	Target analytics.Hundredths  `json:"target_ms"`
	Met    *bool                 `json:"met"`
	Sampled
	Routes []RouteLatency `json:"routes"`
	Reason string         `json:"reason,omitempty"`
}

// Sampled says what a latency comes from.
type Sampled struct {
	Samples int64 `json:"samples"`
	Queries int64 `json:"queries"` // that they stand for
}

// A RouteLatency is the latency of one route.
type RouteLatency struct {
	Route string                `json:"route"`
	P95   *analytics.Hundredths `json:"p95_ms"` // nil: too few samples
	Sampled
}

// Retention is the share of companies that hold nothing longer than they may.
type Retention struct {
	Companies     int                   `json:"companies"` // that were measured
	Compliant     int                   `json:"compliant"`
	NotMeasured   int                   `json:"companies_not_measured"`
	ToleranceDays int                   `json:"tolerance_days"`
	Percentage    *analytics.Hundredths `json:"percentage"`
	Target        analytics.Hundredths  `json:"target"`
	Met           *bool                 `json:"met"`
	Reason        string                `json:"reason,omitempty"`
}

// Isolation is what looks across the borders between companies.
type Isolation struct {
	Leaks  int64   `json:"leaks"`
	Met    bool    `json:"met"`
	Covers string  `json:"covers"` // what was looked at
	Checks []Check `json:"checks"`
}

// A Check is one look.
type Check struct {
	Name    string `json:"name"`
	Checked int64  `json:"checked"`
	Leaks   int64  `json:"leaks"`
}

// Health is one number for the whole.
type Health struct {
	Score    *analytics.Hundredths `json:"score"`           // 0 to 100; nil: too little could be measured
	Measured int                   `json:"measured_weight"` // of the parts that the score is made of, of 100
	Parts    []HealthPart          `json:"parts"`
	Reason   string                `json:"reason,omitempty"`
}

// A HealthPart is a part of the score.
type HealthPart struct {
	Part   string                `json:"part"`
	Weight int                   `json:"weight"`
	Score  *analytics.Hundredths `json:"score"` // 0 to 100; nil: it is left out
	Reason string                `json:"reason,omitempty"`
}

// A Month is one month in one currency.
type Month struct {
	Month    analytics.Month `json:"month"`
	Complete bool            `json:"complete"`
	Currency string          `json:"currency"`
	MRR      Money           `json:"mrr"` // at its end
	Average
	Churn ChurnRate   `json:"churn"` // of companies that pay
	Tiers []MonthTier `json:"tiers"`
}

// A MonthTier is a tier in a month.
type MonthTier struct {
	Tier      string `json:"subscription_tier"`
	Companies int    `json:"companies"` // at its end
	MRR       Money  `json:"mrr"`
	Average
	Churn ChurnRate `json:"churn"`
}
