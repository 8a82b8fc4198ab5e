package billing

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/directory"
)

const hour = time.Hour

func TestExport_SaysWhatACompanyIsBilledFor(t *testing.T) {
	t.Parallel()
	f := setup(t)
	period := ago(3)
	start := period.Start()
	f.exec(t, "INSERT INTO user_memberships (user_id, company_id, since, until) VALUES ('mover', 'acme', '2020-01-01', '"+start.Add(10*hour).Format(time.RFC3339Nano)+"'), ('mover', 'globex', '"+start.Add(10*hour).Format(time.RFC3339Nano)+"', NULL)")
	f.transaction(t, "t-charge", 4900, start, `[{"description": "pro", "amount_minor": 4900}]`)
	f.transaction(t, "t-proration", 22500, start.Add(240*hour), `[{"description": "credit", "amount_minor": -2450}, {"description": "charge", "amount_minor": 24950}]`)
	f.transaction(t, "t-before", 4900, start.Add(-time.Second), `[]`) // of a month that is not closed
	f.payment(t, "p-1", "received", 4900, start.Add(hour))
	f.payment(t, "p-2", "failed", 100, start.Add(2*hour))
	f.payment(t, "p-3", "pending", 200, start.Add(2*hour))
	f.put(t,
		row{user: "u-1", at: start, points: 5, revenue: "0.000001", offset: 1},
		row{user: "u-1", at: start.Add(hour), points: 7, revenue: "1.5", offset: 2},
		row{user: "u-1", tier: "unheard-of", service: "=cmd()", at: start.Add(hour), points: 1, revenue: "2", offset: 3},
		row{user: "u-2", at: start.Add(hour), points: 9, offset: 4, id: "wrong"},
		row{user: "u-2", at: start.Add(hour), points: 9, offset: 5, id: "void-of-wrong", void: true},
		row{user: "mover", at: start.Add(10*hour - time.Millisecond), points: 1, offset: 6},
		row{user: "mover", at: start.Add(10 * hour), points: 2, revenue: "0.25", offset: 7},
		row{user: "u-1", at: start.Add(2 * hour), points: 1, offset: 2_000_000},            // not covered by the position
		row{user: "u-1", at: start.Add(-hour), points: 1, revenue: "3", offset: 8},         // of the month before, which is not closed
		row{user: "g-1", company: "globex", at: start.Add(hour), points: 1000, offset: 10}, // of another company
	)
	export := f.closed(t, "acme", period)
	d := export.document(t)
	text := func() string {
		var all []string
		for _, u := range d.Usage {
			all = append(all, u.UserID+" "+u.Tier+" "+u.Service+" "+number(u.Calls)+" "+number(u.DataPoints)+" "+u.Attributed.String())
		}
		return strings.Join(all, "; ")
	}()
	if want := "mover pro api 1 1 0.000000; u-1 pro api 2 12 1.500001; u-1 unheard-of =cmd() 1 1 2.000000"; text != want {
		t.Errorf("usage %s\nwant  %s", text, want)
	}
	if len(d.Mismatched) != 1 || d.Mismatched[0].UserID != "mover" || !d.Totals.Mismatched.equal(amountsOf(1, 2, "0.25")) || !d.Totals.Usage.equal(amountsOf(4, 14, "3.500001")) {
		t.Errorf("mismatched %+v, totals %+v", d.Mismatched, d.Totals)
	}
	r := d.Reconciliation
	if !r.Equal || !r.RawRows.equal(amountsOf(6, 17, "3.750001")) || !r.Aggregates.equal(r.RawRows) || !r.Export.equal(amountsOf(5, 16, "3.750001")) || !r.Behind.equal(amountsOf(1, 1, "0")) {
		t.Errorf("reconciliation %+v", r)
	}
	if len(d.Charges) != 2 || d.Charges[0].TransactionID != "t-charge" || d.Charges[0].Kind != "charge" || d.Charges[1].Kind != "proration" || d.Charges[1].Lines[0].Amount != -2450 ||
		len(d.Totals.Charged) != 1 || d.Totals.Charged[0] != (Sum{"USD", 27400}) {
		t.Errorf("charges %+v, totals %+v", d.Charges, d.Totals.Charged)
	}
	if len(d.Payments) != 2 || d.Payments[0].PaymentID != "p-1" || d.Payments[1].Status != "failed" || d.Totals.Received[0] != (Sum{"USD", 4900}) {
		t.Errorf("payments %+v, totals %+v", d.Payments, d.Totals.Received)
	}
	if len(d.NotExported) != 1 || d.NotExported[0].Period != (period-1).String() || !d.NotExported[0].equal(amountsOf(1, 1, "3")) || len(d.Corrections) != 0 {
		t.Errorf("not exported %+v, corrections %+v", d.NotExported, d.Corrections)
	}
	if d.State != Closed || d.TimeZone != "UTC" || d.Currency != "USD" || d.Revision != 1 || len(d.LeavesOut) == 0 || d.AsOf.Usage.Partitions[0].Offset != 1_000_000 || d.AsOf.Books.IsZero() ||
		!d.PeriodEnd.Equal((period + 1).Start()) {
		t.Errorf("%+v", d)
	}
	if !export.Reconciled || export.Checksum != checksum(export.JSON) || export.CSVChecksum != checksum(export.CSV) || !bytes.Contains(export.CSV, []byte(",'=cmd(),")) {
		t.Errorf("%+v", export)
	}
	for _, x := range []string{"mail", "a@x"} {
		if bytes.Contains(export.JSON, []byte(x)) {
			t.Errorf("it has %q in it", x)
		}
	}
}

// What comes after a period was closed is in the next export, by its cause, and the closed bytes stay.
func TestExport_CorrectionsAreWhatChanged(t *testing.T) {
	t.Parallel()
	f := setup(t)
	first, next := ago(4), ago(3)
	in := func(n int) time.Time { return first.Start().Add(time.Duration(n) * hour) }
	f.log.reach(10, 10)
	f.transaction(t, "t-1", 4900, in(0), `[]`)
	f.put(t,
		row{user: "u-1", at: in(1), points: 1, revenue: "1", offset: 1},
		row{user: "u-1", at: in(2), points: 2, revenue: "2", offset: 2},
		row{user: "u-1", at: in(3), points: 3, revenue: "3", offset: 3, partition: 1},
		row{user: "u-1", at: in(4), points: 4, revenue: "4", offset: 4},
	)
	closed := f.closed(t, "acme", first)
	f.log.reach(100, 100)
	f.put(t,
		row{user: "u-1", at: in(2), points: 2, revenue: "2", offset: 20, void: true},
		row{user: "u-9", at: in(5), points: 50, revenue: "0.5", offset: 11, partition: 1}, // late
		row{user: "u-9", at: in(6), points: 60, revenue: "0.6", offset: 5},                // repaired: at a position that was exported
		row{user: "u-1", at: in(4), points: 4, revenue: "4", offset: 40, id: "0-4"},       // lost, and published again
		row{user: "u-1", at: next.Start(), points: 9, offset: 50},
		row{user: "u-1", at: in(7), points: 70, offset: 101}, // not yet
	)
	f.lose(t, "acme", 0, 4)
	f.transaction(t, "t-2", 100, in(9), `[]`)
	f.payment(t, "p-1", "received", 4900, in(10))
	second := f.closed(t, "acme", next).document(t)
	p := first.String()
	want := strings.Join([]string{
		p + " late false: 2 events, 2 calls, 54 points, 4.500000",
		p + " repaired false: 0 events, 0 calls, 56 points, -3.400000",
		p + " voided false: 1 events, -1 calls, -2 points, -2.000000",
	}, "\n")
	if got := second.lines(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !second.Totals.Usage.equal(amountsOf(1, 9, "0")) || !second.Totals.Corrections.equal(amountsOf(1, 108, "-0.9")) {
		t.Errorf("totals %+v", second.Totals)
	}
	if len(second.Charges) != 1 || second.Charges[0].Corrects != p || second.Charges[0].Cause != LateCharge || len(second.Payments) != 1 || second.Payments[0].Cause != LatePayment {
		t.Errorf("charges %+v, payments %+v", second.Charges, second.Payments)
	}
	again := f.closed(t, "acme", first)
	if !bytes.Equal(again.JSON, closed.JSON) || !bytes.Equal(again.CSV, closed.CSV) || again.Checksum != closed.Checksum {
		t.Error("the closed export has changed")
	}
	// What was reported is not reported again.
	third := f.closed(t, "acme", ago(2)).document(t)
	if len(third.Corrections)+len(third.Charges)+len(third.Payments) != 0 {
		t.Errorf("reported again: %+v", third)
	}
	f.log.reach(200, 200)
	if got := f.closed(t, "acme", ago(5)).document(t).lines(); got != p+" late false: 1 events, 1 calls, 70 points, 0.000000" { // also in the export of an earlier month
		t.Errorf("got %s", got)
	}
}

// A payment that failed and came later is in two exports, once as each.
func TestExport_APaymentThatFailedFirst(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.payment(t, "p", "failed", 4900, ago(4).Start().Add(hour))
	first := f.closed(t, "acme", ago(4)).document(t)
	f.payment(t, "p", "received", 4900, ago(3).Start().Add(hour))
	second := f.closed(t, "acme", ago(3)).document(t)
	third := f.closed(t, "acme", ago(2)).document(t)
	if len(first.Payments) != 1 || first.Payments[0].Status != "failed" || len(first.Totals.Received) != 0 || len(second.Payments) != 1 || second.Totals.Received[0].Amount != 4900 || len(third.Payments) != 0 {
		t.Errorf("%+v\n%+v\n%+v", first.Payments, second.Payments, third.Payments)
	}
}

// A user who turns out to have belonged to another company takes the usage along: out of one line, into the other.
func TestExport_MembershipsThatAreRecordedLaterAreCorrections(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.put(t, row{user: "u", at: ago(4).Start(), points: 3, revenue: "1", offset: 1})
	f.closed(t, "acme", ago(4))
	f.exec(t, "INSERT INTO user_memberships (user_id, company_id, since) VALUES ('u', 'globex', '2020-01-01')")
	got := f.closed(t, "acme", ago(3)).document(t)
	want := ago(4).String() + " repaired false: 1 events, -1 calls, -3 points, -1.000000\n" + ago(4).String() + " repaired true: 1 events, 1 calls, 3 points, 1.000000"
	if got.lines() != want || !got.Totals.Corrections.equal(amountsOf(-1, -3, "-1")) || !got.Totals.MismatchedCorrections.equal(amountsOf(1, 3, "1")) {
		t.Errorf("got\n%s\nwant\n%s", got.lines(), want)
	}
}

func TestExport_EmptyCompaniesHaveOneToo(t *testing.T) {
	t.Parallel()
	f := setup(t)
	d := f.closed(t, "acme", ago(3)).document(t)
	if !d.empty() || !d.Reconciliation.Equal || !d.Totals.Usage.zero() || d.Charges == nil || d.Totals.Charged == nil {
		t.Errorf("%+v", d)
	}
	if lines := strings.Count(string(d.CSV()), "\r\n"); lines != 1 {
		t.Errorf("%d lines", lines)
	}
}

func TestExport_WrongTotalsAreSaid(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.put(t, row{user: "u", at: ago(3).Start(), points: 3, offset: 1}, row{user: "u", at: ago(3).Start().Add(hour), points: 3, offset: 2})
	f.lose(t, "acme", 0, 1)
	x := f.closed(t, "acme", ago(3))
	if r := x.document(t).Reconciliation; x.Reconciled || r.Equal || !r.RawRows.equal(amountsOf(1, 3, "0")) || !r.Aggregates.equal(amountsOf(2, 6, "0")) {
		t.Errorf("%+v", r)
	}
}

func TestExport_NotBeforeItsTime(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	var notYet *NotYetError
	f.cfg.Grace = 30 * 24 * hour
	month := ago(1)
	if _, err := f.Exporter.Close(ctx, "acme", month); !errors.As(err, &notYet) || !notYet.Until.Equal((month + 1).Start().Add(f.cfg.Grace)) || !strings.Contains(err.Error(), "grace period lasts until") {
		t.Errorf("within the grace period: %v", err)
	}
	f.cfg.Grace = 0
	f.log.until[1] = (month + 1).Start().Add(999 * time.Millisecond)
	if _, err := f.Exporter.Close(ctx, "acme", month); !errors.As(err, &notYet) || !notYet.Until.IsZero() || !strings.Contains(err.Error(), "usage.events: partition 1 is behind") {
		t.Errorf("partition 1 is behind: %v", err)
	}
	if _, err := f.CloseAll(ctx, month, nil); !errors.As(err, &notYet) {
		t.Errorf("all while partition 1 is behind: %v", err)
	}
	if d, err := f.Get(ctx, "acme", month); err != nil || d.State != Draft || d.Checksum != "" || d.ID != "" || d.document(t).ExportID != "" {
		t.Errorf("a draft: %+v, %v", d, err)
	}
	f.log.reach(1, 1)
	if x := f.closed(t, "acme", month); x.State != Closed {
		t.Errorf("%+v", x)
	}
	if d, err := f.Get(ctx, "acme", ago(0)); err != nil || d.State != Open {
		t.Errorf("the present month: %+v, %v", d, err)
	}
	for _, ask := range []func() error{
		func() error { _, err := f.Get(ctx, "acme", ago(-1)); return err },
		func() error { _, err := f.Exporter.Close(ctx, "acme", ago(-1)); return err },
	} {
		if err := ask(); !errors.Is(err, ErrFuture) {
			t.Errorf("a month that has not begun: %v", err)
		}
	}
	if _, err := f.Get(ctx, "acme", ago(25)); !errors.Is(err, ErrTooOld) {
		t.Errorf("a month whose rows may be gone: %v", err)
	}
	f.exec(t, "INSERT INTO companies (company_id, name, billing_email, status) VALUES ('gone', '', '', 'purged')")
	for _, company := range []string{"stranger", "gone"} {
		if _, err := f.Get(ctx, company, month); !errors.Is(err, directory.ErrUnknown) {
			t.Errorf("%s: %v", company, err)
		}
	}
	if _, err := f.Exporter.Close(ctx, "stranger", month); !errors.Is(err, directory.ErrUnknown) {
		t.Errorf("close for a stranger: %v", err)
	}
}

func TestParsePeriod(t *testing.T) {
	t.Parallel()
	for text, good := range map[string]bool{"2026-10": true, "2000-01": true, "1999-12": false, "2026-13": false, "2026-1": false, "2026-00": false, "": false, "26-10": false, "2026-10-01": false, " 2026-10": false} {
		if got, err := ParsePeriod(text); (err == nil) != good || good && got.String() != text {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// Whatever the order of two times and however they overlap, the company's own membership counts.
func TestElsewhere_OwnMembershipsCount(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.exec(t, `INSERT INTO user_memberships (user_id, company_id, since, until) VALUES ('a', 'globex', '2021-01-01', '2021-06-01'), ('a', 'acme', '2021-02-01', '2021-03-01'), ('a', 'acme', '2021-05-01', NULL),
		('b', 'globex', '2021-01-01 00:00:00.0001Z', NULL), ('b', 'initech', '2020-12-01', '2021-02-01'), ('c', 'acme', '2021-01-01', NULL)`)
	all, err := f.store.ForeignMemberships(t.Context(), "acme", []string{"a", "b", "c", "d"})
	if err != nil {
		t.Fatal(err)
	}
	at := func(text string) int64 {
		when, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return when.UnixMilli()
	}
	got := elsewhere("acme", all)
	want := []foreign{{"a", at("2021-01-01T00:00:00Z"), at("2021-02-01T00:00:00Z")}, {"a", at("2021-03-01T00:00:00Z"), at("2021-05-01T00:00:00Z")}, {"b", at("2020-12-01T00:00:00Z"), 1<<63 - 1}}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %v, want %v", i, got[i], want[i])
		}
	}
}
