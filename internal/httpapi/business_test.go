package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tenantflow/internal/analytics/analyticstest"
	"tenantflow/internal/business"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tier"
)

// meter computes the metrics of an installation in which there is nothing. It waits until gate is closed; nil: it does not.
type meter struct {
	asked atomic.Int64
	gate  chan struct{}
	err   error
}

func (m *meter) Report(ctx context.Context, at time.Time) (*business.Report, error) {
	m.asked.Add(1)
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if m.err != nil {
		return nil, m.err
	}
	return business.Of(&business.Facts{At: at, Tiers: tier.Default()}), nil
}

// samples are the queries that were noted, as "route company".
type samples struct {
	mu  sync.Mutex
	all []string
}

func (s *samples) Observe(route, company string, _ time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, route+" "+company)
}

func (s *samples) taken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := strings.Join(s.all, "; ")
	s.all = nil
	return all
}

const businessPath = "/v1/business-metrics"

func TestBusinessMetrics_AreForTokensOfAllCompanies(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	if a := f.ask(businessPath); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "TENANTFLOW_CLICKHOUSE_DSN is not set") {
		t.Errorf("without ClickHouse: %d %s", a.status, a.body)
	}
	stores, m := f.world.stores(), &meter{}
	stores.Business = m
	f.Attach(stores)
	if a := f.ask(businessPath); a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(a.body, `{"reported_at":"2026-11-23T12:00:00Z","month":"2026-10","present_month":"2026-11","tiers":[`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	before := m.asked.Load()
	for _, c := range []struct {
		target, token string
		status        int
	}{{businessPath, acmeToken, 403}, {businessPath, gateToken, 403}, {businessPath, "x", 401}, {businessPath + "?months=1", everyToken, 400}} {
		if a := f.ask(c.target, withToken(c.token)); a.status != c.status {
			t.Errorf("%s with %s: %d %s", c.target, c.token, a.status, a.body)
		}
	}
	if m.asked.Load() != before {
		t.Error("they were computed for a request that is refused")
	}
	m.err = errors.New("connection refused")
	if a := f.ask(businessPath); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || strings.Contains(a.body, "refused") {
		t.Errorf("while a store is away: %d %s", a.status, a.body)
	}
	f.Detach()
	if a := f.ask(businessPath); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "starting or stopping") {
		t.Errorf("before the stores are open: %d %s", a.status, a.body)
	}
}

// Who asks while they are computed gets those: they look at every company, and are the same for all.
func TestBusinessMetrics_AreComputedOnceForAllWhoAsk(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	stores, m := f.world.stores(), &meter{gate: make(chan struct{})}
	stores.Business = m
	f.Attach(stores)
	const callers = 20
	answers := make(chan int, callers)
	gone, leave := context.WithCancel(t.Context())
	var first sync.WaitGroup
	first.Go(func() {
		f.ask(businessPath, func(r *http.Request) { *r = *r.WithContext(gone) })
	})
	enginetest.Await(t, "the computation to begin", func() bool { return m.asked.Load() == 1 })
	for range callers {
		go func() { answers <- f.ask(businessPath).status }()
	}
	enginetest.Await(t, "all to wait", func() bool { return f.inFlight.count() == callers+1 })
	leave() // the one for whom it began; the others keep what is under way
	first.Wait()
	close(m.gate)
	for range callers {
		if status := <-answers; status != http.StatusOK {
			t.Errorf("answered %d", status)
		}
	}
	if n := m.asked.Load(); n > 2 {
		t.Errorf("they were computed %d times", n)
	}
}

// Queries about companies are sampled where a store was asked for the answer, and only under the company that the answer is about.
func TestSamples_AreOfAnswersAboutCompanies(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	stores, s := f.world.stores(), &samples{}
	stores.Samples = s
	f.Attach(stores)
	for _, c := range []struct {
		target, token, want string
	}{
		{"/v1/users/u-pro/quota", everyToken, "/v1/users/{user_id}/quota acme"},
		{"/v1/users/u-free/subscription", everyToken, "/v1/users/{user_id}/subscription initech"},
		{"/v1/users/u-free/subscription", acmeToken, ""}, // of another company: looks like none
		{"/v1/users/stranger/quota", everyToken, ""},
		{"/v1/companies/acme/subscription", acmeToken, "/v1/companies/{company_id}/subscription acme"},
		{"/v1/companies/globex/subscription", acmeToken, ""},
		{"/v1/companies/stranger/subscription", everyToken, ""},
		{"/v1/companies/acme/subscription?x=1", everyToken, ""},
		{"/v1/companies/acme/upsell", everyToken, "/v1/companies/{company_id}/upsell acme"}, // 503: an answer that failed counts
		{"/v1/operations", everyToken, ""},
	} {
		f.ask(c.target, withToken(c.token))
		if got := s.taken(); got != c.want {
			t.Errorf("%s: sampled %q, want %q", c.target, got, c.want)
		}
	}
}

func TestBusinessMetrics_FromTheStores(t *testing.T) {
	t.Parallel()
	f, world := setupStores(t), analyticstest.New(t)
	proxy := enginetest.Proxy(t, world.Options.Addr[0])
	f.analyse(t, world, proxy.Addr())
	f.now = func() time.Time { return at("2026-11-15T12:00:00Z") }
	world.Plant(t, analyticstest.Use{Company: "acme", User: "u-1", Tier: "free", From: at("2026-10-16T00:00:00Z"), Calls: 3})
	const want = `{"month":"2026-10","complete":true,"subscription_tier":"free","currency":"USD","revenue":0.00,"active_users":1,"arpu":0.00,"attributed_revenue":0.750000}`
	if a := f.get(businessPath); a.status != http.StatusOK || !strings.Contains(a.body, want) || !strings.Contains(a.body, `"subscription_tier":"free","companies":1`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	proxy.Refuse(true)
	proxy.Cut()
	if a := f.get(businessPath); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("while ClickHouse is away: %d %s", a.status, a.body)
	}
}
