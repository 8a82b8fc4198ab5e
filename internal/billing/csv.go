package billing

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"tenantflow/internal/analytics"
)

// tableHead are the columns of an export as a table. Every number is in the row of what it is of, so a column can be added up by the kind of its rows.
var tableHead = []string{"line", "company_id", "billing_period", "corrects_period", "cause", "reference", "type", "status", "user_id", "subscription_tier", "service_name", //nolint:gochecknoglobals // a constant table
	"calls", "data_points", "identities", "attributed_revenue", "amount", "currency", "starts_at", "ends_at", "happened_at", "detail"}

// CSV is the export as a table of RFC 4180: lines end with CR LF, and a field with a comma, a quote or a line break is quoted.
//
// A text that a spreadsheet would take for a formula gets an apostrophe in front, and so does one that begins with an apostrophe, so that
// taking one off gives the text back ([harmless]). Numbers and times are written as they are.
func (d *Document) CSV() []byte {
	w := &csvWriter{}
	w.row(tableHead...)
	for _, r := range d.table() {
		w.add(r)
	}
	return w.b.Bytes()
}

// table is the export as rows of tableHead.
func (d *Document) table() []*tableRow {
	var all []*tableRow
	start := func(line string) *tableRow {
		r := &tableRow{line: line, company: d.CompanyID, period: d.Period}
		all = append(all, r)
		return r
	}
	for i := range d.Charges {
		c := &d.Charges[i]
		r := start(c.Kind)
		r.corrects, r.cause, r.reference, r.kind, r.tier = c.Corrects, c.Cause, c.TransactionID, c.Type, c.NewTier
		r.amount, r.currency, r.starts, r.ends, r.at = c.Amount.String(), c.Currency, stamp(c.PeriodStart), stamp(c.PeriodEnd), stamp(&c.At)
		var parts []string
		for _, line := range c.Lines {
			parts = append(parts, line.Description+" "+line.Amount.String())
		}
		r.detail = strings.Join(parts, "; ")
	}
	for i := range d.Payments {
		p := &d.Payments[i]
		r := start("payment")
		r.corrects, r.cause, r.reference, r.kind, r.status, r.currency, r.at, r.detail = p.Corrects, p.Cause, p.PaymentID, p.Method, p.Status, p.Currency, stamp(&p.At), p.TransactionID
		r.amount = amountOf(p.Amount)
	}
	for _, part := range []struct {
		line string
		all  []UsageLine
	}{{"usage", d.Usage}, {"mismatched_usage", d.Mismatched}} {
		for i := range part.all {
			u := &part.all[i]
			r := start(part.line)
			r.user, r.tier, r.service = u.UserID, u.Tier, u.Service
			r.amounts(u.Amounts)
		}
	}
	for i := range d.Corrections {
		c := &d.Corrections[i]
		r := start("correction")
		if c.Mismatched {
			r.line = "mismatched_correction"
		}
		r.corrects, r.cause, r.identities = c.Period, c.Cause, strconv.FormatInt(c.Identities, 10)
		r.amounts(c.Amounts)
	}
	return all
}

func amountOf(m *analytics.Money) string {
	if m == nil {
		return ""
	}
	return m.String()
}

// A tableRow is a row of the table; what it lacks is empty.
type tableRow struct {
	line, company, period, corrects                      string
	cause                                                Cause
	reference, kind, status, user, tier, service         string
	calls, points, identities, revenue, amount, currency string
	starts, ends, at, detail                             string
}

func (r *tableRow) amounts(a Amounts) {
	r.calls, r.points, r.revenue = strconv.FormatInt(a.Calls, 10), strconv.FormatInt(a.DataPoints, 10), a.Attributed.String()
}

type csvWriter struct{ b bytes.Buffer }

// add writes a row. Which columns are texts that come from outside is decided here.
func (w *csvWriter) add(r *tableRow) {
	w.row(r.line, harmless(r.company), r.period, harmless(r.corrects), string(r.cause), harmless(r.reference), harmless(r.kind), r.status, harmless(r.user), harmless(r.tier),
		harmless(r.service), r.calls, r.points, r.identities, r.revenue, r.amount, harmless(r.currency), r.starts, r.ends, r.at, harmless(r.detail))
}

func (w *csvWriter) row(fields ...string) {
	for i, f := range fields {
		if i > 0 {
			w.b.WriteByte(',')
		}
		if strings.ContainsAny(f, ",\"\r\n") || f != strings.TrimSpace(f) {
			w.b.WriteByte('"')
			w.b.WriteString(strings.ReplaceAll(f, `"`, `""`))
			w.b.WriteByte('"')
			continue
		}
		w.b.WriteString(f)
	}
	w.b.WriteString("\r\n")
}

// harmless puts an apostrophe in front of a text that a spreadsheet may take for a formula, also behind spaces and in full-width characters, and in front of one that
// begins with an apostrophe.
func harmless(text string) string {
	if trimmed := strings.TrimLeft(text, " \u00a0\u3000"); strings.HasPrefix(text, "'") || trimmed != "" && strings.ContainsRune("=+-@\t\r\n\v\f＝＋－＠", []rune(trimmed)[0]) {
		return "'" + text
	}
	return text
}

func stamp(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// checksum is the SHA-256 of bytes in hexadecimal digits.
func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
