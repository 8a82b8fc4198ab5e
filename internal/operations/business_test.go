package operations

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"tenantflow/internal/analytics"
	"tenantflow/internal/business"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// sampleBusiness is a year of a growing installation.
func sampleBusiness(t testing.TB) Business {
	t.Helper()
	facts := &business.Facts{At: noon, Tiers: tier.Default(), Isolation: []postgres.IsolationCheck{{Name: "schemas", Checked: 60}}}
	present := analytics.MonthOf(noon)
	for n := range 60 {
		since := (present - 14).Start().AddDate(0, 0, 7*n)
		c := business.Company{ID: fmt.Sprint("c-", n), Currency: "USD", Registered: since, Tier: "pro", Holdings: []analytics.Holding{{From: since, Tier: "free"}, {From: since.AddDate(0, 0, 3), Tier: "pro", Price: 4900}}}
		if n%9 == 4 {
			c.Holdings = append(c.Holdings, analytics.Holding{From: since.AddDate(0, 0, 120), Tier: "free"})
		}
		facts.Companies = append(facts.Companies, c)
	}
	for ago := range analytics.Month(13) {
		month, users := present-ago, uint64(40-2*ago)
		facts.Charges = append(facts.Charges, analytics.Charge{Month: month, Tier: "pro", Currency: "USD", AmountMinor: analytics.Money(4900 * (50 - 3*ago))},
			analytics.Charge{Month: month, Tier: "enterprise", Currency: "USD", AmountMinor: 49900})
		for name, n := range map[string]uint64{"free": users / 2, "pro": users, "enterprise": 9, "": users + users/2} {
			facts.Usage = append(facts.Usage, analytics.CompanyUsage{CompanyID: "c-1", MonthUsage: analytics.MonthUsage{Month: month, Tier: name, ActiveUsers: n, Attributed: analytics.Attributed{Decimal: decimal.New(5, -1)}}})
		}
	}
	data, err := businessFrom(func(context.Context) (*business.Report, error) { return business.Of(facts), nil })(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// section is the part of the page about the business.
func section(t *testing.T, text string) string {
	t.Helper()
	_, text, found := strings.Cut(text, `<section aria-labelledby="h-business">`)
	if !found {
		t.Fatal("there is no such section")
	}
	text, _, _ = strings.Cut(text, "</section>")
	return text
}

func TestBusiness_ChartsSayWhatTheyShow(t *testing.T) {
	t.Parallel()
	b := sample(t, 1, 0)
	got := section(t, page(t, b, View{}))
	for _, want := range []string{"Monthly recurring revenue</title>", "Active users</title>", "Revenue for each active user, by tier</title>", "Companies that left, of those that paid</title>", ">2025-11</text>", ">2026-11</text>",
		"By month from 2025-11 to 2026-11. 2026-10: 57; 2026-11, which is not over: 60.", "2026-10: free 0 USD; 2026-10: pro ", "Health score: <strong>100.00</strong> of 100", "20 s old", `<th scope="row">2026-11 <span class="quiet">not over</span></th>`,
		`role="img" aria-labelledby="t-arpu d-arpu"`, `class="bar unfinished"`, `class="line l2"`} {
		if !strings.Contains(got, want) {
			t.Errorf("it lacks %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
	if bars := strings.Count(got, "<rect"); bars < 26 || bars > 39 {
		t.Errorf("%d bars", bars)
	}
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(got, -1) {
		if ids[m[1]] {
			t.Errorf("the id %s is there twice", m[1])
		}
		ids[m[1]] = true
	}
	for _, drawn := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(got, -1) {
		d := xml.NewDecoder(strings.NewReader(drawn))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v: %s", err, drawn)
			}
		}
	}
}

func TestBusiness_WithoutAReportOrData(t *testing.T) {
	t.Parallel()
	b := sample(t, 1, 0)
	b.business.data = Business{}
	if got := section(t, page(t, b, View{})); !strings.Contains(got, "No report has been made yet") || strings.Contains(got, "<svg") {
		t.Errorf("without a report: %s", got)
	}
	empty := business.Of(&business.Facts{At: noon, Tiers: tier.Default()})
	b.business.data = Business{ReportedAt: noon.Add(-time.Hour), Health: empty.Health.Score, Months: empty.Months}
	got := section(t, page(t, b, View{}))
	if strings.Count(got, "nothing yet</text>") != 4 || strings.Contains(got, "<rect") || strings.Contains(got, "NaN") || strings.Contains(got, "Inf") {
		t.Errorf("of an empty installation: %s", got)
	}
	b.business.data.Months = nil
	if got := section(t, page(t, b, View{})); strings.Count(got, "There is no month yet.") != 4 {
		t.Errorf("without a month: %s", got)
	}
	b.business.data.Leaks = 1
	if report := b.Report(noon); len(report.Attention) != 1 || !strings.Contains(report.Attention[0], "reach across companies") {
		t.Errorf("with a leak: %q", report.Attention)
	}
	b.business.data, b.business.taken = Business{}, time.Time{}
	b.business.problem = "Postgres has no address in this process's configuration"
	if got := section(t, page(t, b, View{})); !strings.Contains(got, "Not newer, because: Postgres has no address") || !strings.Contains(got, "no data yet") {
		t.Errorf("before there is any: %s", got)
	}
}

// Tiers come from events and from a file; what they are called is escaped.
func TestBusiness_HostileNamesAreEscaped(t *testing.T) {
	t.Parallel()
	const hostile = `"><script>alert(1)</script>`
	b := sample(t, 1, 0)
	months := b.business.data.Months
	for i := range months {
		months[i].Currency = hostile
		for j := range months[i].Tiers {
			months[i].Tiers[j].Tier = hostile
		}
	}
	if got := page(t, b, View{}); strings.Contains(got, "<script") {
		t.Error("there is a script on the page")
	}
}
