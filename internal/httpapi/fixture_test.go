package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/directory"
	"tenantflow/internal/health"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/internal/token"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// world is what the stores hold, for tests of what is made of it.
type world struct {
	mu         sync.Mutex
	users      map[string]*directory.Subscription
	configs    map[string]*directory.CompanyConfig
	companies  map[string]postgres.CompanySubscription
	counters   map[string]dragonfly.Counters // by user and day, "u-1 2026-11-23"
	rebuilding bool
	userErr    error
	countErr   error
	companyErr error
	hang       chan struct{} // look-ups of users wait until it is closed; nil: they do not
	asked      atomic.Int64  // calls of any kind

	reserve  func(r dragonfly.Reservation, anyway bool) (dragonfly.Reserved, bool, error)
	released []string // by user and id
}

func (w *world) User(ctx context.Context, id string) (*directory.Subscription, error) {
	w.asked.Add(1)
	if w.hang != nil {
		select {
		case <-w.hang:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.userErr != nil {
		return nil, w.userErr
	}
	s := w.users[id]
	if s == nil {
		return nil, fmt.Errorf("look up user %s: %w", id, directory.ErrUnknown)
	}
	return s, nil
}

func (w *world) UserIn(ctx context.Context, id string, scope directory.Scope) (*directory.Subscription, error) {
	s, err := w.User(ctx, id)
	if err == nil && !scope.Allows(s.CompanyID) {
		return nil, fmt.Errorf("look up user %s: %w", id, directory.ErrUnknown)
	}
	return s, err
}

func (w *world) Counters(_ context.Context, user string, day time.Time) (dragonfly.Counters, error) {
	w.asked.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counters[user+" "+day.Format(time.DateOnly)], w.countErr
}

func (w *world) Rebuilding(context.Context) (bool, error) {
	w.asked.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rebuilding, w.countErr
}

func (w *world) CompanyConfig(_ context.Context, company string) (*directory.CompanyConfig, error) {
	w.asked.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.configs[company]; c != nil || w.companyErr != nil {
		return c, w.companyErr
	}
	return nil, fmt.Errorf("look up company %s: %w", company, directory.ErrUnknown)
}

func (w *world) Subscription(_ context.Context, company string) (postgres.CompanySubscription, error) {
	w.asked.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if c, ok := w.companies[company]; ok || w.companyErr != nil {
		return c, w.companyErr
	}
	return postgres.CompanySubscription{}, fmt.Errorf("look up company %s: %w", company, directory.ErrUnknown)
}

func (w *world) stores() Stores {
	return Stores{Subscriptions: w, Quotas: w, Reservations: w, Configs: w, Companies: w, Rules: tenant.New(tenant.Config{Catalogue: tier.Default()})}
}

const (
	everyToken = "yJ0vVx1-token-for-all"
	acmeToken  = "bL7qPz4-token-for-acme"
	gateToken  = "kT3mWd9-token-of-a-gateway"
	acmeGate   = "hY8sXa2-token-of-acmes-gateway"
	noon       = "2026-11-23T12:00:00Z"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

// newWorld has a user of every kind.
func newWorld() *world {
	free, _ := tier.Default().Tier("free")
	pro, _ := tier.Default().Tier("pro")
	enterprise, _ := tier.Default().Tier("enterprise")
	start, end := at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z")
	w := &world{users: map[string]*directory.Subscription{}, counters: map[string]dragonfly.Counters{
		"u-pro 2026-11-23":        {APICalls: 39950, DataPoints: 4811200},
		"u-free 2026-11-23":       {APICalls: 1012, DataPoints: 90310},
		"u-enterprise 2026-11-23": {APICalls: 812345, DataPoints: 7},
	}}
	for _, s := range []directory.Subscription{
		{UserID: "u-pro", CompanyID: "acme", Tier: "pro", Status: "active", BillingStatus: "active", Limits: pro.Limits, StartDate: &start, EndDate: &end},
		{UserID: "u-free", CompanyID: "initech", Tier: "free", Status: "active", BillingStatus: "active", Limits: free.Limits},
		{UserID: "u-enterprise", CompanyID: "globex", Tier: "enterprise", Status: "active", BillingStatus: "past_due", Limits: enterprise.Limits},
		{UserID: "u-suspended", CompanyID: "acme", Tier: "free", Status: "suspended", BillingStatus: "active", Limits: free.Limits},
		{UserID: "u-cancelled", CompanyID: "acme", Tier: "pro", Status: "active", BillingStatus: "cancelled", Limits: pro.Limits},
		{UserID: "u-expired", CompanyID: "acme", Tier: "pro", Status: "active", BillingStatus: "expired", Limits: pro.Limits},
		{UserID: "u-freed", CompanyID: "acme", Tier: "free", Status: "active", BillingStatus: "expired", Limits: free.Limits},
		{UserID: "u-left", CompanyID: "acme", Tier: "free", Status: "active", BillingStatus: "cancelled", Limits: free.Limits},
		{UserID: "u-beyond", CompanyID: "acme", Tier: "free", Status: "suspended", BillingStatus: "expired", Limits: free.Limits},
		{UserID: "u-closed", CompanyID: "shut", Tier: "free", Status: "active", BillingStatus: "closed", Limits: free.Limits},
		{UserID: "u-bare", CompanyID: "acme", Tier: "free", Status: "active", Limits: free.Limits},
		{UserID: "u-odd", CompanyID: "acme", Tier: "free", Status: "active", BillingStatus: "frozen", Limits: free.Limits},
	} {
		w.users[s.UserID] = &s
	}
	w.addCompanies()
	return w
}

// an apiFixture asks a handler; it is not behind a network.
type apiFixture struct {
	*API
	world    *world
	handler  http.Handler
	registry *prometheus.Registry
}

func setupAPI(t testing.TB) apiFixture {
	t.Helper()
	f := apiFixture{world: newWorld(), registry: prometheus.NewRegistry()}
	log := slog.New(slog.DiscardHandler)
	tokens, err := token.Open(tokensFile(t), log)
	if err != nil {
		t.Fatal(err)
	}
	f.API = NewAPI(tokens, log)
	f.now = func() time.Time { return at(noon) }
	f.Attach(f.world.stores())
	f.handler = Handler(Options{Health: health.New(time.Minute, log), Metrics: f.registry, Log: log, API: f.API})
	return f
}

func tokensFile(t testing.TB) string {
	t.Helper()
	hash := func(token string) string {
		sum := sha256.Sum256([]byte(token))
		return hex.EncodeToString(sum[:])
	}
	path := filepath.Join(t.TempDir(), "tokens.json")
	text := `[{"name": "bridge", "sha256": "` + hash(everyToken) + `", "companies": "*"},
		{"name": "acme", "sha256": "` + hash(acmeToken) + `", "companies": ["acme"]},
		{"name": "gate", "sha256": "` + hash(gateToken) + `", "companies": "*", "rights": ["reserve"]},
		{"name": "acme-gate", "sha256": "` + hash(acmeGate) + `", "companies": ["acme"], "rights": ["read", "reserve"]}]`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ask sends a GET request with the token for all; change may make it another one.
func (f apiFixture) ask(target string, change ...func(*http.Request)) answer {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, target, nil)
	r.Header.Set("Authorization", "Bearer "+everyToken)
	r.Header.Set(requestID, "of-the-test")
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return answerOf(w.Code, w.Header(), w.Body.Bytes())
}

func withToken(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func withHeader(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[name] = values }
}
