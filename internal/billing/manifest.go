package billing

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tenantflow/internal/analytics"
)

// The forms of an export.
const (
	JSON    = "json"
	CSV     = "csv"
	Parquet = "parquet"
)

// Forms lists the forms.
func Forms() []string { return []string{JSON, CSV, Parquet} }

// Content is the bytes of a form, JSON or CSV, and their checksum; empty: the export is not closed.
func (x *Export) Content(form string) (text []byte, sum string) {
	if form == CSV {
		return x.CSV, x.CSVChecksum
	}
	return x.JSON, x.Checksum
}

// A Manifest lists the closed exports of a period, with sums over them. While it is not complete, companies are missing in both.
type Manifest struct {
	Period    string         `json:"billing_period"`
	TimeZone  string         `json:"time_zone"`
	Complete  bool           `json:"complete"`
	Failed    int            `json:"failed"`     // companies that could not be closed
	NotClosed []string       `json:"not_closed"` // the first of them
	Companies int            `json:"companies"`
	Sums      []CurrencySums `json:"sums"`
	Exports   []Listed       `json:"exports"`
}

// CurrencySums are the sums over the exports of companies that have one currency. Money that was charged or received in another one than that of its company
// counts for the currency it is in.
type CurrencySums struct {
	Currency              string          `json:"currency"`
	Companies             int             `json:"companies"`
	Usage                 Amounts         `json:"usage"`
	Mismatched            Amounts         `json:"mismatched_usage"`
	Corrections           Amounts         `json:"corrections"`
	MismatchedCorrections Amounts         `json:"mismatched_corrections"`
	Charged               analytics.Money `json:"charged"`
	Received              analytics.Money `json:"received"`
}

// A Listed is an export in a manifest.
type Listed struct {
	CompanyID  string `json:"company_id"`
	ExportID   string `json:"export_id"`
	File       string `json:"file"`
	Checksum   string `json:"sha256"` // of the file
	Currency   string `json:"currency"`
	Reconciled bool   `json:"reconciled"`
	Totals     Totals `json:"totals"`
}

// A Folder takes the exports of a period as files, and their manifest. Every file is written beside its place and moved there, so what is there is whole.
type Folder struct {
	path, form string
	manifest   Manifest
}

// NewFolder makes a folder for exports of one form, if it is not there.
func NewFolder(path, form string, period analytics.Month) (*Folder, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("make the folder of billing exports: %w", err)
	}
	return &Folder{path: path, form: form, manifest: Manifest{Period: period.String(), TimeZone: "UTC", Sums: []CurrencySums{}, Exports: []Listed{}}}, nil
}

// Put writes the file of a closed export, unless it is there as it should be.
func (f *Folder) Put(x *Export) error {
	text, sum := x.Content(f.form)
	name := x.Company + "." + x.Period + "." + f.form // a company may be called manifest
	path := filepath.Join(f.path, name)
	if there, err := os.ReadFile(path); err != nil || checksum(there) != sum { // #nosec G304 -- the folder is the caller's
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look at billing export %s: %w", path, err)
		}
		if err := WriteFile(path, text); err != nil {
			return err
		}
	}
	f.manifest.Exports = append(f.manifest.Exports, Listed{x.Company, x.ID, name, sum, x.Currency, x.Reconciled, x.Totals})
	return nil
}

// Finish writes manifest.json and manifest.csv of a run that has put all exports that there are, and returns the manifest.
func (f *Folder) Finish(of *Summary) (*Manifest, error) {
	m := &f.manifest
	m.Complete, m.Failed, m.NotClosed = of.Failed == 0, of.Failed, of.NotClosed
	m.add()
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the manifest of billing exports: %w", err)
	}
	if err := WriteFile(filepath.Join(f.path, "manifest.json"), append(text, '\n')); err != nil {
		return nil, err
	}
	return m, WriteFile(filepath.Join(f.path, "manifest.csv"), m.csv())
}

// add sorts the exports and adds them up.
func (m *Manifest) add() {
	slices.SortFunc(m.Exports, func(a, b Listed) int { return strings.Compare(a.CompanyID, b.CompanyID) })
	m.Companies = len(m.Exports)
	of := map[string]*CurrencySums{}
	sums := func(currency string) *CurrencySums {
		if of[currency] == nil {
			of[currency] = &CurrencySums{Currency: currency}
		}
		return of[currency]
	}
	for i := range m.Exports {
		t, s := &m.Exports[i].Totals, sums(m.Exports[i].Currency)
		s.Companies++
		s.Usage, s.Mismatched = s.Usage.plus(t.Usage), s.Mismatched.plus(t.Mismatched)
		s.Corrections, s.MismatchedCorrections = s.Corrections.plus(t.Corrections), s.MismatchedCorrections.plus(t.MismatchedCorrections)
		for _, c := range t.Charged {
			sums(c.Currency).Charged += c.Amount
		}
		for _, c := range t.Received {
			sums(c.Currency).Received += c.Amount
		}
	}
	m.Sums = make([]CurrencySums, 0, len(of))
	for _, s := range of {
		m.Sums = append(m.Sums, *s)
	}
	slices.SortFunc(m.Sums, func(a, b CurrencySums) int { return cmp.Compare(a.Currency, b.Currency) })
}

// csv is a row for each export and money's currency, one for each company that could not be closed, and behind them one for each currency with the sums:
// line is export, missing or total. Of an export with several currencies only the row of the company's own has usage, so that every column can be added up.
func (m *Manifest) csv() []byte {
	w := &csvWriter{}
	w.row("line", "company_id", "export_id", "file", "sha256", "reconciled", "currency", "calls", "data_points", "attributed_revenue",
		"mismatched_calls", "mismatched_data_points", "mismatched_attributed_revenue", "corrected_calls", "corrected_data_points", "corrected_attributed_revenue",
		"mismatched_corrected_calls", "mismatched_corrected_data_points", "mismatched_corrected_attributed_revenue", "charged", "received")
	row := func(first []string, currency string, s *CurrencySums) {
		fields := slices.Concat(first, []string{harmless(currency)})
		for _, a := range []Amounts{s.Usage, s.Mismatched, s.Corrections, s.MismatchedCorrections} {
			fields = append(fields, number(a.Calls), number(a.DataPoints), a.Attributed.String())
		}
		w.row(append(fields, s.Charged.String(), s.Received.String())...)
	}
	for i := range m.Exports {
		e := &m.Exports[i]
		one := Manifest{Exports: []Listed{*e}}
		one.add()
		for _, s := range one.Sums {
			row([]string{"export", harmless(e.CompanyID), e.ExportID, harmless(e.File), e.Checksum, strconv.FormatBool(e.Reconciled)}, s.Currency, &s)
		}
	}
	for _, company := range m.NotClosed {
		w.row(slices.Concat([]string{"missing", harmless(company)}, make([]string, manifestColumns-2))...)
	}
	for i := range m.Sums {
		row([]string{"total", "", "", "", "", ""}, m.Sums[i].Currency, &m.Sums[i])
	}
	return w.b.Bytes()
}

// manifestColumns is how many columns manifest.csv has.
const manifestColumns = 21

func number(n int64) string { return strconv.FormatInt(n, 10) }

// WriteFile writes a file beside its place and moves it there.
func WriteFile(path string, text []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), ".billing-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name()) // it is not in its place, and takes room only
		}
	}()
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err = os.Rename(file.Name(), path); err != nil {
		return fmt.Errorf("move %s into place: %w", path, err)
	}
	return nil
}
