package billing

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A payment at checkout may be of a month before the one in which the company was registered, which is never closed for it.
func TestExport_HasMoneyOfBeforeTheRegistration(t *testing.T) {
	t.Parallel()
	f := setup(t)
	month := ago(3)
	f.exec(t, "UPDATE companies SET created_at = '"+month.Start().Add(hour).Format(time.RFC3339)+"' WHERE company_id = 'acme'")
	f.payment(t, "p-checkout", "received", 4900, month.Start().Add(-time.Minute))
	f.transaction(t, "t-checkout", 4900, month.Start().Add(-time.Minute), `[]`)
	f.payment(t, "p-later", "received", 100, (month + 1).Start())
	d := f.closed(t, "acme", month).document(t)
	if len(d.Payments) != 1 || d.Payments[0].PaymentID != "p-checkout" || d.Payments[0].Corrects != (month-1).String() || d.Payments[0].Cause != LatePayment ||
		len(d.Charges) != 1 || d.Charges[0].TransactionID != "t-checkout" || d.Charges[0].Cause != LateCharge {
		t.Errorf("%+v, %+v", d.Payments, d.Charges)
	}
	if d = f.closed(t, "acme", month+1).document(t); len(d.Payments) != 1 || d.Payments[0].PaymentID != "p-later" || len(d.Charges) != 0 {
		t.Errorf("the next one: %+v, %+v", d.Payments, d.Charges)
	}
}

// A draft of a closed month would lack the charges and payments that the export has.
func TestDraft_ThereIsNoneOfAClosedMonth(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.payment(t, "p-1", "received", 4900, ago(3).Start())
	closed := f.closed(t, "acme", ago(3))
	if draft, err := f.Draft(t.Context(), "acme", ago(3)); !errors.Is(err, ErrClosed) {
		t.Errorf("%+v, %v", draft, err)
	}
	if got, err := f.Get(t.Context(), "acme", ago(3)); err != nil || !slices.Equal(got.JSON, closed.JSON) {
		t.Errorf("%+v, %v", got, err)
	}
}

// The users who moved to another company stand in the query: they may be more than a statement of ClickHouse usually has room for.
func TestExport_OfManyUsersWhoMoved(t *testing.T) {
	t.Parallel()
	f := setup(t)
	month, name := ago(3), strings.Repeat("x", 36)
	const users = 4000
	f.exec(t, fmt.Sprintf("INSERT INTO user_memberships (user_id, company_id, since) SELECT '%s-' || i, 'globex', '2020-01-01' FROM generate_series(1, %d) AS i", name, users))
	rows := make([]row, users)
	for i := range rows {
		rows[i] = row{user: fmt.Sprintf("%s-%d", name, i+1), at: month.Start(), points: 1, offset: int64(i)}
	}
	f.put(t, rows...)
	if d := f.closed(t, "acme", month).document(t); d.Totals.Mismatched.Calls != users || d.Totals.Usage.Calls != 0 {
		t.Errorf("%+v", d.Totals)
	}
}
