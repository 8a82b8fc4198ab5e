package migrations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// A TenantMigration says which companies' tables are to be brought to the newest version the database knows.
type TenantMigration struct {
	// Companies by their ids. None: all that have a schema.
	Companies []string

	// Concurrency is how many companies are worked on at a time, each on a connection of its own. Default: 4.
	Concurrency int

	// DryRun applies what is missing and then undoes it. As with the real thing, a company's tables are locked meanwhile.
	DryRun bool

	// Done, if set, is called when a company is done, one call at a time.
	Done func(TenantResult)
}

// A TenantResult is the outcome of one company's migration.
type TenantResult struct {
	CompanyID string
	From      int64 // the version of its tables before
	To        int64 `db:"-"` // and after; with DryRun, after what would be applied
	// Err is why nothing was changed. Then To is From.
	Err error `db:"-"`
}

const (
	defaultTenantConcurrency = 4
	// tenantsPerConnection is after how many companies a connection is replaced. A server process remembers the tables it
	// has touched until it ends: here some 2 KB a company for one new column and index, 30 KB where rows are written.
	tenantsPerConnection = 250
	// tenantLockTimeout is how long a company may keep its tables in use before this run gives it up. Every session
	// that wants the table waits behind the one that waits to change it.
	tenantLockTimeout = "5s"
)

// ErrNoTenant is returned for a company without a schema.
var ErrNoTenant = errors.New("the company has no schema")

// MigrateTenants brings companies' tables to the newest version that the database knows, each in one transaction. A
// company that fails is reported and does not stop the others; one that has the newest version is passed over. So after a
// crash, or when the cause of a failure is removed, it is simply run again. Results are ordered by company; those of
// companies that were not reached are missing. The error says why some were not: the server is gone, or ctx has ended.
func (p *Postgres) MigrateTenants(ctx context.Context, m TenantMigration) ([]TenantResult, error) {
	companies := slices.Clone(m.Companies)
	slices.Sort(companies)
	newest, todo, err := p.tenantsBehind(ctx, slices.Compact(companies))
	if err != nil {
		return nil, fmt.Errorf("find the companies to migrate in Postgres database %q: %w", p.database, err)
	}
	var mu sync.Mutex
	var results []TenantResult
	done := func(r TenantResult) {
		mu.Lock()
		defer mu.Unlock()
		results = append(results, r)
		if m.Done != nil {
			m.Done(r)
		}
	}
	queue := make(chan TenantResult)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(queue)
		for _, r := range todo {
			select {
			case queue <- r:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	workers := m.Concurrency
	if workers <= 0 {
		workers = defaultTenantConcurrency
	}
	for range min(workers, len(todo)) {
		group.Go(func() error { return p.tenantWorker(ctx, queue, newest, m.DryRun, done) })
	}
	err = group.Wait()
	slices.SortFunc(results, func(a, b TenantResult) int { return strings.Compare(a.CompanyID, b.CompanyID) })
	if err != nil {
		err = fmt.Errorf("migrate the companies of Postgres database %q: %w", p.database, err)
	}
	return results, err
}

// tenantsBehind lists the companies to work on, and the version to bring them to.
func (p *Postgres) tenantsBehind(ctx context.Context, companies []string) (newest int64, todo []TenantResult, err error) {
	var only any // null: all
	if len(companies) > 0 {
		only = companies
	}
	err = p.onConn(ctx, func(conn *pgx.Conn) error {
		if err := conn.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM public.tenant_migrations").Scan(&newest); err != nil {
			return err
		}
		todo, err = collect[TenantResult](ctx, conn, query("tenants_behind"), newest, only)
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	for _, company := range companies {
		if !slices.ContainsFunc(todo, func(r TenantResult) bool { return r.CompanyID == company }) {
			todo = append(todo, TenantResult{CompanyID: company})
		}
	}
	return newest, todo, nil
}

// tenantWorker migrates the companies of the queue until it is closed.
func (p *Postgres) tenantWorker(ctx context.Context, queue <-chan TenantResult, newest int64, dryRun bool, done func(TenantResult)) error {
	var conn *pgx.Conn
	closed := func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx)) // nothing is left to be answered
			conn = nil
		}
	}
	defer closed()
	used := 0
	for r := range queue {
		if conn != nil && (conn.IsClosed() || used >= tenantsPerConnection) {
			closed()
		}
		if conn == nil {
			used = 0
			var err error
			if conn, err = pgx.ConnectConfig(ctx, p.config); err != nil {
				return fmt.Errorf("connect for company %s: %w", r.CompanyID, err)
			}
		}
		used++
		r.To, r.Err = migrateTenant(ctx, conn, r, newest, dryRun)
		if err := context.Cause(ctx); err != nil && r.Err != nil {
			return err // it was cut off: nothing is to be said about the company
		}
		done(r)
	}
	return nil
}

// migrateTenant brings one company's tables to a version, or leaves them as they are.
func migrateTenant(ctx context.Context, conn *pgx.Conn, r TenantResult, version int64, dryRun bool) (reached int64, err error) {
	switch {
	case r.From == 0:
		return r.From, fmt.Errorf("migrate company %s: %w", r.CompanyID, ErrNoTenant)
	case r.From >= version:
		return r.From, nil
	}
	defer func() {
		if err != nil {
			reached, err = r.From, fmt.Errorf("migrate company %s: %w", r.CompanyID, err)
		}
	}()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback(ctx) }() // after a commit it does nothing
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+tenantLockTimeout+"'"); err != nil {
		return 0, err
	}
	if err := tx.QueryRow(ctx, "SELECT public.migrate_company_schema($1, $2)", r.CompanyID, version).Scan(&reached); err != nil {
		return 0, err
	}
	if dryRun {
		return reached, tx.Rollback(ctx)
	}
	return reached, tx.Commit(ctx)
}
