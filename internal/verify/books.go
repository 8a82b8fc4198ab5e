package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// Books is how much of the books of companies was looked at.
type Books struct {
	Companies    int64 `json:"companies"`
	Transactions int64 `json:"transactions"`
	Payments     int64 `json:"payments"`
	Effects      int64 `json:"effects"` // on subscriptions, of the audit logs
	Users        int64 `json:"users"`
	// Untold companies were not registered by an event, or their audit log is broken: what their books should be is not known.
	Untold int64 `json:"untold"`
}

// checkBooks walks through the companies: their audit logs, and their books, users and limits against them.
func (v *Verifier) checkBooks(ctx context.Context, report *Report) error {
	const page = 500
	for after := ""; ; {
		companies, err := v.cfg.Tenants.BookedCompanies(ctx, after, page, v.cfg.Since)
		if err != nil {
			return err
		}
		for _, company := range companies {
			after = company
			if err := v.checkCompany(ctx, company, report); err != nil {
				return err
			}
		}
		v.cfg.Progress(Progress{Stage: "books", Done: report.Books.Companies, Differences: report.Differences()})
		if len(companies) < page {
			return nil
		}
	}
}

// checkCompany looks at one company.
func (v *Verifier) checkCompany(ctx context.Context, company string, report *Report) error {
	faults, err := v.cfg.Tenants.VerifyAudit(ctx, company)
	if err != nil {
		return err
	}
	for _, f := range faults {
		report.Findings.add(Finding{Kind: BrokenAudit, Where: fmt.Sprintf("audit_log %s/%d", f.CompanyID, f.Seq), Detail: f.Problem})
	}
	read, err := v.cfg.Tenants.Books(ctx, company)
	if err != nil {
		return err
	}
	b := &booksCheck{Books: read, told: len(faults) == 0}
	b.judge()
	n := &report.Books
	n.Companies++
	n.Transactions += int64(len(read.Transactions))
	n.Payments += int64(len(read.Payments))
	n.Effects += int64(len(read.Audit))
	n.Users += int64(len(read.Directory))
	if !b.told {
		n.Untold++
	}
	for _, f := range b.findings {
		report.Findings.add(f)
	}
	return nil
}

// A booksCheck judges what is recorded of one company. What its subscription, its transactions, its payments and its history must be
// follows from its audit log, whose chain shows whether it was changed.
type booksCheck struct {
	*postgres.Books
	told   bool // the audit log is whole, and begins with the company's registration
	closed bool // the subscription ended with the company

	now       told
	explained map[string]bool // transactions that an effect has made
	named     map[string]bool // transactions of which something is wrong
	received  map[string]int64
	failed    map[string]bool // payments
	findings  []Finding
}

// A told is what the audit log says of a subscription, up to some effect.
type told struct {
	tier       string
	start, end time.Time // of the period; zero: not known
	expired    *told     // what an expiry has ended
	back       *told     // what a payment may have brought back: the audit log does not say which
	last       string    // the last transaction
}

// find notes a finding. What is wrong with one row is one finding.
func (b *booksCheck) find(kind Kind, where, format string, args ...any) {
	for i := range b.findings {
		if f := &b.findings[i]; f.Kind == kind && f.Where == where {
			f.Detail += "; " + fmt.Sprintf(format, args...)
			return
		}
	}
	b.findings = append(b.findings, Finding{Kind: kind, Where: where, Detail: fmt.Sprintf(format, args...)})
}

func (b *booksCheck) judge() {
	b.explained, b.named, b.received, b.failed = map[string]bool{}, map[string]bool{}, map[string]int64{}, map[string]bool{}
	b.told = b.told && len(b.Audit) > 0 && b.Audit[0].Action == "company.created"
	b.transactions() // which alone shows what stands in each
	if b.told {
		for i := range b.Audit {
			b.effect(&b.Audit[i])
		}
		b.unexplained()
		b.history()
		b.payments()
	}
	b.subscription()
	b.users()
}

// where names a row of a table.
func (b *booksCheck) where(table, row string) string { return table + " " + b.CompanyID + " " + row }

// transactions looks at each transaction alone.
func (b *booksCheck) transactions() {
	for i := range b.Transactions {
		t := &b.Transactions[i]
		var lines []tier.Line
		sum := int64(0)
		var wrong []string
		if err := json.Unmarshal(t.Lines, &lines); err != nil {
			wrong = append(wrong, "its lines can't be read: "+err.Error())
		}
		for _, l := range lines {
			sum += l.AmountMinor
		}
		if sum != t.AmountMinor {
			wrong = append(wrong, fmt.Sprintf("its lines sum to %d, and its amount is %d", sum, t.AmountMinor))
		}
		if t.AmountMinor < 0 {
			wrong = append(wrong, fmt.Sprintf("its amount is %d, and no change gives money back", t.AmountMinor))
		}
		if t.PeriodStart == nil || t.PeriodEnd == nil || !t.PeriodEnd.After(*t.PeriodStart) {
			wrong = append(wrong, "it is for no period")
		}
		if len(wrong) > 0 {
			b.explained[t.ID] = true // one finding is enough
			b.wrong(t, "%s", strings.Join(wrong, "; "))
		}
	}
}

// transaction finds a transaction.
func (b *booksCheck) transaction(id string) *postgres.BookedTransaction {
	i := slices.IndexFunc(b.Transactions, func(t postgres.BookedTransaction) bool { return t.ID == id })
	if i < 0 {
		return nil
	}
	return &b.Transactions[i]
}

// An effectDetails is what the audit log keeps of an effect on a subscription.
type effectDetails struct {
	Tier        string    `json:"tier"`
	From        string    `json:"from"`
	To          string    `json:"to"`
	AmountMinor int64     `json:"amount_minor"`
	PeriodStart time.Time `json:"period_start"`
	PeriodEnd   time.Time `json:"period_end"`
	Reinstated  bool      `json:"reinstated"`
	PaymentID   string    `json:"payment_id"`
}

// effect takes an effect in, and looks at the transaction that it has made.
func (b *booksCheck) effect(e *postgres.BookedEffect) {
	var d effectDetails
	if err := json.Unmarshal([]byte(e.Details), &d); err != nil {
		b.told = false // it was written by a version that this one does not know
		return
	}
	at := e.OccurredAt.UTC()
	free := func() {
		b.now = told{tier: tier.Free, start: at, end: tier.NextPeriodEnd(at, at.Day()), last: b.now.last}
	}
	switch e.Action {
	case "company.created":
		free()
		b.now.tier = d.Tier
	case "subscription.upgraded":
		b.follow(d.From)
		b.moved(e, &d, "upgrade")
	case "subscription.downgraded":
		b.follow(d.From)
		b.moved(e, &d, "downgrade")
	case "subscription.renewed":
		if d.Reinstated {
			b.now.back = nil
		} else {
			b.follow(d.Tier)
		}
		b.renewed(e, &d)
	case "subscription.closed":
		b.closed = true
	case "subscription.cancelled":
		b.follow(d.Tier)
		free()
	case "subscription.expired":
		b.follow(d.Tier)
		ended := told{tier: d.Tier, start: b.now.start, end: b.now.end}
		free()
		b.now.expired = &ended
	case "subscription.payment_recorded":
		b.received[d.PaymentID] = d.AmountMinor
		b.now.back = b.now.expired
	case "subscription.payment_failed":
		b.failed[d.PaymentID] = true
	}
}

// follow brings back what a payment has reinstated, if the next effect says that it has.
func (b *booksCheck) follow(from string) {
	if back := b.now.back; back != nil && from == back.tier {
		b.now = told{tier: back.tier, start: back.start, end: back.end, last: b.now.last}
	}
	b.now.back = nil
}

// moved is an effect that has changed the tier.
func (b *booksCheck) moved(e *postgres.BookedEffect, d *effectDetails, kind string) {
	b.now = told{tier: d.To}
	id := events.ResultID(e.Source, e.EventID, "transaction", 0)
	if t := b.charged(e, id, kind, d.From, d.To); t != nil {
		if t.AmountMinor != d.AmountMinor {
			b.wrong(t, "its amount is %d, and record %d of the audit log says %d", t.AmountMinor, e.Seq, d.AmountMinor)
		}
		b.now = told{tier: d.To, start: t.PeriodStart.UTC(), end: t.PeriodEnd.UTC(), last: id}
	}
}

// renewed is an effect that has begun a period, or repeated the one that is.
func (b *booksCheck) renewed(e *postgres.BookedEffect, d *effectDetails) {
	from := b.now.tier
	b.now = told{tier: d.Tier, start: d.PeriodStart.UTC(), end: d.PeriodEnd.UTC(), last: b.now.last}
	id := events.ResultID(e.Source, e.EventID, "transaction", 0)
	if b.transaction(id) == nil {
		// One that repeats the period has none of its own: the period was charged when it began.
		if !slices.ContainsFunc(b.Transactions, func(t postgres.BookedTransaction) bool {
			return t.PeriodStart != nil && t.PeriodEnd != nil && t.PeriodStart.Equal(d.PeriodStart) && t.PeriodEnd.Equal(d.PeriodEnd)
		}) {
			b.find(WrongTransaction, b.where("billing_transactions", id), "it is missing: record %d of the audit log (%s) begins the period from %s, and no transaction is for it",
				e.Seq, e.Action, stamp(d.PeriodStart))
		}
		return
	}
	if t := b.charged(e, id, "renewal", from, d.Tier); t != nil {
		if !t.PeriodStart.Equal(d.PeriodStart) || !t.PeriodEnd.Equal(d.PeriodEnd) {
			b.wrong(t, "it is for the period from %s, and record %d of the audit log begins the one from %s", stamp(*t.PeriodStart), e.Seq, stamp(d.PeriodStart))
		}
		b.now.last = id
	}
}

// charged finds the transaction of an effect and looks whether it says the same. It is nil where there is none to go by.
func (b *booksCheck) charged(e *postgres.BookedEffect, id, kind, from, to string) *postgres.BookedTransaction {
	t := b.transaction(id)
	if t == nil {
		b.find(WrongTransaction, b.where("billing_transactions", id), "it is missing: record %d of the audit log (%s) has made it", e.Seq, e.Action)
		return nil
	}
	if b.explained[id] {
		return nil // it is wrong in itself, and named
	}
	b.explained[id] = true
	if t.Type != kind || t.NewTier != to || t.OldTier != from {
		b.wrong(t, "it is an %s from %s to %s, and record %d of the audit log says %s from %s to %s", t.Type, t.OldTier, t.NewTier, e.Seq, kind, from, to)
	}
	if !t.CreatedAt.Equal(e.OccurredAt) {
		b.wrong(t, "it is of %s, and record %d of the audit log of %s", stamp(t.CreatedAt), e.Seq, stamp(e.OccurredAt))
	}
	return t
}

func (b *booksCheck) wrong(t *postgres.BookedTransaction, format string, args ...any) {
	b.named[t.ID] = true
	b.find(WrongTransaction, b.where("billing_transactions", t.ID), format, args...)
}

// unexplained names transactions that no effect has made, and periods that are charged more than once.
func (b *booksCheck) unexplained() {
	type period struct {
		tier       string
		start, end int64
	}
	charges := map[period]string{}
	byEffect := func(x, y postgres.BookedTransaction) int { // those that effects have made come first
		switch {
		case b.explained[x.ID] == b.explained[y.ID]:
			return 0
		case b.explained[x.ID]:
			return -1
		}
		return 1
	}
	for _, t := range slices.SortedStableFunc(slices.Values(b.Transactions), byEffect) {
		if t.AmountMinor > 0 && t.PeriodStart != nil && t.PeriodEnd != nil {
			p := period{t.NewTier, t.PeriodStart.UnixMicro(), t.PeriodEnd.UnixMicro()}
			if first := charges[p]; first != "" {
				b.find(ChargedTwice, b.where("billing_transactions", t.ID), "the period of %s from %s is charged by transaction %s already", t.NewTier, stamp(*t.PeriodStart), first)
				continue
			}
			charges[p] = t.ID
		}
		if !b.explained[t.ID] {
			b.wrong(&t, "the audit log has no effect that has made it")
		}
	}
}

// history compares subscription_events with the audit log: every effect is in both.
func (b *booksCheck) history() {
	type key struct{ source, id, action string }
	missing := map[key][]*postgres.BookedEffect{}
	for i := range b.Audit {
		e := &b.Audit[i]
		k := key{e.Source, e.EventID, e.Action}
		missing[k] = append(missing[k], e)
	}
	for i := range b.History {
		h := &b.History[i]
		k := key{h.Source, h.EventID, h.Action}
		place := b.where("subscription_events", fmt.Sprint(h.Seq))
		same := slices.IndexFunc(missing[k], func(e *postgres.BookedEffect) bool {
			return e.OccurredAt.Equal(h.OccurredAt) && sumOf([]byte(e.Details)) == sumOf([]byte(h.Details))
		})
		switch {
		case same >= 0:
			missing[k] = slices.Delete(missing[k], same, same+1)
		case len(missing[k]) > 0:
			b.find(WrongHistory, place, "it says something else than record %d of the audit log (%s)", missing[k][0].Seq, h.Action)
			missing[k] = missing[k][1:]
		default:
			b.find(WrongHistory, place, "the audit log has no such effect (%s)", h.Action)
		}
	}
	for _, left := range missing {
		for _, e := range left {
			b.find(WrongHistory, b.where("subscription_events", fmt.Sprintf("%s of event %s", e.Action, e.EventID)), "it is missing: it is record %d of the audit log", e.Seq)
		}
	}
}

// payments compares the payments with the audit log.
func (b *booksCheck) payments() {
	known := map[string]bool{}
	for i := range b.Payments {
		p := &b.Payments[i]
		known[p.ID] = true
		amount, told := b.received[p.ID]
		var wrong []string
		switch {
		case told && p.Status != "received":
			wrong = append(wrong, fmt.Sprintf("it is %s, and the audit log says that it was received", p.Status))
		case told && (p.AmountMinor != amount || p.Currency != b.Currency && b.Currency != ""):
			wrong = append(wrong, fmt.Sprintf("it is %d %s, and the audit log says %d", p.AmountMinor, p.Currency, amount))
		case !told && p.Status == "received":
			wrong = append(wrong, "it was received, and the audit log does not say so")
		case p.Status == "failed" && !b.failed[p.ID]:
			wrong = append(wrong, "it has failed, and the audit log does not say so")
		}
		if p.TransactionID != "" && b.transaction(p.TransactionID) == nil && b.explainedOrMade(p.TransactionID) {
			wrong = append(wrong, "it pays for transaction "+p.TransactionID+", which the company does not have")
		}
		if len(wrong) > 0 {
			b.find(WrongPayment, b.where("payments", p.ID), "%s", strings.Join(wrong, "; "))
		}
	}
	for _, of := range []map[string]bool{b.failed, keysOf(b.received)} {
		for _, id := range slices.Sorted(maps.Keys(of)) {
			if !known[id] {
				known[id] = true
				b.find(WrongPayment, b.where("payments", id), "it is missing: the audit log has it")
			}
		}
	}
}

// explainedOrMade reports whether a transaction that is not there is not one that an effect has made: those are named already.
func (b *booksCheck) explainedOrMade(id string) bool {
	return !slices.ContainsFunc(b.Audit, func(e postgres.BookedEffect) bool {
		return events.ResultID(e.Source, e.EventID, "transaction", 0) == id
	})
}

func keysOf[V any](m map[string]V) map[string]bool {
	keys := make(map[string]bool, len(m))
	for k := range m {
		keys[k] = true
	}
	return keys
}

// stamp writes a time as a finding has it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
