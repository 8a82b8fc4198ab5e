package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"

	"github.com/spf13/cobra"

	"tenantflow/migrations"
)

// mostTenantConnections bounds --concurrency: every one of them is a server process that grows.
const mostTenantConnections = 64

func newTenantMigrateCommand(a *app) *cobra.Command {
	var m migrations.TenantMigration
	cmd := &cobra.Command{
		Use:   "migrate [--company COMPANY]... [--dry-run] [--concurrency N]",
		Short: "Bring the companies' own tables to the newest version",
		Long: `Migrate brings the tables in the schema of every company to the newest version that the database knows, as the last
step of "tenantflow migrate" does. Each company is one transaction: it has all that was missing, or is as it was. Companies
that have the newest version are passed over, so an interrupted run is finished by running it again. A company that fails,
also because another session keeps its tables in use for 5 seconds, is listed at the end and does not stop the others.

--dry-run applies everything and undoes it, so it finds what would fail. It locks each company's tables for that time.

It prints the companies that were changed or failed, and those that were named.

Exit codes: 0 all have the newest version; 1 one has failed or was not reached; 2 the command or the configuration is wrong.`,
		Example: `  tenantflow tenant migrate
  tenantflow tenant migrate --dry-run -o json
  tenantflow tenant migrate --company acme-1 --company acme-2`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if m.Concurrency < 1 || m.Concurrency > mostTenantConnections {
				return invalid("--concurrency %d: choose from 1 to %d", m.Concurrency, mostTenantConnections)
			}
			if err := companyIDs(m.Companies); err != nil {
				return err
			}
			db, err := a.openTenantTables(cmd.Context())
			if err != nil {
				return err
			}
			defer func() { _ = db.Close() }() // everything was answered before
			run, failure := migrateTenants(cmd.Context(), db, m, cmd.ErrOrStderr())
			if err := a.show(cmd.OutOrStdout(), run, run.table); err != nil {
				return err
			}
			if failure != nil {
				return failure
			}
			return run.verdict()
		},
	}
	cmd.Flags().StringArrayVar(&m.Companies, "company", nil, "only this company; can be repeated")
	cmd.Flags().BoolVar(&m.DryRun, "dry-run", false, "undo everything again; say what would be applied")
	cmd.Flags().IntVar(&m.Concurrency, "concurrency", 4, "how many companies to work on at a time")
	return cmd
}

// tenantRun is what a migration of companies' tables has done.
type tenantRun struct {
	DryRun  bool           `json:"dry_run"`
	Changed int            `json:"changed"` // companies; in a dry run, those that would be
	Failed  int            `json:"failed"`
	Tenants []tenantChange `json:"tenants"`
}

type tenantChange struct {
	CompanyID string   `json:"company_id"`
	State     string   `json:"state"` // migrated, would be migrated, up to date, failed
	From      int64    `json:"from_version"`
	To        int64    `json:"to_version"`
	Applied   []string `json:"applied"` // file names of the versions
	Error     string   `json:"error,omitempty"`
}

// migrateTenants runs a migration and prints its progress.
func migrateTenants(ctx context.Context, db *migrations.Postgres, m migrations.TenantMigration, errOut io.Writer) (*tenantRun, error) {
	run := &tenantRun{DryRun: m.DryRun, Tenants: []tenantChange{}}
	names, err := db.RecordedTenantVersions(ctx)
	if err != nil {
		return run, err
	}
	p := newProgress(errOut, "tenant migrate")
	done, failed := 0, 0
	numbers := func() []slog.Attr { return []slog.Attr{slog.Int("companies", done), slog.Int("failed", failed)} }
	m.Done = func(r migrations.TenantResult) {
		done++
		if r.Err != nil {
			failed++
		}
		p.update(numbers()...)
	}
	results, failure := db.MigrateTenants(ctx, m)
	if done > 0 {
		p.done(numbers()...)
	}
	for _, r := range results {
		c := tenantChange{CompanyID: r.CompanyID, State: "migrated", From: r.From, To: r.To, Applied: []string{}}
		for _, v := range names {
			if v.Version > r.From && v.Version <= r.To {
				c.Applied = append(c.Applied, v.Name)
			}
		}
		switch {
		case r.Err != nil:
			c.State, c.Error = "failed", r.Err.Error()
			run.Failed++
		case r.From == r.To:
			c.State = "up to date"
		default:
			run.Changed++
			if m.DryRun {
				c.State = "would be migrated"
			}
		}
		run.Tenants = append(run.Tenants, c)
	}
	return run, failure
}

func (r *tenantRun) table() *table {
	t := &table{head: []string{"company", "state", "from", "to", "detail"}}
	for _, c := range r.Tenants {
		detail := c.Error
		for _, name := range c.Applied {
			if detail != "" {
				detail += ", "
			}
			detail += name
		}
		t.add(c.CompanyID, c.State, strconv.FormatInt(c.From, 10), strconv.FormatInt(c.To, 10), orDash(detail))
	}
	return t
}

// verdict is an error if a company has failed.
func (r *tenantRun) verdict() error {
	if r.Failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d companies could not be migrated; they are as they were, and the others are done", r.Failed, len(r.Tenants))
}
