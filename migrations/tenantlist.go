package migrations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A Tenant is one company as a list shows it.
type Tenant struct {
	CompanyID string `json:"company_id"`
	Name      string `json:"name"`
	Status    string `json:"status"` // of the company: active, closed, purged
	// Tier and SubscriptionStatus are empty where there is no subscription.
	Tier               string `json:"tier,omitempty"`
	SubscriptionStatus string `json:"subscription_status,omitempty"`
	Users              int64  `json:"users"`
	// Version is that of its tables; 0: it has no schema.
	Version int64 `json:"schema_version"`
	// Size of the schema in bytes, if it was asked for. Nil, too, if it can't be read now: a session holds a table, or one is damaged.
	Size *int64 `json:"size_bytes,omitempty" db:"-"`
}

// sizeLockTimeout is how long a company's size may wait for a session that holds one of its tables.
const sizeLockTimeout = "200ms"

// readSizes reads the sizes of companies' schemas, each alone: one that is held or damaged has none, and the others do.
func readSizes(ctx context.Context, conn *pgx.Conn, all ...*Tenant) error {
	for _, t := range all {
		var size int64
		batch := &pgx.Batch{} // one transaction
		batch.Queue("SELECT set_config('lock_timeout', $1, true)", sizeLockTimeout)
		batch.Queue("SELECT public.tenant_size($1)", t.CompanyID).QueryRow(func(row pgx.Row) error { return row.Scan(&size) })
		err := conn.SendBatch(ctx, batch).Close()
		var sent *pgconn.PgError
		switch {
		case err == nil:
			t.Size = &size
		case !conn.IsClosed() && errors.As(err, &sent) && (sent.Code == lockNotAvailable || sent.Code == ioError || strings.HasPrefix(sent.Code, "XX")):
		default:
			return fmt.Errorf("read the size of company %s: %w", t.CompanyID, err)
		}
	}
	return nil
}

// SQLSTATEs of one company's tables. Source: PostgreSQL's documentation, appendix A.
const (
	lockNotAvailable = "55P03"
	ioError          = "58030"
)

// Tenants lists companies by their id, at most limit of those after a given id. To find sizes takes about a millisecond
// a company.
func (p *Postgres) Tenants(ctx context.Context, after string, limit int, sizes bool) (all []Tenant, err error) {
	err = p.onConn(ctx, func(conn *pgx.Conn) error {
		if all, err = collect[Tenant](ctx, conn, query("tenants"), after, limit); err != nil || !sizes {
			return err
		}
		listed := make([]*Tenant, len(all))
		for i := range all {
			listed[i] = &all[i]
		}
		return readSizes(ctx, conn, listed...)
	})
	if err != nil {
		return nil, fmt.Errorf("list the companies of Postgres database %q: %w", p.database, err)
	}
	return all, nil
}

// TenantDetails is one company whole. What there is not is null.
type TenantDetails struct {
	Tenant
	BillingEmail   string          `json:"billing_email"`
	Currency       string          `json:"currency"`
	CreatedAt      time.Time       `json:"created_at"`
	ClosedAt       *time.Time      `json:"closed_at"`
	SuspendedUsers int64           `json:"suspended_users"`
	PeriodStart    *time.Time      `json:"period_start"`
	PeriodEnd      *time.Time      `json:"period_end"`
	PriceMinor     *int64          `json:"price_minor"` // of the period, in minor units of Currency
	PendingTier    *string         `json:"pending_tier"`
	DueAt          *time.Time      `json:"due_at"`
	Limits         json.RawMessage `json:"limits"`    // that hold
	Overrides      []LimitOverride `json:"overrides"` // in place of the tier's limits
	Schema         *string         `json:"database_schema"`
	AuditSeq       *int64          `json:"audit_seq"`      // of the last row of its audit log
	LastEffectAt   *time.Time      `json:"last_effect_at"` // the time of its last event
	// Blocked is why the company can't go on; nil: it can.
	Blocked *TenantBlock `json:"blocked"`
	// Waiting is how many events are set aside until it can, and Faulty how many rows of the inbox wait for a person.
	Waiting int64 `json:"events_waiting"`
	Faulty  int64 `json:"events_faulty"`
}

// A LimitOverride is a limit of a company that holds in place of its tier's.
type LimitOverride struct {
	Limit     string          `json:"limit_name"`
	Value     json.RawMessage `json:"value"` // a number, or "unlimited"
	Reason    string          `json:"reason"`
	SetAt     time.Time       `json:"set_at"`
	ExpiresAt *time.Time      `json:"expires_at"` // nil: another event ends it
}

// A TenantBlock is why a company can't go on.
type TenantBlock struct {
	Reason    string    `json:"reason"` // lock, state, schema or storage
	Detail    string    `json:"detail"`
	BlockedBy *string   `json:"blocked_by"` // the sessions that hold a lock
	Since     time.Time `json:"since"`
}

// ErrNoCompany is returned for a company that is not known.
var ErrNoCompany = errors.New("there is no such company")

// Tenant reads one company.
func (p *Postgres) Tenant(ctx context.Context, companyID string) (*TenantDetails, error) {
	var t TenantDetails
	err := p.onConn(ctx, func(conn *pgx.Conn) (err error) {
		if t, err = collectOne[TenantDetails](ctx, conn, query("tenant"), companyID); err != nil {
			return err
		}
		return readSizes(ctx, conn, &t.Tenant)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNoCompany
	}
	if err != nil {
		return nil, fmt.Errorf("read company %q of Postgres database %q: %w", companyID, p.database, err)
	}
	if t.Blocked != nil {
		t.Blocked.Since = t.Blocked.Since.UTC()
	}
	for _, at := range []*time.Time{&t.CreatedAt, t.ClosedAt, t.PeriodStart, t.PeriodEnd, t.DueAt, t.LastEffectAt} {
		if at != nil {
			*at = at.UTC()
		}
	}
	return &t, nil
}
