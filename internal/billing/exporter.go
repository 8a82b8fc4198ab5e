package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"tenantflow/internal/analytics"
	"tenantflow/internal/directory"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/postgres"
)

// A Log says how far events are stored: *Positions.
type Log interface {
	// Look returns positions of no longer ago than since; zero: of a short while ago.
	Look(ctx context.Context, since time.Time) (AsOf, error)
}

// Config is what an Exporter needs. Everything stays the caller's.
type Config struct {
	Books *postgres.Store
	Rows  *Rows
	Log   Log
	// Grace is how long a period that has ended stays a draft.
	Grace time.Duration
	// Results publishes that exports are closed, on Topic. nil: exports wait for another process to announce them.
	Results *kafka.Results
	Topic   string // with its prefix
	Logger  *slog.Logger
	// Step, if set, is called between the steps of a closing: a test may stop there.
	Step func(Step)
}

// A Step is a place in a closing where a process may die.
type Step string

// The steps.
const (
	StepRead      Step = "read"      // rows are read; nothing is stored
	StepStored    Step = "stored"    // the export is stored, and not announced
	StepPublished Step = "published" // it is announced, and that is not noted
)

// An Exporter makes, closes and announces exports. It may be used by several goroutines at once.
type Exporter struct {
	cfg    Config
	settle time.Duration // between two looks at rows and totals that don't agree
	within time.Duration // closed exports are announced, or left to a sweep
}

// New makes an Exporter.
func New(cfg Config) *Exporter {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Step == nil {
		cfg.Step = func(Step) {}
	}
	return &Exporter{cfg, settleWait, announceWithin}
}

// A NotYetError says why a period can't be closed, and from when on it may be; zero: that depends on what it waits for.
type NotYetError struct {
	Period string
	Until  time.Time
	Why    string
}

func (e *NotYetError) Error() string {
	return fmt.Sprintf("period %s can't be closed yet: %s", e.Period, e.Why)
}

// Errors of periods.
var (
	ErrFuture = errors.New("the period has not begun")
	ErrTooOld = errors.New("the period is too old: its usage rows may have left the table")
	ErrClosed = errors.New("the period is closed: its export never changes, and there is no draft of it")
)

// ParsePeriod reads a period written as YYYY-MM.
func ParsePeriod(text string) (analytics.Month, error) {
	period, err := analytics.ParseMonth(text)
	if err == nil && (period.String() != text || period < analytics.Month(2000*12)) {
		err = fmt.Errorf("%q is no month in the form YYYY-MM", text)
	}
	return period, err
}

// Get returns the closed export of a period or, while there is none, a draft of it. Of a company that is not known, or was purged, the error is
// directory.ErrUnknown.
func (e *Exporter) Get(ctx context.Context, company string, period analytics.Month) (*Export, error) {
	books, err := e.cfg.Books.BillingBooks(ctx, company, period.String())
	if err != nil {
		return nil, err
	}
	if books.Status == "purged" {
		return nil, fmt.Errorf("company %q is purged: %w", company, directory.ErrUnknown)
	}
	found, err := e.cfg.Books.BillingExport(ctx, company, period.String())
	if err != nil {
		return nil, err
	}
	if found != nil {
		return stored(found), nil
	}
	draft, err := e.Draft(ctx, company, period)
	if !errors.Is(err, ErrClosed) {
		return draft, err
	}
	if found, err = e.cfg.Books.BillingExport(ctx, company, period.String()); err != nil { // closed meanwhile
		return nil, err
	}
	return stored(found), nil
}

// Draft makes an export of a period as it would be now. It is not stored. Of a period that is closed the error is ErrClosed: a draft would lack what that export has.
func (e *Exporter) Draft(ctx context.Context, company string, period analytics.Month) (*Export, error) {
	books, err := e.cfg.Books.BillingBooks(ctx, company, period.String())
	if err != nil {
		return nil, err
	}
	if slices.Contains(books.Closed, period.String()) {
		return nil, fmt.Errorf("period %s of company %s: %w", period, company, ErrClosed)
	}
	if err := bounds(period, books.Now); err != nil {
		return nil, err
	}
	f, err := e.read(ctx, company, period, books)
	if err != nil {
		return nil, err
	}
	f.state = Draft
	if books.Now.Before((period + 1).Start()) {
		f.state = Open
	}
	d, _, err := build(f)
	if err != nil {
		return nil, err
	}
	text, err := encode(d)
	if err != nil {
		return nil, err
	}
	return &Export{Company: company, Period: d.Period, State: d.State, Currency: d.Currency, Reconciled: d.Reconciliation.Equal, Totals: d.Totals, JSON: text, CSV: d.CSV()}, nil
}

// bounds refuses periods that have not begun, and those of which rows may be gone.
func bounds(period analytics.Month, now time.Time) error {
	start := period.Start()
	switch {
	case start.After(now):
		return fmt.Errorf("period %s: %w", period, ErrFuture)
	case !stillThere(start.Year()*100+int(start.Month()), now):
		return fmt.Errorf("period %s: %w", period, ErrTooOld)
	}
	return nil
}

// closingTries is how often a closing begins again because another one of the company came in between.
const closingTries = 5

// Close closes a period of a company and announces that, or returns the export that is closed already. It is a *NotYetError while the grace period lasts, or while
// events of the period may not be stored.
func (e *Exporter) Close(ctx context.Context, company string, period analytics.Month) (*Export, error) {
	export, err := e.close(ctx, company, period, false)
	if err != nil {
		return nil, err
	}
	e.announceSoon(ctx, []postgres.BillingExport{*export})
	return stored(export), nil
}

// close closes a period. With onlyNews there is no export, nil, where it would be empty.
func (e *Exporter) close(ctx context.Context, company string, period analytics.Month, onlyNews bool) (*postgres.BillingExport, error) {
	for try := 1; ; try++ {
		found, err := e.cfg.Books.BillingExport(ctx, company, period.String())
		if err != nil || found != nil {
			return found, err
		}
		export, err := e.closeOnce(ctx, company, period, onlyNews)
		if errors.Is(err, postgres.ErrBillingMoved) && try < closingTries {
			continue
		}
		return export, err
	}
}

// over is a *NotYetError while the grace period of a period lasts.
func (e *Exporter) over(period analytics.Month, now time.Time) error {
	if until := (period + 1).Start().Add(e.cfg.Grace); now.Before(until) {
		return &NotYetError{Period: period.String(), Until: until, Why: "its grace period lasts until " + until.Format(time.RFC3339)}
	}
	return nil
}

// reaches is a *NotYetError while events of a period may not be stored.
func (a *AsOf) reaches(period analytics.Month) error {
	for _, at := range []*TopicPosition{&a.Usage, &a.Subscriptions, &a.Companies} {
		if why := at.behind((period + 1).Start()); why != "" {
			return &NotYetError{Period: period.String(), Why: why}
		}
	}
	return nil
}

// errNothing says that there is nothing to export.
var errNothing = errors.New("there is nothing to export")

func (e *Exporter) closeOnce(ctx context.Context, company string, period analytics.Month, onlyNews bool) (*postgres.BillingExport, error) {
	books, err := e.cfg.Books.BillingBooks(ctx, company, period.String())
	if err != nil {
		return nil, err
	}
	if err := bounds(period, books.Now); err != nil {
		return nil, err
	}
	if err := e.over(period, books.Now); err != nil {
		return nil, err
	}
	f, err := e.read(ctx, company, period, books)
	if err != nil {
		return nil, err
	}
	if err := f.asOf.reaches(period); err != nil {
		return nil, err
	}
	f.state = Closed
	e.cfg.Step(StepRead)
	export, err := e.cfg.Books.CloseBilling(ctx, company, period.String(), books.LastExport, func(books *postgres.BillingBooks) (*postgres.BillingClosing, error) {
		f.books = books
		d, reported, err := build(f)
		if err != nil {
			return nil, err
		}
		if onlyNews && d.empty() {
			return nil, errNothing
		}
		return d.closing(reported)
	})
	if errors.Is(err, errNothing) {
		return nil, nil
	}
	if err == nil {
		e.cfg.Step(StepStored)
	}
	return export, err
}

// empty reports whether there is nothing in an export.
func (d *Document) empty() bool {
	return len(d.Charges)+len(d.Payments)+len(d.Usage)+len(d.Mismatched)+len(d.Corrections) == 0
}

// settleTries is how often rows and totals are read until they agree: an insert reaches one after the other.
const settleTries = 3

// settleWait is the time between.
const settleWait = 200 * time.Millisecond

// read reads positions, then rows.
func (e *Exporter) read(ctx context.Context, company string, period analytics.Month, books *postgres.BillingBooks) (*facts, error) {
	f := &facts{company: company, period: period, books: books}
	var last AsOf
	if books.LastAsOf != nil {
		if err := json.Unmarshal(*books.LastAsOf, &last); err != nil {
			return nil, fmt.Errorf("read the position of the last export of company %s: %w", company, err)
		}
	}
	var err error
	if f.asOf, err = e.cfg.Log.Look(ctx, time.Time{}); err != nil {
		return nil, err
	}
	if f.asOf.Usage.before(&last.Usage) { // the look is older than that export
		if f.asOf, err = e.cfg.Log.Look(ctx, time.Now()); err != nil {
			return nil, err
		}
	}
	if last.Usage.Topic != f.asOf.Usage.Topic {
		last.Usage = TopicPosition{} // of another log
	}
	if err := e.raise(ctx, company, &f.asOf, &last.Usage); err != nil {
		return nil, err
	}
	users, err := e.cfg.Rows.users(ctx, company)
	if err != nil {
		return nil, err
	}
	var away []foreign
	if len(users) > 0 {
		memberships, err := e.cfg.Books.ForeignMemberships(ctx, company, users)
		if err != nil {
			return nil, err
		}
		away = elsewhere(company, memberships)
		if f.past, err = e.cfg.Rows.ofOthers(ctx, company, period.String(), &f.asOf.Usage, &last.Usage, away); err != nil {
			return nil, err
		}
	}
	for try := 1; ; try++ {
		if f.aggregates, err = e.cfg.Rows.aggregates(ctx, company, period.String()); err != nil {
			return nil, err
		}
		if f.usage, err = e.cfg.Rows.ofPeriod(ctx, company, period.String(), &f.asOf.Usage, away); err != nil {
			return nil, err
		}
		if try == settleTries || f.agree() {
			return f, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(e.settle):
		}
	}
}

// raise moves a position where the log is younger than rows that are stored of it: the topic, or the group's offsets, were made again. It never lies before the last export's
// then, and never before rows that the log does not have any more.
func (e *Exporter) raise(ctx context.Context, company string, at *AsOf, last *TopicPosition) error {
	rows, err := e.cfg.Rows.next(ctx, company, at.Usage.Topic)
	if err != nil {
		return err
	}
	old := at.Usage.beyond(rows)
	if len(old) > 0 { // or they were appended after the look
		if *at, err = e.cfg.Log.Look(ctx, time.Now()); err != nil {
			return err
		}
		old = at.Usage.beyond(rows)
	}
	raised := at.Usage.atLeast(last.offsets())
	at.Usage = raised.atLeast(old)
	return nil
}

// agree reports whether rows and totals do.
func (f *facts) agree() bool {
	var rows Amounts
	for i := range f.usage {
		rows = rows.plus(f.usage[i].amounts)
	}
	return rows.equal(f.aggregates)
}

// An Export is an export as it is handed out.
type Export struct {
	ID          string // empty: not closed
	Company     string
	Period      string
	State       string
	Currency    string
	Checksum    string // SHA-256 of JSON; empty: not closed
	CSVChecksum string
	Reconciled  bool
	Totals      Totals
	JSON, CSV   []byte
}

func stored(e *postgres.BillingExport) *Export {
	x := &Export{ID: e.ExportID, Company: e.CompanyID, Period: e.BillingPeriod, State: e.State, Currency: e.Currency, Checksum: e.Checksum, CSVChecksum: e.CSVChecksum,
		Reconciled: e.Reconciled, JSON: e.ContentJSON, CSV: e.ContentCSV}
	_ = json.Unmarshal(e.Totals, &x.Totals) // written by this package
	return x
}
