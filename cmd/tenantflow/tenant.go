package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/migrations"
)

func newTenantCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tenant",
		Short: "List companies, look at one, bring their tables to the newest version",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTenantListCommand(a), newTenantShowCommand(a), newTenantMigrateCommand(a), newTenantPartitionsCommand(a))
	return cmd
}

// openTenantTables opens the database for a command that does not change the public tables: all of them must be there.
func (a *app) openTenantTables(ctx context.Context) (*migrations.Postgres, error) {
	cfg, err := a.config(config.Postgres)
	if err != nil {
		return nil, err
	}
	options, err := pgxpool.ParseConfig(cfg.PostgresDSN.Reveal())
	if err != nil {
		return nil, fmt.Errorf("read TENANTFLOW_POSTGRES_DSN: %w", err)
	}
	if options.ConnConfig.ConnectTimeout == 0 {
		options.ConnConfig.ConnectTimeout = tryTimeout
	}
	db, err := migrations.OpenPostgres(ctx, options.ConnConfig, false)
	if err != nil {
		return nil, err
	}
	versions, err := db.Status(ctx)
	if err == nil && slices.ContainsFunc(versions, migrations.Version.Pending) {
		err = fmt.Errorf(`read Postgres database %q: tables of this version are missing; run "tenantflow migrate"`, db.Database())
	}
	if err != nil {
		_ = db.Close() // it is the first error that counts
		return nil, err
	}
	return db, nil
}

// tenantPage is how many companies are read at a time, and listed unless --limit says otherwise.
const tenantPage = 100

// tenantList is what "tenant ls" prints.
type tenantList struct {
	Tenants []migrations.Tenant `json:"tenants"`
	// Next is what --after has to be for the companies that follow; empty: there are none.
	Next string `json:"next,omitempty"`
}

func newTenantListCommand(a *app) *cobra.Command {
	var after string
	var limit int
	var size bool
	cmd := &cobra.Command{
		Use:   "ls [--after COMPANY] [--limit N] [--size]",
		Short: "List companies with their tier and the version of their tables",
		Long: `Ls lists companies in the order of their ids, a page at a time: where there are more, the last line says how to
go on (with -o json: "next"). A company without a schema has version 0.

--size adds the bytes that the schema of each company takes, with its indexes: about a millisecond a company.`,
		Example: `  tenantflow tenant ls
  tenantflow tenant ls --after acme-1 --limit 1000 --size -o json
  tenantflow tenant ls --limit 0        all of them`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return invalid("--limit %d is negative", limit)
			}
			db, err := a.openTenantTables(cmd.Context())
			if err != nil {
				return err
			}
			defer func() { _ = db.Close() }() // everything was answered before
			list, err := listTenants(cmd.Context(), db, after, limit, size)
			if err != nil {
				return err
			}
			return a.show(cmd.OutOrStdout(), list, func() *table { return list.table(size) })
		},
	}
	cmd.Flags().StringVar(&after, "after", "", "begin after this company")
	cmd.Flags().IntVar(&limit, "limit", tenantPage, "list no more than this many; 0: all")
	cmd.Flags().BoolVar(&size, "size", false, "also tell the size of each schema")
	return cmd
}

// listTenants reads page by page, so that no query holds the tables for long.
func listTenants(ctx context.Context, db *migrations.Postgres, after string, limit int, size bool) (*tenantList, error) {
	list := &tenantList{Tenants: []migrations.Tenant{}}
	for {
		want := tenantPage
		if limit > 0 {
			want = min(want, limit-len(list.Tenants))
		}
		page, err := db.Tenants(ctx, after, want+1, size) // one more, to see whether there are more
		if err != nil {
			return nil, err
		}
		more := len(page) > want
		page = page[:min(len(page), want)]
		list.Tenants = append(list.Tenants, page...)
		if !more {
			return list, nil
		}
		after = page[len(page)-1].CompanyID
		if limit > 0 && len(list.Tenants) >= limit {
			list.Next = after
			return list, nil
		}
	}
}

func (l *tenantList) table(size bool) *table {
	t := &table{head: []string{"company", "status", "tier", "subscription", "users", "version"}}
	if size {
		t.head = append(t.head, "size")
	}
	for _, c := range l.Tenants {
		row := []string{c.CompanyID, c.Status, orDash(c.Tier), orDash(c.SubscriptionStatus), strconv.FormatInt(c.Users, 10), strconv.FormatInt(c.Version, 10)}
		if size {
			row = append(row, sizeText(c.Size))
		}
		t.add(row...)
	}
	if l.Next != "" {
		t.add("...", "go on with --after "+l.Next)
	}
	return t
}

// sizeText is a size, or a dash for one that can't be read now.
func sizeText(size *int64) string {
	if size == nil {
		return "-"
	}
	return megabytes(*size)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// megabytes writes a size in the unit of storage_mb.
func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/(1<<20)) }

func newTenantShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show COMPANY",
		Short: "Show one company: subscription, schema, users, audit log",
		Long: `Show reads a company from Postgres, past every cache: its subscription, the limits
that hold and those that an operator has set in place of its tier's, its users, the schema with the version of its
tables and its size, where its audit log ends, and, where it can't go on, why, who blocks it and how many events are set aside.

Exit codes: 0 shown; 1 Postgres does not answer, or there is no such company; 2 the company id or the configuration is wrong.`,
		Example: `  tenantflow tenant show acme-1
  tenantflow tenant show acme-1 -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return invalid("%s takes one company id, but got %d arguments (see %[1]s --help)", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := companyIDs(args); err != nil {
				return err
			}
			db, err := a.openTenantTables(cmd.Context())
			if err != nil {
				return err
			}
			defer func() { _ = db.Close() }() // everything was answered before
			t, err := db.Tenant(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			status, err := db.TenantStatus(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(cmd.OutOrStdout(), shownTenant{t, status.Newest}, func() *table { return tenantTable(t, status.Newest) })
		},
	}
}

// shownTenant is what "tenant show" prints.
type shownTenant struct {
	*migrations.TenantDetails
	Newest int64 `json:"newest_schema_version"`
}

// companyIDs refuses what can't be the id of a company.
func companyIDs(ids []string) error {
	for _, id := range ids {
		if !events.ValidID(id) {
			return invalid("%q is no company id: it has 1 to 50 letters, digits, '_' or '-'", id)
		}
	}
	return nil
}

func tenantTable(t *migrations.TenantDetails, newest int64) *table {
	at := func(t *time.Time) string {
		if t == nil {
			return "-"
		}
		return t.Format(time.RFC3339)
	}
	text := &table{}
	text.add("company", t.CompanyID)
	text.add("name", t.Name)
	text.add("status", t.Status)
	text.add("billing email", t.BillingEmail)
	text.add("created", at(&t.CreatedAt))
	if t.ClosedAt != nil {
		text.add("closed", at(t.ClosedAt))
	}
	text.add("tier", orDash(t.Tier))
	text.add("subscription", orDash(t.SubscriptionStatus))
	if t.PeriodStart != nil {
		text.add("period", at(t.PeriodStart)+" to "+at(t.PeriodEnd))
		text.add("price", fmt.Sprintf("%d minor units %s", *t.PriceMinor, t.Currency))
	}
	if t.PendingTier != nil {
		text.add("pending tier", *t.PendingTier)
	}
	if t.DueAt != nil {
		text.add("due", at(t.DueAt))
	}
	if t.Limits != nil {
		text.add("limits", limitsLine(t.Limits))
	}
	for _, o := range t.Overrides {
		until := "until further notice"
		if o.ExpiresAt != nil {
			until = "until " + at(o.ExpiresAt)
		}
		text.add("override", fmt.Sprintf("%s %s %s, set %s: %s", o.Limit, strings.Trim(string(o.Value), `"`), until, at(&o.SetAt), o.Reason))
	}
	text.add("users", fmt.Sprintf("%d, %d of them suspended", t.Users, t.SuspendedUsers))
	if t.Schema == nil {
		text.add("schema", "-")
	} else {
		text.add("schema", *t.Schema)
		text.add("version", fmt.Sprintf("%d of %d", t.Version, newest))
		text.add("size", sizeText(t.Size))
	}
	if t.AuditSeq != nil {
		text.add("audit log", fmt.Sprintf("%d rows", *t.AuditSeq))
	}
	text.add("last event", at(t.LastEffectAt))
	if b := t.Blocked; b != nil {
		text.add("can't go on", fmt.Sprintf("since %s (%s): %s", at(&b.Since), b.Reason, b.Detail))
		if b.BlockedBy != nil {
			text.add("blocked by", *b.BlockedBy)
		}
	}
	if t.Waiting > 0 {
		text.add("set aside", fmt.Sprintf("%d events", t.Waiting))
	}
	if t.Faulty > 0 {
		text.add("faults", fmt.Sprintf("%d rows of the inbox", t.Faulty))
	}
	return text
}

// limitsLine writes limits in a line, in the order of their names.
func limitsLine(limits json.RawMessage) string {
	var m map[string]any
	decoder := json.NewDecoder(bytes.NewReader(limits))
	decoder.UseNumber() // as they are written
	if err := decoder.Decode(&m); err != nil {
		return string(limits)
	}
	parts := make([]string, 0, len(m))
	for name, value := range m {
		parts = append(parts, fmt.Sprintf("%s %v", name, value))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
