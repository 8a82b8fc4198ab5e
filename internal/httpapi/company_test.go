package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/directory"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// held is a subscription to a tier for a month.
func held(of tier.Tier, status string, price int64, start, end time.Time) tenant.Subscription {
	s := tenant.Subscription{Status: status, Currency: "USD", Term: tenant.Term{Tier: of.Name, PriceMinor: price, PeriodStart: start, PeriodEnd: end, Months: 1,
		Limits: of.Limits, Benefits: of.Benefits}}
	if until := end.Add(72 * time.Hour); price > 0 && status == "active" {
		s.RenewalUntil = &until
	}
	return s
}

// addCompanies adds one of every kind.
func (w *world) addCompanies() {
	w.configs, w.companies = map[string]*directory.CompanyConfig{}, map[string]postgres.CompanySubscription{}
	add := func(id, name, status, company string, change func(*postgres.CompanySubscription)) {
		of, _ := tier.Default().Tier(name)
		s := postgres.CompanySubscription{CompanyID: id, CompanyStatus: company, ActiveUsers: 3, SuspendedUsers: 1,
			Subscription: held(of, status, of.PriceMinor, at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"))}
		if change != nil {
			change(&s)
		}
		w.companies[id] = s
		w.configs[id] = &directory.CompanyConfig{CompanyID: id, Tier: name, MaxUsers: of.MaxUsers, BillingEmail: "b@" + id, FeaturesEnabled: of.Features,
			SupportLevel: of.SupportLevel, Version: 12, CachedAt: at(noon), Settings: map[string]json.RawMessage{"theme": json.RawMessage(`{"dark":true}`)}}
	}
	add("acme", "pro", "active", "active", nil)
	add("globex", "enterprise", "active", "active", func(s *postgres.CompanySubscription) {
		end := s.PeriodEnd
		s.PendingTier, s.PendingAt, s.CancelAtEnd = "free", &end, true
	})
	add("initech", "free", "expired", "active", func(s *postgres.CompanySubscription) { s.Expired = &tenant.Term{Tier: "pro"} })
	add("late", "pro", "past_due", "active", func(s *postgres.CompanySubscription) {
		until := at("2026-11-27T12:00:00Z")
		s.GraceUntil, s.RenewalUntil = &until, nil
	})
	add("shut", "pro", "cancelled", "closed", nil)
	w.configs["bare"] = &directory.CompanyConfig{CompanyID: "bare", BillingEmail: "b@bare"}
}

func TestACompanysConfigurationIsToldAsAWhole(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	const want = `{"billing_email":"b@acme","company_id":"acme","features_enabled":["basic_trading","advanced_analytics","email_notifications","sms_notifications","api_access"],` +
		`"max_users":25,"subscription_tier":"pro","support_level":"email","theme":{"dark":true},"version":12}` + "\n"
	if a := f.ask("/v1/companies/acme/config"); a.status != http.StatusOK || a.body != want || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if a := f.ask("/v1/companies/globex/config"); a.json["max_users"] != "unlimited" {
		t.Errorf("without a limit: %s", a.body)
	}
	if a := f.ask("/v1/companies/shut/config"); a.status != http.StatusOK {
		t.Errorf("of a closed company: %d %s", a.status, a.body)
	}
}

func TestACompanysSubscriptionIsToldWithItsUsers(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	const pro = `"limits":{"daily_api_calls":50000,"storage_mb":10240,"max_users":25,"retention_days":365,` +
		`"features_enabled":["basic_trading","advanced_analytics","email_notifications","sms_notifications","api_access"]},` +
		`"overrides":[],"benefits":{"advanced_features":["real_time_alerts","advanced_charts"],"increased_storage":"10GB","support_level":"email"},"users":{"active":3,"suspended":1}}` + "\n"
	const period = `"period_start":"2026-11-01T00:00:00Z","period_end":"2026-12-01T00:00:00Z","period_months":1,`
	for company, want := range map[string]string{
		"acme": `{"company_id":"acme","company_status":"active","tier":"pro","status":"active",` + period + `"price_minor":4900,"currency":"USD","cancel_at_period_end":false,"renewal_until":"2026-12-04T00:00:00Z",` + pro,
		"late": `{"company_id":"late","company_status":"active","tier":"pro","status":"past_due",` + period + `"price_minor":4900,"currency":"USD","cancel_at_period_end":false,"grace_until":"2026-11-27T12:00:00Z",` + pro,
		"shut": `{"company_id":"shut","company_status":"closed","tier":"pro","status":"cancelled",` + period + `"price_minor":4900,"currency":"USD","cancel_at_period_end":false,` + pro,
	} {
		if a := f.ask("/v1/companies/" + company + "/subscription"); a.status != http.StatusOK || a.body != want {
			t.Errorf("%s: %d %s\nwant\n%s", company, a.status, a.body, want)
		}
	}
	if a := f.ask("/v1/companies/globex/subscription"); a.json["pending_tier"] != "free" || a.json["cancel_at_period_end"] != true {
		t.Errorf("a scheduled cancellation: %s", a.body)
	}
	if a := f.ask("/v1/companies/initech/subscription"); a.json["previous_tier"] != "pro" || a.json["status"] != "expired" {
		t.Errorf("after an expiry: %s", a.body)
	}
}

func TestACompanyOutsideATokensScopeLooksLikeOneThatDoesNotExist(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for _, resource := range []string{"config", "subscription", "subscription/preview?new_tier=enterprise"} {
		of := func(company, token string) answer {
			a := f.ask("/v1/companies/"+company+"/"+resource, withToken(token))
			a.body = strings.ReplaceAll(a.body, company, "X") // the instance
			return a
		}
		if a := of("acme", acmeToken); a.status != http.StatusOK {
			t.Errorf("%s of the token's own company: %d %s", resource, a.status, a.body)
		}
		asked := f.world.asked.Load()
		none, nobody, other, twin := of("nobody", everyToken), of("nobody", acmeToken), of("globex", acmeToken), of("ACME", acmeToken)
		if none.status != http.StatusNotFound || none.json["status"] != 404.0 {
			t.Errorf("%s of nobody: %d %s", resource, none.status, none.body)
		}
		for _, a := range []answer{nobody, other, twin} {
			if a.status != none.status || a.body != none.body || fmt.Sprint(a.header) != fmt.Sprint(none.header) {
				t.Errorf("%s: %v\nof nobody: %v", resource, a, none)
			}
		}
		if n := f.world.asked.Load() - asked; n != 1 {
			t.Errorf("%s: %d look-ups; only the token for all may have one", resource, n)
		}
	}
	if a := f.ask("/v1/companies/bare/config"); a.status != http.StatusNotFound {
		t.Errorf("a company without a subscription: %d %s", a.status, a.body)
	}
}

func TestAPreviewIsWhatTheChangeWouldDo(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	const up = `{"company_id":"acme","change":"upgrade","current_tier":"pro","new_tier":"enterprise","price_minor":49900,"currency":"USD","effective_date":"2026-11-16T00:00:00Z",` +
		`"billing_adjustment":{"amount_minor":22500,"currency":"USD","period_start":"2026-11-01T00:00:00Z","period_end":"2026-12-01T00:00:00Z",` +
		`"lines":[{"description":"credit","amount_minor":-2450},{"description":"charge","amount_minor":24950}]},` +
		`"limits":{"daily_api_calls":"unlimited","storage_mb":"unlimited","max_users":"unlimited","retention_days":1095,"features_enabled":["all_features"]},` +
		`"benefits":{"dedicated_resources":true,"premium_features":["ai_predictions","custom_indicators","api_access"],"support_level":"phone","unlimited_storage":true},` +
		`"restrictions_applied":{},"users_suspended":0}` + "\n"
	for _, when := range []string{"2026-11-16T00:00:00Z", "2026-11-16T05:45:00%2b05:45", "2026-11-15T12:00:00-12:00", "2026-11-16T00:00:00.0000009Z"} {
		if a := f.ask("/v1/companies/acme/subscription/preview?new_tier=enterprise&at=" + when); a.status != http.StatusOK || a.body != up {
			t.Errorf("%s: %d %s", when, a.status, a.body)
		}
	}
	const down = `{"company_id":"acme","change":"downgrade","current_tier":"pro","new_tier":"free","price_minor":0,"currency":"USD","effective_date":"2026-12-01T00:00:00Z",` +
		`"billing_adjustment":{"amount_minor":0,"currency":"USD","period_start":"2026-12-01T00:00:00Z","period_end":"2027-01-01T00:00:00Z","lines":[]},` +
		`"limits":{"daily_api_calls":1000,"storage_mb":100,"max_users":1,"retention_days":30,"features_enabled":["basic_trading","email_notifications"]},"benefits":{},` +
		`"restrictions_applied":{"daily_api_calls":{"old":50000,"new":1000},"features_enabled":{"old":["basic_trading","advanced_analytics","email_notifications","sms_notifications","api_access"],` +
		`"new":["basic_trading","email_notifications"]},"retention_days":{"old":365,"new":30},"storage_mb":{"old":10240,"new":100}},"users_suspended":3,` +
		`"immediate":{"effective_date":"2026-11-23T12:00:00Z","billing_adjustment":{"amount_minor":0,"currency":"USD","period_start":"2026-11-23T12:00:00Z","period_end":"2026-12-23T12:00:00Z","lines":[]}}}` + "\n"
	if a := f.ask("/v1/companies/acme/subscription/preview?new_tier=free"); a.status != http.StatusOK || a.body != down {
		t.Errorf("down, now: %d %s", a.status, a.body)
	}
	a := f.ask("/v1/companies/globex/subscription/preview?new_tier=pro&at=2026-11-16T00:00:00Z")
	credit := a.json["immediate"].(map[string]any)["billing_adjustment"].(map[string]any)["amount_minor"]
	if charge := a.json["billing_adjustment"].(map[string]any)["amount_minor"]; a.json["effective_date"] != "2026-12-01T00:00:00Z" || charge != 4900.0 || credit != 0.0 {
		t.Errorf("to another tier with a price: %s", a.body)
	}
	// Never before what has already happened; of a time before the period, all of it is left.
	early := func() any {
		return f.ask("/v1/companies/acme/subscription/preview?new_tier=enterprise&at=2020-01-01T00:00:00Z").json["effective_date"]
	}
	if got := early(); got != "2020-01-01T00:00:00Z" {
		t.Errorf("before the period: %s", got)
	}
	s := f.world.companies["acme"]
	s.LastEffect = at("2026-11-20T00:00:00Z")
	f.world.companies["acme"] = s
	if got := early(); got != "2026-11-20T00:00:00Z" {
		t.Errorf("before the last event: %s", got)
	}
}

func TestAPreviewMeetsWhatIsDueBefore(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for _, c := range []struct {
		company, to, when, held string
		amount                  float64
		start                   string
	}{
		{"acme", "enterprise", "2026-12-03T06:00:00Z", "pro", 0, "2026-11-01T00:00:00Z"},         // it waits for its renewal
		{"acme", "enterprise", "2026-12-05T06:00:00Z", "free", 49900, "2026-12-05T06:00:00Z"},    // it has expired
		{"acme", "pro", "2026-12-05T06:00:00Z", "free", 4900, "2026-12-05T06:00:00Z"},            // so that pro is an upgrade
		{"globex", "pro", "2026-12-31T23:00:00Z", "free", 4900, "2026-12-31T23:00:00Z"},          // the cancellation has come
		{"late", "enterprise", "2026-11-27T11:59:59Z", "pro", 5250, "2026-11-01T00:00:00Z"},      // within the grace
		{"late", "enterprise", "2026-11-27T12:00:00Z", "free", 49900, "2026-11-27T12:00:00Z"},    // and at its end
		{"initech", "enterprise", "2026-12-27T12:00:00Z", "free", 49900, "2026-12-27T12:00:00Z"}, // a free period ends nothing
	} {
		a := f.ask("/v1/companies/" + c.company + "/subscription/preview?new_tier=" + c.to + "&at=" + c.when)
		if a.status != http.StatusOK {
			t.Errorf("%+v: %d %s", c, a.status, a.body)
			continue
		}
		money := a.json["billing_adjustment"].(map[string]any)
		if a.json["change"] != "upgrade" || a.json["current_tier"] != c.held || money["amount_minor"] != c.amount || money["period_start"] != c.start {
			t.Errorf("%+v: %s", c, a.body)
		}
	}
}

func TestAChangeThatIsNotAllowedIsAConflictWithACode(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for _, c := range []struct{ company, to, code string }{
		{"acme", "pro", "invalid_upgrade_path"}, {"globex", "enterprise", "invalid_upgrade_path"}, {"initech", "free", "invalid_upgrade_path"},
		{"acme", "gold", "unknown_tier"}, {"shut", "enterprise", "company_closed"}, {"shut", "gold", "company_closed"},
	} {
		a := f.ask("/v1/companies/" + c.company + "/subscription/preview?new_tier=" + c.to)
		if a.status != http.StatusConflict || a.json["code"] != c.code || a.json["detail"] == nil || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%+v: %d %s", c, a.status, a.body)
		}
	}
}

func TestMalformedQuestionsAboutCompaniesAreToldWhatIsWrong(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for target, want := range map[string]string{
		"/v1/companies/a%2Fb/config":                                                        "company_id is not",
		"/v1/companies/x%22;%20DROP/subscription":                                           "company_id is not",
		"/v1/companies/%D0%B0cme/config":                                                    "company_id is not",
		"/v1/companies/" + strings.Repeat("a", 51) + "/subscription/preview?new_tier=pro":   "company_id is not",
		"/v1/companies/acme/config?version=1":                                               "there are none here",
		"/v1/companies/acme/subscription?new_tier=pro":                                      "there are none here",
		"/v1/companies/acme/subscription/preview":                                           "new_tier is needed",
		"/v1/companies/acme/subscription/preview?at=2026-11-23T12:00:00Z":                   "new_tier is needed",
		"/v1/companies/acme/subscription/preview?new_tier=":                                 "new_tier is not 1 to 20",
		"/v1/companies/acme/subscription/preview?new_tier":                                  "new_tier is not 1 to 20",
		"/v1/companies/acme/subscription/preview?new_tier=Pro":                              "new_tier is not 1 to 20",
		"/v1/companies/acme/subscription/preview?new_tier=pro%00":                           "new_tier is not 1 to 20",
		"/v1/companies/acme/subscription/preview?new_tier=pro%0a":                           "new_tier is not 1 to 20",
		"/v1/companies/acme/subscription/preview?new_tier=" + strings.Repeat("p", 21):       "new_tier is not 1 to 20",
		"/v1/companies/acme/subscription/preview?new_tier=pr%zz":                            "broken escape",
		"/v1/companies/acme/subscription/preview?new_tier=pro&new_tier=enterprise":          "repeated",
		"/v1/companies/acme/subscription/preview?new_tier=pro&new%5ftier=free":              "repeated",
		"/v1/companies/acme/subscription/preview?new_tier=pro&x=1":                          "there are new_tier and at here",
		"/v1/companies/acme/subscription/preview?new_tier=pro&":                             "not known",
		"/v1/companies/acme/subscription/preview?new_tier=pro&at=":                          "at is not a time",
		"/v1/companies/acme/subscription/preview?new_tier=pro&at=tomorrow":                  "at is not a time",
		"/v1/companies/acme/subscription/preview?new_tier=pro&at=2026-11-23":                "at is not a time",
		"/v1/companies/acme/subscription/preview?new_tier=pro&at=2026-02-30T00:00:00Z":      "at is not a time",
		"/v1/companies/acme/subscription/preview?new_tier=pro&at=2026-11-23T12:00:00+01:00": "%2B",
		"/v1/companies/acme/subscription/preview?new_tier=pro&at=9999-11-23T12:00:00Z":      "the years 2000 to 9998",
		"/v1/companies/acme/subscription/preview?new_tier=pro&at=1999-12-31T23:59:59Z":      "the years 2000 to 9998",
		"/v1/companies/acme/subscription/preview?new_tier=pro&at=0000-01-01T00:00:00Z":      "the years 2000 to 9998",
		"/v1/companies/acme/subscription/preview?new_tier=pro&at=1e9":                       "at is not a time",
	} {
		a := f.ask(target)
		if a.status != http.StatusBadRequest || a.json["status"] != 400.0 || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
	if n := f.world.asked.Load(); n != 0 {
		t.Errorf("stores were asked %d times", n)
	}
	for target, status := range map[string]int{
		"/v1/companies/acme/subscription/preview/": 404, "/v1/companies/acme": 404, "/v1/companies//config": 404, "/v1/companies/acme/subscription/preview/x": 404,
		"/v1/companies/acme/subscription/preview?new_tier=enterprise&at=2000-01-01T00:00:00Z": 200, "/v1/companies/acme/subscription/preview?new_tier=enterprise&at=9998-12-31T23:59:59Z": 200,
	} {
		if a := f.ask(target); a.status != status || a.json == nil {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
}

func TestCompaniesThatCantBeReadAre503(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	f.world.companyErr = errors.New("dial tcp 10.1.2.3:5432: connection refused")
	for _, resource := range []string{"config", "subscription", "subscription/preview?new_tier=enterprise"} {
		if a := f.ask("/v1/companies/acme/" + resource); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") != "1" || strings.Contains(a.body, "10.1.2.3") {
			t.Errorf("%s: %d %s", resource, a.status, a.body)
		}
		if a := f.ask("/v1/companies/globex/"+resource, withToken(acmeToken)); a.status != http.StatusNotFound {
			t.Errorf("%s of another company: %d %s", resource, a.status, a.body)
		}
	}
}
