package httpapi

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tenantflow/internal/analytics"
	"tenantflow/internal/analytics/analyticstest"
	"tenantflow/internal/business"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// analyse gives the interface what it needs for analyses: ClickHouse at an address.
func (f storeFixture) analyse(t *testing.T, world *analyticstest.World, address string) {
	t.Helper()
	options := *world.Options
	options.Addr = []string{address}
	usage, err := analytics.OpenUsage(&options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = usage.Close() })
	stores := f.stores.Load().Stores
	companies, ok := stores.Companies.(*postgres.Store)
	if !ok {
		t.Fatalf("companies are in a %T", stores.Companies)
	}
	stores.Analytics = analytics.New(companies, usage, tier.Default())
	stores.Business = business.New(business.Config{Companies: companies, Usage: usage, Tiers: tier.Default()})
	f.Attach(stores)
}

func TestAnalytics_FromTheStores(t *testing.T) {
	t.Parallel()
	f, world := setupStores(t), analyticstest.New(t)
	proxy := enginetest.Proxy(t, world.Options.Addr[0])
	f.analyse(t, world, proxy.Addr())
	f.now = func() time.Time { return at("2026-11-15T12:00:00Z") }
	f.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('gone', '', ''), ('bare', 'B', 'b@x')", "UPDATE companies SET status = 'purged' WHERE company_id = 'gone'")
	if a := f.get("/v1/companies/acme/upsell"); a.status != http.StatusOK || a.body != "[]\n" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("without usage: %d %v %s", a.status, a.header, a.body)
	}
	world.Plant(t,
		analyticstest.Use{Company: "acme", User: "u-1", Tier: "free", From: at("2026-10-16T00:00:00Z"), Days: 2, Calls: 900, Points: 2},
		analyticstest.Use{Company: "acme", User: "u-2", Tier: "free", From: at("2026-08-31T23:59:59Z"), Calls: 8},
		analyticstest.Use{Company: "acme", User: "u-2", Tier: "free", From: at("2026-09-01T00:00:00Z"), Calls: 4},
		analyticstest.Use{Company: "acme", User: "u-2", Tier: "free", From: at("2026-10-31T00:00:00Z"), Calls: 3})
	const upsell = `[{"user_id":"u-1","current_tier":"free","recommended_tier":"pro","opportunity_score":68.00,"current_usage":{"avg_daily_calls":900.00,"avg_daily_data":1800.00,"active_days":2},"potential_revenue_increase":49.00,"currency":"USD"}]` + "\n"
	const churn = `{"company_id":"acme","total_at_risk_users":1,"churn_risks":[{"user_id":"u-2","subscription_tier":"free","churn_risk_score":62.50,` +
		`"usage_trend":{"current_month":3,"previous_month":4,"two_months_ago":8,"decline_percentage":62.50},"retention_strategy":"onboarding_mail"}],` +
		`"recommended_actions":["review_account","offer_training"],"analysis_date":"2026-11-15T12:00:00Z"}` + "\n"
	answers := map[string]string{"upsell": upsell, "churn-risk": churn}
	for resource, want := range answers {
		if a := f.get("/v1/companies/acme/" + resource); a.status != http.StatusOK || a.body != want {
			t.Errorf("%s: %d %s\nwant\n%s", resource, a.status, a.body, want)
		}
		for _, company := range []string{"stranger", "gone", "bare"} {
			if a := f.get("/v1/companies/" + company + "/" + resource); a.status != http.StatusNotFound || !strings.Contains(a.body, "there is no such company") {
				t.Errorf("%s of %s: %d %s", resource, company, a.status, a.body)
			}
		}
		if a := f.get("/v1/companies/acme/" + resource + "?months=3"); a.status != http.StatusBadRequest {
			t.Errorf("%s with a parameter: %d %s", resource, a.status, a.body)
		}
	}

	// A ClickHouse that is away, or hangs, is felt by these requests alone.
	others := func(when string) {
		t.Helper()
		if a := f.get("/v1/companies/acme/subscription"); a.status != http.StatusOK {
			t.Errorf("%s, a subscription: %d %s", when, a.status, a.body)
		}
	}
	proxy.Refuse(true)
	proxy.Cut()
	for resource := range answers {
		if a := f.get("/v1/companies/acme/" + resource); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("%s while ClickHouse is away: %d %s", resource, a.status, a.body)
		}
	}
	others("while ClickHouse is away")
	proxy.Refuse(false)
	for resource, want := range answers {
		enginetest.Await(t, resource+" again", func() bool { return f.get("/v1/companies/acme/"+resource).body == want })
	}
	trap := proxy.HoldRequest(nil)
	hung := make(chan answer)
	go func() { hung <- f.apiFixture.ask("/v1/companies/acme/upsell", fromHere) }()
	enginetest.Await(t, "the request to be held", func() bool { return f.analyses.count() == 1 })
	others("while ClickHouse hangs")
	if a := <-hung; a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "did not answer within 2s") {
		t.Errorf("while ClickHouse hangs: %d %s", a.status, a.body)
	}
	trap.Release()
}

// An analyst answers when it is let.
type analyst struct {
	asked atomic.Int64
	hang  chan struct{}
}

func (a *analyst) Upsell(context.Context, string, time.Time) ([]analytics.Opportunity, error) {
	a.asked.Add(1)
	<-a.hang
	return []analytics.Opportunity{}, nil
}

func (a *analyst) Revenue(context.Context, string, int, time.Time) (*analytics.Revenue, error) {
	a.asked.Add(1)
	return &analytics.Revenue{}, nil
}

func (a *analyst) ChurnRisk(context.Context, string, time.Time) (*analytics.ChurnReport, error) {
	a.asked.Add(1)
	return &analytics.ChurnReport{}, nil
}

func TestAnalytics_WithoutClickHouseItSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for _, resource := range []string{"upsell", "churn-risk"} {
		a := f.ask("/v1/companies/acme/" + resource)
		if a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "TENANTFLOW_CLICKHOUSE_DSN is not set") {
			t.Errorf("%s: %d %s", resource, a.status, a.body)
		}
		// Outside the token's scope there is nothing, whatever this process has.
		if a := f.ask("/v1/companies/globex/"+resource, withToken(acmeToken)); a.status != http.StatusNotFound {
			t.Errorf("%s outside the scope: %d %s", resource, a.status, a.body)
		}
		if a := f.ask("/v1/companies/acme/"+resource, withToken(gateToken)); a.status != http.StatusForbidden {
			t.Errorf("%s for a token that may not read: %d %s", resource, a.status, a.body)
		}
	}
}

// While analyses hang, a token's other requests and the analyses of other tokens are answered: one token takes a part of the places only.
func TestAnalytics_HangingOnesLeavePlaces(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	slow := &analyst{hang: make(chan struct{})}
	stores := f.world.stores()
	stores.Analytics = slow
	f.Attach(stores)
	var waiting sync.WaitGroup
	var refused atomic.Int64
	hang := func(token string, more int64) {
		t.Helper()
		want := slow.asked.Load() + refused.Load() + more
		for range more {
			waiting.Go(func() {
				if a := f.ask("/v1/companies/acme/upsell", withToken(token)); a.status != http.StatusOK {
					t.Errorf("one that there is a place for: %d %s", a.status, a.body)
					refused.Add(1)
				}
			})
		}
		enginetest.Await(t, "the places to be taken", func() bool { return slow.asked.Load()+refused.Load() == want })
	}
	churn := func(when, token string, want int) {
		t.Helper()
		a := f.ask("/v1/companies/acme/churn-risk", withToken(token))
		if a.status != want || want == http.StatusTooManyRequests && (a.header.Get("Retry-After") != "1" || !strings.Contains(a.body, "too many analyses of this token are under way")) {
			t.Errorf("%s: %d %v %s, want %d", when, a.status, a.header, a.body, want)
		}
	}
	// The numbers are those of docs/http.md.
	hang(everyToken, 32)
	churn("beyond the token's share", everyToken, http.StatusTooManyRequests)
	churn("another token", acmeToken, http.StatusOK)
	if a := f.ask("/v1/companies/acme/subscription"); a.status != http.StatusOK {
		t.Errorf("another request of the token: %d %s", a.status, a.body)
	}
	// What is outside a token's scope is not asked about, and looks as it always does.
	if a := f.ask("/v1/companies/globex/upsell", withToken(acmeToken)); a.status != http.StatusNotFound {
		t.Errorf("outside the scope: %d %s", a.status, a.body)
	}
	// The first two tokens take all places; a third one still has those that are kept for it, and no more.
	hang(acmeToken, 32)
	hang(acmeGate, 4)
	churn("beyond what is kept for a token", acmeGate, http.StatusTooManyRequests)
	close(slow.hang)
	waiting.Wait()
	churn("when they have ended", everyToken, http.StatusOK)
	if n := len(f.analyses.of); n != 0 || f.analyses.count() != 0 {
		t.Errorf("%d tokens with %d analyses are still counted", n, f.analyses.count())
	}
}
