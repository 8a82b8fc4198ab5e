package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/analytics"
	"tenantflow/internal/billing"
	"tenantflow/internal/config"
	"tenantflow/internal/directory"
	"tenantflow/internal/service"
)

func newBillingCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "billing",
		Short: "Export what companies are billed for",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBillingExportCommand(a))
	return cmd
}

// billingFlags are the flags of billing export.
type billingFlags struct {
	company, period, format, out string
	draft, all                   bool

	month analytics.Month // of period
}

func newBillingExportCommand(a *app) *cobra.Command {
	var f billingFlags
	cmd := &cobra.Command{
		Use:   "export --company C --period YYYY-MM | --all --period YYYY-MM --out DIR",
		Short: "Close a month's billing exports, and write them",
		Long: `Export closes the billing period of a company, a calendar month in UTC, and writes its export: charges and payments, usage by
user, tier and service, and corrections of periods that were closed before. A closed export is stored and never changes: asked
again, it is written as it is. A period can be closed when TENANTFLOW_BILLING_GRACE is over since its end and when usage and
subscription events are stored up to its end; until then see --draft.

With --all it closes the period of every company that was there in it, and writes a file for each into the directory of --out, with
manifest.json and manifest.csv, which list them with checksums and totals. Killed, it goes on where it was when it is started again.

What an export says is in docs/billing-service.md.

Exit codes: 0 written; 1 the period can't be closed yet, a company is not known or could not be closed, or a store does not
answer; 2 the flags or the configuration are wrong.`,
		Example: `  tenantflow billing export --company acme --period 2026-10 --format csv --out acme.csv
  tenantflow billing export --company acme --period 2026-11 --draft
  tenantflow billing export --all --period 2026-10 --out exports/2026-10`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.billing(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), &f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.company, "company", "", "company to export")
	flags.BoolVar(&f.all, "all", false, "export every company, into the directory of --out")
	flags.StringVar(&f.period, "period", "", "billing period, YYYY-MM")
	flags.BoolVar(&f.draft, "draft", false, "write the export as it would be now; nothing is stored")
	flags.StringVar(&f.format, "format", billing.JSON, "json, csv or parquet")
	flags.StringVar(&f.out, "out", "", "file to write to (default standard output); with --all a directory")
	return cmd
}

// check says what is wrong with the flags.
func (f *billingFlags) check() (err error) {
	switch {
	case f.period == "":
		return invalid("--period is missing")
	case !slices.Contains(billing.Forms(), f.format):
		return invalid("--format %s: there is no such format; choose from %s", f.format, strings.Join(billing.Forms(), ", "))
	case f.all && f.format == billing.Parquet:
		return invalid("--all writes json or csv, whose bytes are those that were closed")
	case f.all && f.company != "":
		return invalid("--all and --company exclude each other")
	case f.all && f.draft:
		return invalid("--all closes exports, and --draft closes none")
	case f.all && f.out == "":
		return invalid("--all needs --out, a directory")
	case f.all:
	case f.company == "":
		return invalid("--company is missing")
	case !events.ValidID(f.company):
		return invalid("--company %q: a company id has 1 to 50 letters, digits, '_' or '-'", f.company)
	}
	if f.month, err = billing.ParsePeriod(f.period); err != nil {
		return invalid("--period: %w", err)
	}
	return nil
}

func (a *app) billing(ctx context.Context, out, errOut io.Writer, f *billingFlags) error {
	cfg, err := a.config(config.Kafka, config.ClickHouse, config.Postgres)
	if err != nil {
		return err
	}
	exporter, err := service.OpenBilling(ctx, cfg, a.logger(cfg, errOut))
	if err != nil {
		return err
	}
	work := exportOne
	if f.all {
		work = a.exportAll
	}
	return errors.Join(work(ctx, exporter, out, f), exporter.Close())
}

// exportOne writes the export of one company.
func exportOne(ctx context.Context, from *service.Billing, out io.Writer, f *billingFlags) error {
	export := from.Exporter.Close
	if f.draft {
		export = from.Draft
	}
	made, err := export(ctx, f.company, f.month)
	if errors.Is(err, directory.ErrUnknown) {
		return fmt.Errorf("company %s is not known", f.company)
	}
	if err != nil {
		return err
	}
	text, _ := made.Content(f.format)
	if f.format == billing.Parquet {
		if text, err = from.Parquet(ctx, made); err != nil {
			return err
		}
	}
	if f.out != "" {
		return billing.WriteFile(filepath.Clean(f.out), text)
	}
	if _, err := out.Write(text); err != nil {
		return fmt.Errorf("writing the export: %w", err)
	}
	return nil
}

// exportAll writes the exports of all companies, and says what became of them.
func (a *app) exportAll(ctx context.Context, from *service.Billing, out io.Writer, f *billingFlags) error {
	folder, err := billing.NewFolder(filepath.Clean(f.out), f.format, f.month)
	if err != nil {
		return err
	}
	from.TryAnnounce(ctx)
	summary, failed := from.CloseAll(ctx, f.month, folder.Put)
	if summary == nil {
		return failed
	}
	manifest, err := folder.Finish(summary)
	if err != nil {
		return errors.Join(failed, err)
	}
	return errors.Join(failed, a.show(out, struct {
		*billing.Summary
		Sums []billing.CurrencySums `json:"sums"`
	}{summary, manifest.Sums}, func() *table { return manifestTable(summary, manifest, f.out) }))
}

func manifestTable(s *billing.Summary, m *billing.Manifest, dir string) *table {
	t := &table{head: []string{"currency", "companies", "charged", "received", "calls", "data points", "attributed", "corrected calls", "corrected attributed"}}
	for i := range m.Sums {
		sum := &m.Sums[i]
		t.add(sum.Currency, strconv.Itoa(sum.Companies), sum.Charged.String(), sum.Received.String(), strconv.FormatInt(sum.Usage.Calls, 10), strconv.FormatInt(sum.Usage.DataPoints, 10),
			sum.Usage.Attributed.String(), strconv.FormatInt(sum.Corrections.Calls, 10), sum.Corrections.Attributed.String())
	}
	t.footer = []string{fmt.Sprintf("%s: %d companies, %d closed now and %d before, %d with nothing to export, %d not reconciled, %d failed, %d not announced yet; the files are in %s",
		s.Period, s.Companies, s.Closed, s.Before, s.Nothing, s.Unreconciled, s.Failed, s.Unannounced, dir+string(os.PathSeparator))}
	return t
}
