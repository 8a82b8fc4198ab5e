package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/directory"
	"tenantflow/internal/tier"
)

var (
	//go:embed queries/billing_books.sql
	billingBooksSQL string
	//go:embed queries/billing_export.sql
	billingExportSQL string
	//go:embed queries/billing_unpublished.sql
	billingUnpublishedSQL string
	//go:embed queries/billing_companies.sql
	billingCompaniesSQL string
	//go:embed queries/billing_put.sql
	billingPutSQL string
	//go:embed queries/billing_items_put.sql
	billingItemsPutSQL string
	//go:embed queries/billing_reported_put.sql
	billingReportedPutSQL string
	//go:embed queries/billing_foreign.sql
	billingForeignSQL string
)

// A BillingExport is a closed export, as it is stored.
type BillingExport struct {
	ExportID      string
	CompanyID     string
	BillingPeriod string // YYYY-MM
	Revision      int
	State         string
	AsOf          json.RawMessage
	Checksum      string // SHA-256 of ContentJSON, in hexadecimal digits
	CSVChecksum   string `db:"csv_checksum"`
	Currency      string
	Totals        json.RawMessage
	Reconciled    bool
	CreatedAt     time.Time
	PublishedAt   *time.Time
	ContentJSON   []byte `db:"content_json"` // both empty where the export was listed
	ContentCSV    []byte `db:"content_csv"`
}

// BillingBooks is what an export has of the books, as of one moment.
type BillingBooks struct {
	Currency   string
	Status     string
	CreatedAt  time.Time
	ClosedAt   *time.Time
	Now        time.Time         // by Postgres' clock
	LastExport string            // the id of the company's last export; empty: it has none
	LastAsOf   *json.RawMessage  `db:"last_as_of"` // of that export
	Closed     []string          // the periods that are closed, sorted
	Reported   []BillingReported // what closed exports have reported of usage
	Charges    []BillingCharge   // that are in no export yet: of the period, of closed ones, and of those before the company was registered
	Payments   []BillingPayment  // likewise
}

// A BillingReported is what closed exports have reported of the usage of a period.
type BillingReported struct {
	Period     string `json:"period"`
	Month      int    `json:"month"` // of the timestamps, as YYYYMM
	Mismatched bool   `json:"mismatched"`
	Calls      int64  `json:"calls"`
	DataPoints int64  `json:"data_points"`
	Attributed string `json:"attributed"` // decimal
}

// A BillingCharge is a transaction.
type BillingCharge struct {
	TransactionID string      `json:"transaction_id"`
	Type          string      `json:"transaction_type"`
	OldTier       string      `json:"old_tier"`
	NewTier       string      `json:"new_tier"`
	AmountMinor   int64       `json:"amount_minor"`
	Currency      string      `json:"currency"`
	Lines         []tier.Line `json:"lines"`
	PeriodStart   *time.Time  `json:"period_start"`
	PeriodEnd     *time.Time  `json:"period_end"`
	CreatedAt     time.Time   `json:"created_at"`
	Month         string      `json:"month"` // YYYY-MM that its period begins in
}

// A BillingPayment is a payment that was received or has failed.
type BillingPayment struct {
	PaymentID     string    `json:"payment_id"`
	Status        string    `json:"status"`
	AmountMinor   *int64    `json:"amount_minor"` // nil: not known
	Currency      string    `json:"currency"`
	Method        string    `json:"method"`
	TransactionID string    `json:"transaction_id"`
	At            time.Time `json:"at"`
	Month         string    `json:"month"` // YYYY-MM that it was paid in
}

// A BillingItem is a transaction or payment of an export.
type BillingItem struct{ Kind, ID string }

// A BillingClosing is what is stored with a closed export.
type BillingClosing struct {
	Export   BillingExport
	Items    []BillingItem
	Reported []BillingReported // in place of what was there of these periods, months and kinds
}

// ErrBillingMoved is the error of a closing that another one of the company came before: what it rests on holds no more.
var ErrBillingMoved = errors.New("another export of the company was closed meanwhile")

// BillingExport returns the closed export of a company and a period; nil: there is none.
func (s *Store) BillingExport(ctx context.Context, company, period string) (*BillingExport, error) {
	found, err := collectOne(ctx, s, "read a billing export", pgx.RowToStructByName[BillingExport], billingExportSQL, company, period)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return &found, err
}

// BillingBooks returns what an export of a company and a period has of the books. Of a company that is not known the error is
// directory.ErrUnknown; one that was purged has its books.
func (s *Store) BillingBooks(ctx context.Context, company, period string) (*BillingBooks, error) {
	found, err := collectOne(ctx, s, "read the books of a billing export", pgx.RowToStructByName[BillingBooks], billingBooksSQL, company, period)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("read the books of company %q: %w", company, directory.ErrUnknown)
	}
	return &found, err
}

// CloseBilling stores the export of a company and a period, once: it returns the one that is there, if there is one. Under the lock of the company it
// reads the books and has build make the export of them. What build knows besides must rest on last being the company's last
// export, else the error is ErrBillingMoved.
func (s *Store) CloseBilling(ctx context.Context, company, period, last string, build func(*BillingBooks) (*BillingClosing, error)) (*BillingExport, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var export *BillingExport
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT public.lock_company($1)", company); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, billingExportSQL, company, period) // its error comes with the rows
		there, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[BillingExport])
		if err == nil {
			export = &there
			return nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		rows, _ = tx.Query(ctx, billingBooksSQL, company, period)
		books, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[BillingBooks])
		if err != nil {
			return err
		}
		if books.LastExport != last {
			return ErrBillingMoved
		}
		closing, err := build(&books)
		if err != nil {
			return err
		}
		export = &closing.Export
		return tx.SendBatch(ctx, closing.batch()).Close()
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("close period %s of company %q: %w", period, company, directory.ErrUnknown)
	case err != nil:
		return nil, s.explain(fmt.Sprintf("close period %s of company %s", period, company), err)
	}
	return export, nil
}

// batch writes all of a closing.
func (c *BillingClosing) batch() *pgx.Batch {
	e := &c.Export
	b := &pgx.Batch{}
	b.Queue(billingPutSQL, e.ExportID, e.CompanyID, e.BillingPeriod, e.AsOf, e.Checksum, e.CSVChecksum, e.Currency, e.Totals, e.Reconciled, e.ContentJSON,
		e.ContentCSV, e.CreatedAt)
	if len(c.Items) > 0 {
		kinds, ids := make([]string, len(c.Items)), make([]string, len(c.Items))
		for i, item := range c.Items {
			kinds[i], ids[i] = item.Kind, item.ID
		}
		b.Queue(billingItemsPutSQL, e.ExportID, kinds, ids)
	}
	if n := len(c.Reported); n > 0 {
		periods, months, mismatched, calls, points, revenue := make([]string, n), make([]int, n), make([]bool, n), make([]int64, n), make([]int64, n), make([]string, n)
		for i, r := range c.Reported {
			periods[i], months[i], mismatched[i], calls[i], points[i], revenue[i] = r.Period, r.Month, r.Mismatched, r.Calls, r.DataPoints, r.Attributed
		}
		b.Queue(billingReportedPutSQL, e.CompanyID, periods, months, mismatched, calls, points, revenue)
	}
	return b
}

// UnpublishedBilling returns up to limit closed exports that may not have been announced, the oldest first, without their bytes.
func (s *Store) UnpublishedBilling(ctx context.Context, limit int) ([]BillingExport, error) {
	return collect(ctx, s, "look for billing exports to announce", pgx.RowToStructByName[BillingExport], billingUnpublishedSQL, limit)
}

// MarkBillingPublished notes that exports were announced.
func (s *Store) MarkBillingPublished(ctx context.Context, ids []string) error {
	_, err := s.exec(ctx, "note that billing exports were announced",
		"UPDATE public.billing_exports SET published_at = statement_timestamp() WHERE export_id = ANY ($1) AND published_at IS NULL", ids)
	return err
}

// A BillingCompany is a company that was there in a period.
type BillingCompany struct {
	CompanyID string
	Closed    bool // the period is closed for it
	Ended     bool // it was closed before the period: an export is needed only for what came late
}

// BillingCompanies returns up to limit companies behind one, in the order of their ids, which were there in a period from one time to another, or had ended no more
// than three months before. Purged ones are among them.
func (s *Store) BillingCompanies(ctx context.Context, after string, from, to time.Time, limit int) ([]BillingCompany, error) {
	return collect(ctx, s, "list the companies of a billing period", pgx.RowToStructByName[BillingCompany], billingCompaniesSQL, after, from, to, limit)
}

// A UserMembership is a time in which a user belonged to a company.
type UserMembership struct {
	UserID    string
	CompanyID string
	Since     time.Time
	Until     *time.Time // nil: it goes on
}

// ForeignMemberships returns all memberships of those of some users who have belonged to another company than the given one.
func (s *Store) ForeignMemberships(ctx context.Context, company string, users []string) ([]UserMembership, error) {
	return collect(ctx, s, "look for users of other companies", pgx.RowToStructByName[UserMembership], billingForeignSQL, company, users)
}
