package billing

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/kafka"
)

// companies registers some, beside acme and globex.
func (f *fixture) companies(t testing.TB, n int) {
	t.Helper()
	f.exec(t, fmt.Sprintf(`INSERT INTO companies (company_id, name, billing_email, created_at, currency)
		SELECT 'c-' || i, 'C', 'c@x', '2020-01-01', CASE WHEN i %% 2 = 0 THEN 'EUR' ELSE 'USD' END FROM generate_series(1, %d) AS i`, n))
}

// A run that was killed half way is started again: what is closed stays, and the manifest lists everything once, with sums that add up.
func TestAll_GoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.companies(t, 30)
	period := ago(3)
	f.transaction(t, "t-1", 4900, period.Start(), `[]`)
	f.payment(t, "p-1", "received", 1000, period.Start())
	var rows []row
	for i := range 30 {
		rows = append(rows, row{company: fmt.Sprint("c-", i+1), user: "u", at: period.Start().Add(hour), points: i, revenue: "0.1", offset: int64(i)})
	}
	f.put(t, rows...)
	dir := t.TempDir()
	killed, kill := context.WithCancel(t.Context())
	folder, err := NewFolder(dir, CSV, period)
	if err != nil {
		t.Fatal(err)
	}
	written := 0
	if _, err := f.CloseAll(killed, period, func(x *Export) error {
		if written++; written == 7 {
			kill()
		}
		return folder.Put(x)
	}); !errors.Is(err, context.Canceled) {
		t.Fatalf("killed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "manifest.json")); !os.IsNotExist(err) {
		t.Errorf("a killed run has a manifest: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "c-1."+period.String()+".csv"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if folder, err = NewFolder(dir, CSV, period); err != nil {
		t.Fatal(err)
	}
	s, err := f.CloseAll(t.Context(), period, folder.Put)
	if err != nil || s.Companies != 32 || s.Closed+s.Before != 32 || s.Before < 7 || s.Failed+s.Nothing+s.Unreconciled != 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	m, err := folder.Finish(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Sums) != 2 || m.Sums[0].Currency != "EUR" || m.Sums[0].Companies != 15 || m.Sums[0].Usage.Calls != 15 || m.Sums[0].Usage.Attributed.String() != "1.500000" ||
		m.Sums[1].Charged != 4900 || m.Sums[1].Received != 1000 || m.Sums[1].Companies != 17 || m.Sums[1].Usage.Calls != 15 {
		t.Errorf("sums %+v", m.Sums)
	}
	text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var read Manifest
	if err := json.Unmarshal(text, &read); err != nil || len(read.Exports) != 32 || read.Companies != 32 {
		t.Fatalf("%v, %d exports", err, len(read.Exports))
	}
	for _, e := range read.Exports {
		file, err := os.ReadFile(filepath.Join(dir, e.File))
		if err != nil || checksum(file) != e.Checksum {
			t.Errorf("%s: %v, or not the bytes of the checksum", e.File, err)
		}
	}
	table, err := os.ReadFile(filepath.Join(dir, "manifest.csv"))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(string(table))).ReadAll()
	if err != nil || len(lines) != 1+32+2 {
		t.Errorf("%v, %d lines", err, len(lines))
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".billing-*")); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// A company that had ended before the month has an export only if something came late, and for three months. Purged ones have theirs as well.
func TestAll_OfCompaniesThatEnded(t *testing.T) {
	t.Parallel()
	f := setup(t)
	period := ago(3)
	stamp := func(at time.Time) string { return "'" + at.UTC().Format(time.RFC3339) + "'" }
	f.exec(t, "INSERT INTO companies (company_id, name, billing_email, status, created_at, closed_at) VALUES "+
		"('within', 'W', 'w@x', 'closed', '2020-01-01', "+stamp(period.Start())+"), ('purged', '', '', 'purged', '2020-01-01', "+stamp(period.Start())+"), "+
		"('quiet', 'Q', 'q@x', 'closed', '2020-01-01', "+stamp(period.Start().Add(-time.Second))+"), ('late', 'L', 'l@x', 'closed', '2020-01-01', "+stamp(period.Start().Add(-time.Second))+"), "+
		"('long-ago', 'O', 'o@x', 'closed', '2020-01-01', "+stamp(period.Start().AddDate(0, -3, -1))+"), ('afterwards', 'N', 'n@x', 'active', "+stamp((period+1).Start())+", NULL)")
	f.put(t, row{company: "late", user: "u", at: (period - 1).Start(), points: 1, offset: 1})
	for _, company := range []string{"late", "quiet"} {
		f.log.reach(0, 0)
		f.closed(t, company, period-1)
	}
	f.log.reach(10, 10)
	s, err := f.CloseAll(t.Context(), period, nil)
	if err != nil || s.Closed != 5 || s.Nothing != 1 || s.Companies != 6 {
		t.Errorf("%+v, %v", s, err)
	}
	for company, want := range map[string]bool{"acme": true, "globex": true, "within": true, "purged": true, "late": true, "quiet": false, "long-ago": false, "afterwards": false} {
		got, err := f.store.BillingExport(t.Context(), company, period.String())
		if err != nil || (got != nil) != want {
			t.Errorf("%s: %v, %v, want an export: %v", company, got, err, want)
		}
	}
	again, err := f.CloseMonth(t.Context(), (period + 1).Start())
	if err != nil || again.Closed != 0 || again.Before != 5 {
		t.Errorf("the job: %+v, %v", again, err)
	}
}

// One that can't be closed does not stop the others.
func TestAll_OneThatFailsDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.companies(t, 3)
	f.exec(t, `CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$`,
		`CREATE TRIGGER refuse BEFORE INSERT ON billing_exports FOR EACH ROW WHEN (NEW.company_id = 'c-2') EXECUTE FUNCTION public.refuse()`)
	dir := t.TempDir()
	folder, err := NewFolder(dir, JSON, ago(3))
	if err != nil {
		t.Fatal(err)
	}
	s, err := f.CloseAll(t.Context(), ago(3), folder.Put)
	if err == nil || !strings.Contains(err.Error(), "company c-2") || s == nil || s.Failed != 1 || s.Closed != 4 {
		t.Fatalf("%+v, %v", s, err)
	}
	m, err := folder.Finish(s)
	if err != nil || m.Complete || m.Failed != 1 || !slices.Equal(m.NotClosed, []string{"c-2"}) {
		t.Errorf("the manifest says %+v, %v", m, err)
	}
	table, err := os.ReadFile(filepath.Join(dir, "manifest.csv"))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(string(table))).ReadAll() // an error where rows differ in length
	if err != nil || !slices.ContainsFunc(lines, func(l []string) bool { return l[0] == "missing" && l[1] == "c-2" }) {
		t.Errorf("%v, %q", err, lines)
	}
}

// A store that is away is no fault of the companies: it ends the run instead of failing for each of them.
func TestAll_StoreThatIsAwayEndsTheRun(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.companies(t, 60)
	if err := f.cfg.Rows.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := f.CloseAll(t.Context(), ago(3), nil); err == nil || s != nil {
		t.Errorf("%+v, %v, want an error and no summary", s, err)
	}
}

// Brokers that don't answer hold up no closing: what is closed waits for a sweep.
func TestAll_KafkaThatIsAwayStopsNoClosing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.companies(t, 3)
	results := kafka.NewResults(&kafkago.Client{Addr: kafkago.TCP("127.0.0.1:1")})
	defer func() { _ = results.Close() }()
	f.cfg.Results, f.cfg.Topic = results, "billing.exports"
	f.within = 50 * time.Millisecond
	f.closed(t, "acme", ago(4))
	for _, company := range []string{"acme", "globex"} {
		f.closed(t, company, ago(3))
	}
	s, err := f.CloseMonth(t.Context(), (ago(3) + 1).Start())
	if err != nil || s.Closed != 3 || s.Before != 2 || s.Unannounced != 3 {
		t.Errorf("%+v, %v", s, err)
	}
	if left, err := f.store.UnpublishedBilling(t.Context(), 10); err != nil || len(left) != 6 {
		t.Errorf("%d wait for a sweep, %v", len(left), err)
	}
}
