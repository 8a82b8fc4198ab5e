package billing

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"tenantflow/internal/analytics"
)

func amountIn(text string) decimal.Decimal { return decimal.RequireFromString(text) }

func amountsOf(calls, points int64, revenue string) Amounts {
	return Amounts{calls, points, analytics.Attributed{Decimal: amountIn(revenue)}}
}

// A spreadsheet that opens the table runs nothing, and taking an apostrophe off what begins with one gives every text back.
func TestCSV_HostileTextsAreHarmlessAndComeBack(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@SUM(A1)": "'@SUM(A1)", "\t=1": "'\t=1", "\r=1": "'\r=1", "\n=1": "'\n=1", " =1": "' =1", "＝1": "'＝1", "'=1": "''=1", "'": "''",
		"": "", "a=1": "a=1", "api": "api", "é": "é", "  a": "  a", "-u": "'-u",
	} {
		if got := harmless(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		service := rapid.String().Draw(t, "service")
		d := &Document{CompanyID: "acme", Period: "2026-10", Usage: []UsageLine{{"-u", "-t", service, amountsOf(-2, 3, "-0.5")}}}
		reader := csv.NewReader(bytes.NewReader(d.CSV()))
		rows, err := reader.ReadAll()
		if err != nil || len(rows) != 2 {
			t.Fatalf("%v, %q", err, d.CSV())
		}
		back := func(field string) string { return strings.TrimPrefix(field, "'") }
		// The reader takes CR LF within a field for a line feed; RFC 4180 does not.
		want := strings.ReplaceAll(service, "\r\n", "\n")
		if got := rows[1]; back(got[10]) != want || back(got[8]) != "-u" || got[11] != "-2" || got[14] != "-0.500000" {
			t.Fatalf("%q of %q", got, service)
		}
		if first := []rune(rows[1][10]); len(first) > 0 && strings.ContainsRune("=+-@\t\r", first[0]) {
			t.Fatalf("%q would be a formula", rows[1][10])
		}
	})
}

func TestCSV_EveryKindOfLine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 10, 3, 4, 5, 6, 0, time.UTC)
	paid := analytics.Money(4900)
	d := &Document{CompanyID: "acme", Period: "2026-10",
		Charges: []Charge{
			{TransactionID: "t1", Kind: "proration", Type: "upgrade", NewTier: "enterprise", Amount: 45000, Currency: "USD", Lines: []Line{{"credit", -4900}, {"charge", 49900}}, PeriodStart: &at, At: at},
			{TransactionID: "t2", Kind: "charge", Type: "renewal", NewTier: "pro", Amount: 4900, Currency: "USD", At: at, Corrects: "2026-09", Cause: LateCharge},
		},
		Payments:    []Payment{{PaymentID: "=p", Status: "received", Amount: &paid, Currency: "USD", Method: "card, or so", TransactionID: "t1", At: at}, {PaymentID: "p2", Status: "failed", At: at}},
		Usage:       []UsageLine{{"u-1", "pro", `a "quoted" one`, amountsOf(3, 4, "0.000001")}},
		Mismatched:  []UsageLine{{"u-2", "pro", "api", amountsOf(1, 0, "0")}},
		Corrections: []Correction{{"2026-09", Voided, false, 2, amountsOf(-2, -5, "-1.25")}, {"2026-09", Repaired, true, 1, amountsOf(1, 0, "0")}},
	}
	want := strings.Join([]string{
		"line,company_id,billing_period,corrects_period,cause,reference,type,status,user_id,subscription_tier,service_name,calls,data_points,identities,attributed_revenue,amount,currency,starts_at,ends_at,happened_at,detail",
		"proration,acme,2026-10,,,t1,upgrade,,,enterprise,,,,,,450.00,USD,2026-10-03T04:05:06Z,,2026-10-03T04:05:06Z,credit -49.00; charge 499.00",
		"charge,acme,2026-10,2026-09,late_charge,t2,renewal,,,pro,,,,,,49.00,USD,,,2026-10-03T04:05:06Z,",
		`payment,acme,2026-10,,,'=p,"card, or so",received,,,,,,,,49.00,USD,,,2026-10-03T04:05:06Z,t1`,
		"payment,acme,2026-10,,,p2,,failed,,,,,,,,,,,,2026-10-03T04:05:06Z,",
		`usage,acme,2026-10,,,,,,u-1,pro,"a ""quoted"" one",3,4,,0.000001,,,,,,`,
		"mismatched_usage,acme,2026-10,,,,,,u-2,pro,api,1,0,,0.000000,,,,,,",
		"correction,acme,2026-10,2026-09,voided,,,,,,,-2,-5,2,-1.250000,,,,,,",
		"mismatched_correction,acme,2026-10,2026-09,repaired,,,,,,,1,0,1,0.000000,,,,,,", "",
	}, "\r\n")
	if got := string(d.CSV()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
