package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"tenantflow/internal/directory"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/health"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// storeFixture is the interface over the stores that it has in production.
type storeFixture struct {
	apiFixture
	t        *testing.T
	sql      *pgx.Conn
	redis    *engine.Redis
	counters *redis.Client
	proxy    *engine.Proxy // between the service and Postgres
}

func setupStores(t *testing.T) storeFixture {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	f := storeFixture{t: t, redis: enginetest.Redis(t), proxy: enginetest.Proxy(t, enginetest.SharedPostgres(t).Addr())}
	dsn := postgrestest.New(t)
	var err error
	if f.sql, err = pgx.Connect(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.sql.Close(context.Background()) })

	store, err := postgres.Open(t.Context(), postgres.Config{DSN: strings.Replace(dsn, enginetest.SharedPostgres(t).Addr(), f.proxy.Addr(), 1), Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	at, err := redis.ParseURL(f.redis.URL())
	if err != nil {
		t.Fatal(err)
	}
	quotas, err := dragonfly.Open(t.Context(), dragonfly.Config{Options: at, Topic: "usage.events"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = quotas.Close() })
	f.counters = redis.NewClient(enginetest.RedisOptions(t, f.redis.URL()))
	t.Cleanup(func() { _ = f.counters.Close() })

	d := directory.New(directory.Config{Loader: store, Cache: dragonfly.NewCache(quotas.Client()), Log: log, LoadTimeout: time.Minute})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = d.Run(ctx) // it ends with ctx
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		d.Close()
	})
	f.registry = prometheus.NewRegistry()
	f.API = NewAPI(nil, log)
	f.Attach(Stores{Subscriptions: d, Quotas: quotas, Configs: d, Companies: store, Rules: tenant.New(tenant.Config{Catalogue: tier.Default()})})
	f.handler = Handler(Options{Health: health.New(time.Minute, log), Metrics: f.registry, Log: log, API: f.API})
	f.exec(t,
		"INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x')",
		"INSERT INTO subscriptions (company_id, tier, status, period_start) VALUES ('acme', 'free', 'active', '2026-11-01 00:00+00')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u-1', 'acme'), ('u-2', 'acme')")
	return f
}

func (f storeFixture) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := f.sql.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// ask asks until it is answered in time: a request has two seconds, and stores that are there may need more on a busy machine.
func (f storeFixture) ask(target string, change ...func(*http.Request)) (a answer) {
	f.t.Helper()
	enginetest.Await(f.t, "an answer in time of "+target, func() bool {
		a = f.apiFixture.ask(target, change...)
		return !strings.Contains(a.body, "did not answer within")
	})
	return a
}

// get asks from this machine, without a token.
func (f storeFixture) get(target string) answer { return f.ask(target, fromHere) }

func fromHere(r *http.Request) { r.RemoteAddr, r.Host = "127.0.0.1:5", "localhost" }

// count makes the day's calls of a user a number, today and tomorrow, should midnight pass meanwhile.
func (f storeFixture) count(t *testing.T, user string, calls int) {
	t.Helper()
	for _, day := range []time.Time{time.Now(), time.Now().Add(24 * time.Hour)} {
		if err := f.counters.HSet(t.Context(), dragonfly.QuotaKey(user, day), "api_calls", calls, "data_points", 7).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheAnswersFollowTheStores(t *testing.T) {
	t.Parallel()
	f := setupStores(t)
	if a := f.get("/v1/users/u-1/quota"); a.status != http.StatusOK || a.json["current_usage"] != 0.0 || a.json["daily_limit"] != 1000.0 || a.json["rebuilding"] != true {
		t.Errorf("before anything was counted: %d %s", a.status, a.body)
	}
	f.count(t, "u-1", 1000)
	if a := f.get("/v1/users/u-1/quota"); a.json["exceeded"] != true || a.json["current_usage"] != 1000.0 || a.json["usage_percentage"] != 100.0 || a.json["data_points"] != 7.0 {
		t.Errorf("at the limit: %d %s", a.status, a.body)
	}
	f.exec(t, "UPDATE subscriptions SET tier = 'pro', limits = NULL WHERE company_id = 'acme'")
	eventually(t, func() bool {
		a := f.get("/v1/users/u-1/quota")
		return a.json["exceeded"] == false && a.json["daily_limit"] == 50000.0 && a.json["usage_percentage"] == 2.0
	})
	if a := f.get("/v1/users/u-1/subscription"); a.json["valid"] != true || a.json["tier"] != "pro" {
		t.Errorf("after the upgrade: %d %s", a.status, a.body)
	}
	f.exec(t, "UPDATE user_directory SET subscription_status = 'suspended' WHERE user_id = 'u-1'")
	eventually(t, func() bool { return f.get("/v1/users/u-1/subscription").json["reason"] == "user_suspended" })
	if a := f.get("/v1/users/u-2/subscription"); a.json["valid"] != true {
		t.Errorf("the other user: %d %s", a.status, a.body)
	}
	f.exec(t, "UPDATE subscriptions SET status = 'expired' WHERE company_id = 'acme'")
	eventually(t, func() bool { return f.get("/v1/users/u-2/quota").json["reason"] == "subscription_expired" })
	if a := f.get("/v1/users/u-9/subscription"); a.json["reason"] != "no_subscription" {
		t.Errorf("nobody: %d %s", a.status, a.body)
	}
	f.exec(t, "INSERT INTO user_directory (user_id, company_id) VALUES ('u-9', 'acme')")
	eventually(t, func() bool { return f.get("/v1/users/u-9/subscription").json["reason"] == "subscription_expired" })
}

func TestWithoutCountersAQuotaIsNotKnownAndASubscriptionIs(t *testing.T) {
	t.Parallel()
	f := setupStores(t)
	f.count(t, "u-1", 5)
	eventually(t, func() bool { return f.get("/v1/users/u-1/quota").json["current_usage"] == 5.0 })
	for _, trouble := range []struct {
		name  string
		begin func() error
	}{{"hangs", f.redis.Freeze}, {"is gone", f.redis.Kill}} {
		if err := trouble.begin(); err != nil {
			t.Fatal(err)
		}
		// One that hangs does not answer in time.
		if a := f.apiFixture.ask("/v1/users/u-1/quota", fromHere); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("when it %s: %d %s", trouble.name, a.status, a.body)
		}
		if a := f.get("/v1/users/u-1/subscription"); a.status != http.StatusOK || a.json["valid"] != true {
			t.Errorf("when it %s: %d %s", trouble.name, a.status, a.body)
		}
	}
	if err := f.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return f.get("/v1/users/u-1/quota").status == http.StatusOK })
	if a := f.get("/v1/users/u-1/quota"); a.json["rebuilding"] != true {
		t.Errorf("after the counters were lost: %s", a.body)
	}
}

// A user the process holds costs no request to a store but the counters of a quota, which /subscription does not show.
func TestSubscription_AHeldUserCostsNoRequest(t *testing.T) {
	t.Parallel()
	f := setupStores(t)
	eventually(t, func() bool { return f.get("/v1/users/u-1/subscription").json["valid"] == true })
	calls := func() (all string) {
		stats, err := f.counters.Info(t.Context(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(stats) {
			for _, command := range []string{"get", "hmget", "hgetall", "evalsha", "eval"} {
				if n, found := strings.CutPrefix(line, "cmdstat_"+command+":"); found {
					n, _, _ = strings.Cut(n, ",")
					all += command + " " + n + " "
				}
			}
		}
		return all
	}
	// The service's own look at the counters comes once in a while, and on a slow machine between the requests.
	eventually(t, func() bool {
		before := calls()
		for range 50 {
			f.get("/v1/users/u-1/subscription")
		}
		return calls() == before
	})
}

func TestWithoutPostgresKnownUsersAreAnsweredAndOthersAre503(t *testing.T) {
	t.Parallel()
	f := setupStores(t)
	eventually(t, func() bool { return f.get("/v1/users/u-1/quota").status == http.StatusOK })
	f.proxy.Refuse(true)
	f.proxy.Cut()
	if a := f.get("/v1/users/u-1/quota"); a.status != http.StatusOK {
		t.Errorf("a known user: %d %s", a.status, a.body)
	}
	if a := f.get("/v1/users/u-8/quota"); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("another user: %d %s", a.status, a.body)
	}
	f.proxy.Refuse(false)
	eventually(t, func() bool { return f.get("/v1/users/u-8/quota").json["reason"] == "no_subscription" })
}
