package billing

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"tenantflow/events"
	"tenantflow/internal/analytics"
	"tenantflow/sinks/postgres"
)

// A usageRow is usage of the exported period that has all of its attributes in common.
type usageRow struct {
	user, tier, service string
	month               int  // of the timestamps, as YYYYMM
	behind              bool // it stands behind the position of the export
	mismatched          bool
	amounts             Amounts
}

// The classes of rows of other periods.
const (
	classKnown = iota // they were there at the last export, or stand in another topic
	classUsage        // usage that came since
	classVoid         // voids that came since
)

// A pastRow is usage of another period, up to the position of the export.
type pastRow struct {
	period     string
	month      int
	mismatched bool
	class      uint8
	identities int64
	amounts    Amounts
}

// facts are what an export follows from.
type facts struct {
	company    string
	period     analytics.Month
	state      string
	asOf       AsOf
	usage      []usageRow
	past       []pastRow
	aggregates Amounts
	books      *postgres.BillingBooks
}

// A key names what is reported apart: rows leave ClickHouse by the month of their timestamps.
type key struct {
	period     string
	month      int
	mismatched bool
}

// stillThere reports whether ClickHouse still has all rows of a month (YYYYMM): none of them is as old as the table keeps rows, less a day.
func stillThere(month int, now time.Time) bool {
	start := time.Date(month/100, time.Month(month%100), 1, 0, 0, 0, 0, time.UTC)
	y, m, d := now.UTC().Date()
	return !start.Before(time.Date(y-2, m, d+2, 0, 0, 0, 0, time.UTC))
}

// leavesOut is what every export says that it lacks.
func leavesOut() []string {
	return []string{
		"taxes, discounts and refunds: this service knows none",
		"payments that are pending: they are in the export that is closed after they were received or have failed",
		"usage rows that stand in the log at or behind the positions of as_of, and what was recorded in the books after books_at: a closed period's are corrections in a later export",
		"usage whose event became a dead letter",
	}
}

// build makes the export, and what is to be noted as reported once it is closed.
func build(f *facts) (*Document, []postgres.BillingReported, error) {
	now := f.books.Now.UTC()
	d := &Document{
		CompanyID: f.company, Period: f.period.String(), State: f.state, GeneratedAt: now, TimeZone: "UTC",
		PeriodStart: f.period.Start(), PeriodEnd: (f.period + 1).Start(), Currency: f.books.Currency, AsOf: f.asOf,
		Charges: []Charge{}, Payments: []Payment{}, Usage: []UsageLine{}, Mismatched: []UsageLine{}, Corrections: []Correction{}, NotExported: []PeriodUsage{},
		LeavesOut: leavesOut(), Totals: Totals{Charged: []Sum{}, Received: []Sum{}},
	}
	d.AsOf.Books = now
	if f.state == Closed {
		d.ExportID, d.Revision = exportID(f.company, d.Period), 1
	}
	reported := d.usage(f)
	before, err := reportedBefore(f.books)
	if err != nil {
		return nil, nil, err
	}
	d.correct(f, before, reported)
	d.charge(f.books.Charges)
	d.pay(f.books.Payments)
	list := make([]postgres.BillingReported, 0, len(reported))
	for k, a := range reported {
		list = append(list, postgres.BillingReported{Period: k.period, Month: k.month, Mismatched: k.mismatched, Calls: a.Calls, DataPoints: a.DataPoints, Attributed: a.Attributed.String()})
	}
	return d, list, nil
}

// exportID is the id of the export of a company and a period.
func exportID(company, period string) string {
	return events.ResultID(events.ScheduleSource(), causeID(company, period), "export", 0)
}

// usage fills in the usage of the period, and returns it as it is reported.
func (d *Document) usage(f *facts) map[key]Amounts {
	reported := map[key]Amounts{}
	lines := map[UsageLine]Amounts{}
	mismatched := map[UsageLine]Amounts{}
	r := &d.Reconciliation
	r.Aggregates = f.aggregates
	for _, row := range f.usage {
		r.RawRows = r.RawRows.plus(row.amounts)
		if row.behind {
			r.Behind = r.Behind.plus(row.amounts)
			continue
		}
		r.Export = r.Export.plus(row.amounts)
		k := key{d.Period, row.month, row.mismatched}
		reported[k] = reported[k].plus(row.amounts)
		of := UsageLine{UserID: row.user, Tier: row.tier, Service: row.service}
		if row.mismatched {
			mismatched[of] = mismatched[of].plus(row.amounts)
		} else {
			lines[of] = lines[of].plus(row.amounts)
		}
	}
	r.Equal = r.RawRows.equal(r.Aggregates) && r.RawRows.equal(r.Export.plus(r.Behind))
	d.Usage, d.Totals.Usage = list(lines)
	d.Mismatched, d.Totals.Mismatched = list(mismatched)
	return reported
}

// list sorts lines and adds them up. What voids have taken back entirely is left out.
func list(of map[UsageLine]Amounts) ([]UsageLine, Amounts) {
	lines, total := make([]UsageLine, 0, len(of)), Amounts{}
	for line, amounts := range of {
		if amounts.zero() {
			continue
		}
		line.Amounts = amounts
		lines = append(lines, line)
		total = total.plus(amounts)
	}
	slices.SortFunc(lines, func(a, b UsageLine) int {
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Service, b.Service))
	})
	return lines, total
}

// reportedBefore reads what closed exports have reported.
func reportedBefore(books *postgres.BillingBooks) (map[key]Amounts, error) {
	before := map[key]Amounts{}
	for _, r := range books.Reported {
		revenue, err := decimal.NewFromString(r.Attributed)
		if err != nil {
			return nil, fmt.Errorf("read what was reported of period %s: %w", r.Period, err)
		}
		before[key{r.Period, r.Month, r.Mismatched}] = Amounts{r.Calls, r.DataPoints, analytics.Attributed{Decimal: revenue}}
	}
	return before, nil
}

// correct fills in what has changed of closed periods, and adds it to what is reported.
func (d *Document) correct(f *facts, before, reported map[key]Amounts) {
	closed := map[string]bool{}
	for _, period := range f.books.Closed {
		closed[period] = true
	}
	present, since := map[key]Amounts{}, map[Correction]Correction{}
	others := map[string]Amounts{}
	add := func(period string, cause Cause, mismatched bool, identities int64, a Amounts) {
		k := Correction{Period: period, Cause: cause, Mismatched: mismatched}
		c := since[k]
		c.Identities += identities
		c.Amounts = c.plus(a)
		since[k] = c
	}
	known := map[key]Amounts{} // of present: what does not stand behind the last export's position
	for _, row := range f.past {
		if !closed[row.period] {
			if row.period < d.Period {
				others[row.period] = others[row.period].plus(row.amounts)
			}
			continue
		}
		if !stillThere(row.month, f.books.Now) {
			continue
		}
		k := key{row.period, row.month, row.mismatched}
		present[k] = present[k].plus(row.amounts)
		switch row.class {
		case classUsage:
			add(k.period, Late, k.mismatched, row.identities, row.amounts)
		case classVoid:
			add(k.period, Voided, k.mismatched, row.identities, row.amounts)
		default:
			known[k] = known[k].plus(row.amounts)
		}
	}
	for k := range before {
		if _, there := present[k]; !there && stillThere(k.month, f.books.Now) && k.period != d.Period {
			present[k] = Amounts{} // all of its rows are gone
		}
	}
	for k, a := range present {
		if rest := known[k].minus(before[k]); !rest.zero() {
			add(k.period, Repaired, k.mismatched, abs(rest.Calls), rest)
		}
		if !a.equal(before[k]) {
			reported[k] = a
		}
	}
	for k, c := range since {
		k.Identities, k.Amounts = c.Identities, c.Amounts
		d.Corrections = append(d.Corrections, k)
		if k.Mismatched {
			d.Totals.MismatchedCorrections = d.Totals.MismatchedCorrections.plus(c.Amounts)
		} else {
			d.Totals.Corrections = d.Totals.Corrections.plus(c.Amounts)
		}
	}
	slices.SortFunc(d.Corrections, func(a, b Correction) int {
		return cmp.Or(cmp.Compare(a.Period, b.Period), cmp.Compare(a.Cause, b.Cause), compareBool(a.Mismatched, b.Mismatched))
	})
	for period, a := range others {
		d.NotExported = append(d.NotExported, PeriodUsage{period, a})
	}
	slices.SortFunc(d.NotExported, func(a, b PeriodUsage) int { return strings.Compare(a.Period, b.Period) })
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func abs(n int64) int64 { return max(n, -n) }

// charge fills in the transactions.
func (d *Document) charge(all []postgres.BillingCharge) {
	for _, t := range all {
		c := Charge{TransactionID: t.TransactionID, Kind: "charge", Type: t.Type, OldTier: t.OldTier, NewTier: t.NewTier, Amount: analytics.Money(t.AmountMinor), Currency: t.Currency,
			Lines: []Line{}, PeriodStart: utc(t.PeriodStart), PeriodEnd: utc(t.PeriodEnd), At: t.CreatedAt.UTC()}
		for _, line := range t.Lines {
			if line.AmountMinor < 0 {
				c.Kind = "proration"
			}
			c.Lines = append(c.Lines, Line{line.Description, analytics.Money(line.AmountMinor)})
		}
		if t.Month != d.Period {
			c.Corrects, c.Cause = t.Month, LateCharge
		}
		d.Charges = append(d.Charges, c)
		d.Totals.Charged = sum(d.Totals.Charged, c.Currency, c.Amount)
	}
}

// pay fills in the payments.
func (d *Document) pay(all []postgres.BillingPayment) {
	for _, p := range all {
		one := Payment{PaymentID: p.PaymentID, Status: p.Status, Amount: (*analytics.Money)(p.AmountMinor), Currency: p.Currency, Method: p.Method, TransactionID: p.TransactionID, At: p.At.UTC()}
		if p.Month != d.Period {
			one.Corrects, one.Cause = p.Month, LatePayment
		}
		d.Payments = append(d.Payments, one)
		if p.Status == received && p.AmountMinor != nil {
			d.Totals.Received = sum(d.Totals.Received, p.Currency, analytics.Money(*p.AmountMinor))
		}
	}
}

// received is the status of a payment that has come.
const received = "received"

// sum adds an amount to the sums by currency, which are sorted.
func sum(sums []Sum, currency string, amount analytics.Money) []Sum {
	i, there := slices.BinarySearchFunc(sums, currency, func(s Sum, c string) int { return strings.Compare(s.Currency, c) })
	if !there {
		sums = slices.Insert(sums, i, Sum{Currency: currency})
	}
	sums[i].Amount += amount
	return sums
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// closing is the document as it is stored.
func (d *Document) closing(reported []postgres.BillingReported) (*postgres.BillingClosing, error) {
	text, err := encode(d)
	if err != nil {
		return nil, err
	}
	table := d.CSV()
	asOf, err := json.Marshal(d.AsOf)
	if err != nil {
		return nil, fmt.Errorf("write the position of a billing export: %w", err)
	}
	totals, err := json.Marshal(d.Totals)
	if err != nil {
		return nil, fmt.Errorf("write the totals of a billing export: %w", err)
	}
	c := &postgres.BillingClosing{Reported: reported, Export: postgres.BillingExport{
		ExportID: d.ExportID, CompanyID: d.CompanyID, BillingPeriod: d.Period, Revision: d.Revision, State: Closed, AsOf: asOf,
		Checksum: checksum(text), CSVChecksum: checksum(table), Currency: d.Currency, Totals: totals, Reconciled: d.Reconciliation.Equal,
		CreatedAt: d.GeneratedAt, ContentJSON: text, ContentCSV: table,
	}}
	for i := range d.Charges {
		c.Items = append(c.Items, postgres.BillingItem{Kind: "transaction", ID: d.Charges[i].TransactionID})
	}
	for i := range d.Payments {
		c.Items = append(c.Items, postgres.BillingItem{Kind: "payment_" + d.Payments[i].Status, ID: d.Payments[i].PaymentID})
	}
	return c, nil
}
