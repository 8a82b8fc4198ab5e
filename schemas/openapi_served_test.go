package schemas_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tenantflow/internal/analytics"
	"tenantflow/internal/billing"
	"tenantflow/internal/business"
	"tenantflow/internal/directory"
	"tenantflow/internal/health"
	"tenantflow/internal/httpapi"
	"tenantflow/internal/telemetry"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/internal/token"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// platform is what the stores of the served interface hold.
type platform struct {
	users     map[string]*directory.Subscription
	companies map[string]postgres.CompanySubscription
	rebuilds  bool
	away      error
	asked     atomic.Int64
	reported  atomic.Bool
	hang      chan struct{} // look-ups of users wait until it is closed; nil: they don't
}

func (p *platform) User(_ context.Context, id string) (*directory.Subscription, error) {
	p.asked.Add(1)
	if p.hang != nil {
		<-p.hang
	}
	if s := p.users[id]; s != nil || p.away != nil {
		return s, p.away
	}
	return nil, directory.ErrUnknown
}

func (p *platform) UserIn(ctx context.Context, id string, scope directory.Scope) (*directory.Subscription, error) {
	s, err := p.User(ctx, id)
	if err == nil && !scope.Allows(s.CompanyID) {
		return nil, directory.ErrUnknown
	}
	return s, err
}

func (p *platform) Counters(context.Context, string, time.Time) (dragonfly.Counters, error) {
	return dragonfly.Counters{APICalls: 333, DataPoints: 4}, p.away
}

func (p *platform) Rebuilding(context.Context) (bool, error) { return p.rebuilds, p.away }

const reservationsPath = "/v1/users/{user_id}/reservations"

// reservationBodies are what is asked for, good and bad. The ids say what the platform is to answer.
func reservationBodies() []string {
	return []string{`{"reservation_id":"known"}`, `{"reservation_id":"other","calls":2}`, `{"reservation_id":"exceeded","data_points":7,"ttl_seconds":300}`, `{"reservation_id":"crowded"}`,
		`{"reservation_id":"forgotten"}`, "", "[]", "{}", "{", `{"reservation_id":7}`, `{"reservation_id":"a b"}`, `{"reservation_id":"a","calls":0}`, `{"reservation_id":"a","calls":1.5}`,
		`{"reservation_id":"a","ttl_seconds":301}`, `{"reservation_id":"a","data_points":-1}`, `{"reservation_id":"a","other":1}`, `{"reservation_id":"` + strings.Repeat("a", 5000) + `"}`}
}

// Reserve does what the reservation's id says.
func (p *platform) Reserve(_ context.Context, r dragonfly.Reservation, _ bool) (dragonfly.Reserved, bool, error) {
	now := time.Now().UTC()
	got := dragonfly.Reserved{Decision: dragonfly.Granted, Day: now.Truncate(24 * time.Hour), Now: now, Expires: now.Add(r.TTL), Counted: dragonfly.Counters{APICalls: 3}, Held: dragonfly.Counters{APICalls: r.Calls},
		First: now.Add(time.Second)}
	switch {
	case p.away != nil:
		return got, false, p.away
	case p.rebuilds:
		return got, true, &dragonfly.RebuildingError{}
	case r.ID == "forgotten":
		return got, true, &dragonfly.RebuildingError{After: time.Minute}
	case r.ID == "known" || r.ID == "other" || r.ID == "exceeded" || r.ID == "crowded":
		got.Decision = dragonfly.Decision(r.ID)
	}
	return got, false, nil
}

func (p *platform) Release(context.Context, string, string) error { return p.away }

func (p *platform) CompanyConfig(_ context.Context, company string) (*directory.CompanyConfig, error) {
	c, ok := p.companies[company]
	switch {
	case p.away != nil:
		return nil, p.away
	case !ok:
		return nil, directory.ErrUnknown
	}
	return &directory.CompanyConfig{CompanyID: company, Tier: c.Tier, MaxUsers: c.Limits.MaxUsers, BillingEmail: "b@x", FeaturesEnabled: c.Limits.Features, SupportLevel: "email",
		Version: 3, CachedAt: time.Now(), Settings: map[string]json.RawMessage{"theme": json.RawMessage(`["any"]`)}}, nil
}

func (p *platform) Subscription(_ context.Context, company string) (postgres.CompanySubscription, error) {
	c, ok := p.companies[company]
	switch {
	case p.away != nil:
		return c, p.away
	case !ok:
		return c, directory.ErrUnknown
	}
	return c, nil
}

func (p *platform) Upsell(ctx context.Context, company string, _ time.Time) ([]analytics.Opportunity, error) {
	s, err := p.Subscription(ctx, company)
	if err != nil {
		return nil, err
	}
	return analytics.Upsell(tier.Default(), analytics.Plan{Tier: s.Tier, PriceMinor: s.PriceMinor, DailyAPICalls: s.Limits.DailyAPICalls}, []analytics.DailyUse{
		{UserID: "u-1", ActiveDays: 30, Calls: 24_001, DataPoints: 7}, {UserID: "u-2", ActiveDays: 3, Calls: 150_000}, {UserID: "u-3", ActiveDays: 1, Calls: 1}}), nil
}

func (p *platform) Revenue(ctx context.Context, company string, months int, at time.Time) (*analytics.Revenue, error) {
	s, err := p.Subscription(ctx, company)
	if err != nil {
		return nil, err
	}
	present := analytics.MonthOf(at)
	facts := &analytics.RevenueFacts{CompanyID: company, Currency: "USD", Since: at, Usage: []analytics.MonthUsage{{Month: present, Tier: s.Tier, ActiveUsers: 1, Calls: 2}, {Month: present, ActiveUsers: 1, Calls: 2}}}
	for ago := range analytics.Month(6) {
		if s.PriceMinor > 0 { // there is no forecast of others
			facts.Charges = append(facts.Charges, analytics.Charge{Month: present - ago, Tier: s.Tier, Currency: "USD", AmountMinor: analytics.Money(s.PriceMinor)},
				analytics.Charge{Month: present - ago, Tier: s.Tier, Currency: "EUR", AmountMinor: 1})
		}
	}
	return analytics.RevenueOf(facts, months, at), nil
}

func (p *platform) ChurnRisk(ctx context.Context, company string, at time.Time) (*analytics.ChurnReport, error) {
	s, err := p.Subscription(ctx, company)
	if err != nil {
		return nil, err
	}
	risks := analytics.ChurnRisks(s.Tier, []analytics.MonthlyUse{{UserID: "u-1", TwoMonthsAgo: 3, PreviousMonth: 2}, {UserID: "u-2", TwoMonthsAgo: 9, PreviousMonth: 8, CurrentMonth: 4}, {UserID: "u-3", TwoMonthsAgo: 100, PreviousMonth: 99, CurrentMonth: 98}})
	return &analytics.ChurnReport{CompanyID: company, TotalAtRiskUsers: len(risks), ChurnRisks: risks, RecommendedActions: analytics.Actions(risks, 4), AnalysisDate: at.UTC()}, nil
}

const billingPath = "/v1/companies/{company_id}/billing/{billing_period}"

// Get has a closed export of one month, and drafts of the others of the century.
func (p *platform) Get(ctx context.Context, company string, period analytics.Month) (*billing.Export, error) {
	if _, err := p.Subscription(ctx, company); err != nil {
		return nil, err
	}
	switch year := period.Start().Year(); {
	case year > 2100:
		return nil, billing.ErrFuture
	case year < 2020:
		return nil, billing.ErrTooOld
	}
	now := time.Now().UTC()
	amount := analytics.Money(4900)
	use := billing.UsageLine{UserID: "u-1", Tier: "pro", Service: "api", Amounts: billing.Amounts{Calls: 1}}
	at := billing.TopicPosition{Topic: "usage.events", Complete: &now, Partitions: []billing.PartitionPosition{{Partition: 1, Offset: 2}}}
	d := billing.Document{CompanyID: company, Period: period.String(), State: billing.Draft, GeneratedAt: now, TimeZone: "UTC", PeriodStart: now, PeriodEnd: now, Currency: "USD",
		AsOf:     billing.AsOf{Usage: at, Subscriptions: billing.TopicPosition{Topic: "subscription.events", Partitions: []billing.PartitionPosition{}}, Books: now},
		Charges:  []billing.Charge{{TransactionID: "t", Kind: "charge", Type: "renewal", NewTier: "pro", Amount: amount, Currency: "USD", Lines: []billing.Line{{Description: "pro", Amount: amount}}, PeriodStart: &now, At: now, Corrects: "2026-08", Cause: billing.LateCharge}},
		Payments: []billing.Payment{{PaymentID: "p", Status: "failed", At: now}, {PaymentID: "q", Status: "received", Amount: &amount, Currency: "USD", At: now}},
		Usage:    []billing.UsageLine{use}, Mismatched: []billing.UsageLine{use}, Corrections: []billing.Correction{{Period: "2026-08", Cause: billing.Late, Identities: 1}},
		Totals:      billing.Totals{Charged: []billing.Sum{{Currency: "USD", Amount: amount}}, Received: []billing.Sum{}},
		NotExported: []billing.PeriodUsage{{Period: "2019-01"}}, LeavesOut: []string{"x"},
	}
	x := &billing.Export{Company: company, Period: d.Period, State: d.State}
	if d.Period == "2026-10" {
		d.ExportID, d.Revision, d.State = "e", 1, billing.Closed
		x.ID, x.State, x.Checksum, x.CSVChecksum = d.ExportID, d.State, strings.Repeat("0f", 32), strings.Repeat("f0", 32)
	}
	var err error
	x.JSON, err = json.Marshal(&d)
	x.CSV = d.CSV()
	return x, err
}

func (p *platform) Parquet(context.Context, *billing.Export) ([]byte, error) {
	return []byte("PAR1"), nil
}

// Report is of a company that pays, has usage in a tier that is in no catalogue, and is measured. The first one asked for is of an
// installation in which there is nothing.
func (p *platform) Report(_ context.Context, at time.Time) (*business.Report, error) {
	if p.away != nil {
		return nil, p.away
	}
	facts := &business.Facts{At: at, Tiers: tier.Default()}
	if p.reported.Swap(true) {
		month, long, price, bytes, overdue := analytics.MonthOf(at)-1, time.Second, int64(5), int64(1<<33), true
		facts.Companies = []business.Company{{ID: "pro", Currency: "USD", Registered: at.AddDate(0, -8, 0), Tier: "pro", Holdings: []analytics.Holding{
			{From: at.AddDate(0, -8, 0), Tier: "free"}, {From: at.AddDate(0, -6, 0), Tier: "pro", Price: 4900}}}, {ID: "left", Currency: "EUR", Registered: at.AddDate(0, -8, 0), Holdings: []analytics.Holding{
			{From: at.AddDate(0, -6, 0), Tier: "legacy", Price: 1}, {From: at.AddDate(0, -1, 0), Tier: ""}}}}
		facts.Charges = []analytics.Charge{{Month: month, Tier: "pro", Currency: "USD", AmountMinor: 4900}, {Month: month, Tier: "legacy", Currency: "EUR", AmountMinor: 1}}
		facts.Usage = []analytics.CompanyUsage{{CompanyID: "pro", MonthUsage: analytics.MonthUsage{Month: month, Tier: "pro", ActiveUsers: 3, Calls: 2}}, {CompanyID: "pro", MonthUsage: analytics.MonthUsage{Month: month, ActiveUsers: 3, Calls: 2}}}
		facts.Measures = []postgres.CompanyMeasure{{CompanyID: "pro", Kept: true, Bytes: &bytes, Overdue: &overdue}, {CompanyID: "left", Bytes: &bytes}, {CompanyID: "locked"}}
		facts.Isolation = []postgres.IsolationCheck{{Name: "schemas", Checked: 2, Leaks: 1}}
		facts.Latency = []postgres.QueryLatency{{Tier: "pro", Samples: 20, Queries: 400, P95: long}, {Tier: "pro", Route: "/v1/r", Samples: 20, Queries: 400, P95: long}, {Tier: "free", Samples: 1, Queries: 1, P95: long}, {Tier: "free", Route: "/v1/r", Samples: 1, Queries: 1, P95: long}}
		facts.UsageBytes, facts.Calls, facts.StoragePrice = 1<<31, map[string]int64{"pro": 2, "stranger": 1}, &price
	}
	return business.Of(facts), nil
}

func newPlatform() *platform {
	p := &platform{users: map[string]*directory.Subscription{}, companies: map[string]postgres.CompanySubscription{}}
	now := time.Now()
	for _, c := range []struct{ id, tier, company, status string }{
		{"free", "free", "active", "cancelled"}, {"pro", "pro", "active", "past_due"}, {"enterprise", "enterprise", "active", "active"}, {"closed", "pro", "closed", "active"},
	} {
		of, _ := tier.Default().Tier(c.tier)
		s := postgres.CompanySubscription{CompanyID: c.id, CompanyStatus: c.company, ActiveUsers: 3, Subscription: tenant.Subscription{Status: c.status, Currency: "USD",
			Term: tenant.Term{Tier: c.tier, PriceMinor: of.PriceMinor, PeriodStart: now, PeriodEnd: now.AddDate(0, 1, 0), Months: 1, Limits: of.Limits,
				Benefits: map[string]any{"a": []any{1}}}}}
		switch c.id {
		case "free":
			s.Expired = &tenant.Term{Tier: "pro"}
		case "enterprise":
			next := s.PeriodEnd.AddDate(1, 0, 0)
			s.RenewalUntil, s.Renewal = &next, &tenant.Renewal{Start: s.PeriodEnd, End: next}
		case "pro":
			end, grace := s.PeriodEnd, now.AddDate(0, 0, 7)
			s.PendingTier, s.PendingAt, s.CancelAtEnd, s.GraceUntil = "free", &end, true, &grace
		}
		p.companies[c.id] = s
	}
	for name, status := range map[string]string{"free": "active", "pro": "past_due", "enterprise": "active"} {
		of, _ := tier.Default().Tier(name)
		p.users[name] = &directory.Subscription{UserID: name, CompanyID: "acme", Tier: name, Status: "active", BillingStatus: status, Limits: of.Limits, StartDate: &now}
	}
	for name, s := range map[string]directory.Subscription{
		"suspended": {Status: "suspended", BillingStatus: "active"},
		"cancelled": {Status: "active", BillingStatus: "cancelled", EndDate: &now},
		"expired":   {Status: "active", BillingStatus: "expired"},
		"closed":    {Status: "active", BillingStatus: "closed"},
		"unpaid":    {Status: "active", BillingStatus: "expired", Tier: "pro"},
		"bare":      {Status: "active"},
		"odd":       {Status: "active", BillingStatus: "frozen"},
	} {
		s.UserID, s.CompanyID, s.Limits = name, "acme", p.users["free"].Limits
		if s.Tier == "" {
			s.Tier = "free"
		}
		p.users[name] = &s
	}
	low := *p.users["free"]
	low.UserID, low.Limits.DailyAPICalls = "low", 7
	p.users["low"] = &low
	return p
}

// served is the service's own server with a platform behind it.
type served struct {
	*platform
	options httpapi.Options
	url     string
	part    string
}

func serve(t *testing.T, tokens *token.File) served {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	build := telemetry.Build{Version: "v1", Commit: "c", Date: "unknown", Go: "go1", OS: "linux", Arch: "amd64"}
	s := served{platform: newPlatform(), part: "usage"}
	s.options = httpapi.Options{Addr: "127.0.0.1:0", Health: health.New(time.Nanosecond, log, s.part), Metrics: telemetry.NewRegistry(build), Build: build, Log: log, API: httpapi.NewAPI(tokens, log)}
	server := httpapi.New(s.options)
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s.options.API.Attach(httpapi.Stores{Subscriptions: s.platform, Quotas: s.platform, Reservations: s.platform, Configs: s.platform, Companies: s.platform, Analytics: s.platform, Billing: s.platform, Business: s.platform, Rules: tenant.New(tenant.Config{Catalogue: tier.Default()})})
	s.url = "http://" + server.Addr().String()
	return s
}

func noTokens(t *testing.T) *token.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.json")
	if err := os.WriteFile(path, []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := token.Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// An answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func send(t *testing.T, method, target string, header ...string) answer {
	t.Helper()
	body := "" // of a POST: that of the header named so
	if method == http.MethodPost {
		body = `{"reservation_id":"r-1"}`
		if len(header) > 0 && header[0] == "body" {
			body, header = header[1], header[2:]
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	a, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{a.StatusCode, a.Header, text}
}
