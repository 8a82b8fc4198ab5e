package httpapi

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"tenantflow/internal/token"
)

func TestCompaniesAreAnsweredFromTheStores(t *testing.T) {
	t.Parallel()
	f := setupStores(t)
	f.exec(t,
		`INSERT INTO companies (company_id, name, billing_email) VALUES ('late', 'L', 'l@x'), ('shut', 'S', 's@x'), ('gone', '', ''), ('bare', 'B', 'b@x')`,
		`INSERT INTO company_config (company_id, config) VALUES ('late', '{"theme": {"dark": true}, "max_users": 99, "subscription_tier": "enterprise"}')
			ON CONFLICT (company_id) DO UPDATE SET config = EXCLUDED.config`,
		`INSERT INTO subscriptions (company_id, tier, status, period_start, period_end, anchor_day, grace_until, pending_tier, cancel_at_period_end, benefits)
			VALUES ('late', 'pro', 'past_due', '2026-10-31 10:00:00.000001+00', '2026-11-30 10:00+00', 31, '2026-11-25 00:00+00', 'free', true, '{"x": [1, 2]}')`,
		`INSERT INTO limit_overrides (company_id, limit_name, value, reason, set_at, expires_at) VALUES ('late', 'storage_mb', '"unlimited"', 'secret', '2026-11-02 00:00+00', NULL),
			('late', 'retention_days', '7', 'secret', '2026-11-02 00:00+00', '2026-12-24 00:00+00')`,
		`INSERT INTO subscriptions (company_id, tier, period_start) VALUES ('shut', 'pro', '2026-11-01 00:00+00')`,
		`INSERT INTO user_directory (user_id, company_id, subscription_status) VALUES ('l-1', 'late', 'active'), ('l-2', 'late', 'active'), ('l-3', 'late', 'suspended')`,
		`UPDATE companies SET status = 'closed' WHERE company_id = 'shut'`,
		`UPDATE companies SET status = 'purged' WHERE company_id = 'gone'`,
		`INSERT INTO company_heads (company_id, last_effect_at, subscription_effect_at, audit_seq, audit_hash) VALUES ('late', '2026-11-16 00:00+00', '2026-11-15 10:00:00.5+00', 3, 'x')`)

	a := f.get("/v1/companies/late/subscription")
	const want = `{"company_id":"late","company_status":"active","tier":"pro","status":"past_due","period_start":"2026-10-31T10:00:00.000001Z","period_end":"2026-11-30T10:00:00Z","period_months":1,` +
		`"price_minor":4900,"currency":"USD","pending_tier":"free","pending_at":"2026-11-30T10:00:00Z","cancel_at_period_end":true,"grace_until":"2026-11-25T00:00:00Z",` +
		`"limits":{"daily_api_calls":50000,"storage_mb":"unlimited","max_users":25,"retention_days":7,` +
		`"features_enabled":["basic_trading","advanced_analytics","email_notifications","sms_notifications","api_access"]},` +
		`"overrides":[{"limit_name":"retention_days","value":7,"set_at":"2026-11-02T00:00:00Z","expires_at":"2026-12-24T00:00:00Z"},{"limit_name":"storage_mb","value":"unlimited","set_at":"2026-11-02T00:00:00Z"}],"benefits":{"x":[1,2]},"users":{"active":2,"suspended":1}}` + "\n"
	if a.status != http.StatusOK || a.body != want {
		t.Errorf("%d %s\nwant\n%s", a.status, a.body, want)
	}
	// What the tier decides is the subscription's, whatever stands in the configuration.
	if a := f.get("/v1/companies/late/config"); a.status != http.StatusOK || a.json["subscription_tier"] != "pro" || a.json["max_users"] != 25.0 ||
		a.json["billing_email"] != "l@x" || a.json["support_level"] != "email" || a.json["theme"] == nil || a.json["version"] == nil || a.json["cached_at"] != nil {
		t.Errorf("%d %s", a.status, a.body)
	}
	// Nothing takes effect before the last event.
	if a := f.get("/v1/companies/late/subscription/preview?new_tier=enterprise&at=2026-11-05T00:00:00Z"); a.status != http.StatusOK || a.json["effective_date"] != "2026-11-15T10:00:00.5Z" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, resource := range []string{"config", "subscription", "subscription/preview?new_tier=pro"} {
		for _, company := range []string{"nobody", "gone", "LATE", "bare"} {
			if a := f.get("/v1/companies/" + company + "/" + resource); a.status != http.StatusNotFound || !strings.Contains(a.body, "there is no such company") {
				t.Errorf("%s of %s: %d %s", resource, company, a.status, a.body)
			}
		}
	}
	if a := f.get("/v1/companies/shut/subscription"); a.status != http.StatusOK || a.json["company_status"] != "closed" || a.json["status"] != "active" {
		t.Errorf("a closed company: %d %s", a.status, a.body)
	}
	if a := f.get("/v1/companies/shut/config"); a.status != http.StatusOK || a.json["subscription_tier"] != "pro" {
		t.Errorf("a closed company: %d %s", a.status, a.body)
	}
	if a := f.get("/v1/companies/shut/subscription/preview?new_tier=enterprise"); a.status != http.StatusConflict || a.json["code"] != "company_closed" {
		t.Errorf("a closed company: %d %s", a.status, a.body)
	}
	f.exec(t, "UPDATE subscriptions SET tier = 'enterprise', limits = NULL WHERE company_id = 'acme'")
	if a := f.get("/v1/companies/acme/subscription"); a.json["tier"] != "enterprise" {
		t.Errorf("a change is seen at once: %s", a.body)
	}
	eventually(t, func() bool { return f.get("/v1/companies/acme/config").json["max_users"] == "unlimited" })
}

func TestWithoutPostgresCompaniesAre503(t *testing.T) {
	t.Parallel()
	f := setupStores(t)
	eventually(t, func() bool { return f.get("/v1/companies/acme/config").status == http.StatusOK })
	f.proxy.Refuse(true)
	f.proxy.Cut()
	for _, resource := range []string{"subscription", "subscription/preview?new_tier=pro"} {
		if a := f.get("/v1/companies/acme/" + resource); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", resource, a.status, a.body)
		}
	}
	f.proxy.Refuse(false)
	eventually(t, func() bool { return f.get("/v1/companies/acme/subscription").status == http.StatusOK })
}

// What one token's request has brought into the caches is not shown to another one.
func TestCachedCompaniesAreNotToldToOtherTenants(t *testing.T) {
	t.Parallel()
	f := setupStores(t)
	f.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('globex', 'G', 'g@x')",
		"INSERT INTO subscriptions (company_id, tier, period_start) VALUES ('globex', 'pro', '2026-11-01 00:00+00')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('g-1', 'globex')")
	tokens, err := token.Open(tokensFile(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	f.tokens = tokens
	for _, resource := range []string{"config", "subscription", "subscription/preview?new_tier=enterprise"} {
		target := "/v1/companies/globex/" + resource
		if a := f.ask(target); a.status != http.StatusOK {
			t.Errorf("%s, for all: %d %s", resource, a.status, a.body)
		}
		if a := f.ask(target, withToken(acmeToken)); a.status != http.StatusNotFound || strings.Contains(a.body, "pro") && !strings.Contains(a.body, "preview") {
			t.Errorf("%s, for acme: %d %s", resource, a.status, a.body)
		}
		if a := f.ask(strings.Replace(target, "globex", "acme", 1), withToken(acmeToken)); a.status != http.StatusOK {
			t.Errorf("%s of acme, for acme: %d %s", resource, a.status, a.body)
		}
	}
	if a := f.ask("/v1/users/g-1/subscription"); a.json["valid"] != true {
		t.Errorf("the user, for all: %s", a.body)
	}
	if a := f.ask("/v1/users/g-1/subscription", withToken(acmeToken)); a.body != `{"valid":false,"reason":"no_subscription"}`+"\n" {
		t.Errorf("the user, for acme: %s", a.body)
	}
}
