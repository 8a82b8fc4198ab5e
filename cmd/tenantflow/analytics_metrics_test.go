package main

import (
	"strings"
	"testing"
	"time"

	"tenantflow/internal/analytics"
	"tenantflow/internal/analytics/analyticstest"
)

func TestAnalytics_MetricsAreThoseOfAllCompanies(t *testing.T) {
	t.Parallel()
	environ, world := businessStores(t)
	present := analytics.MonthOf(time.Now())
	world.Plant(t, analyticstest.Use{Company: "acme", User: "u-1", Tier: "free", From: (present - 1).Start(), Calls: 3})
	out := looked(t, environ, "analytics", "metrics")
	if analytics.MonthOf(time.Now()) != present {
		return // another month has begun
	}
	for _, line := range []string{
		"METRIC ", "revenue per user, " + (present - 1).String() + "  ", "revenue per user, " + present.String() + " (not over) ", "0.00 USD charged, 1 active users, 0.750000 attributed",
		"conversion to pro ", "at least 15.00 %", "churn in " + (present - 1).String(), "under 5.00 %", "- (there is no price of storage: TENANTFLOW_STORAGE_PRICE_MINOR is not set)", "lifetime value ", "query latency, p95 ", "at most 500.00 ms", "retention compliance ",
		"- (there is no company that can be measured)", "isolation leaks ", "health score: ", "companies with tier pro: 1", "companies with tier enterprise: 0", "monthly recurring revenue: 0.00 USD",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("it lacks %q:\n%s", line, out)
		}
	}
	priced := append([]string{"TENANTFLOW_STORAGE_PRICE_MINOR=25"}, environ...)
	if out := looked(t, priced, "analytics", "metrics"); !strings.Contains(out, "- (nothing was charged)") || !strings.Contains(out, " USD a month for 0 bytes in Postgres, ") {
		t.Errorf("with a price:\n%s", out)
	}
	if got := compacted(t, looked(t, priced, "analytics", "metrics", "-o", "json")); !strings.Contains(got, `"price_minor":25`) || !strings.Contains(got, `"active_users":1,"arpu":0.00,"attributed_revenue":0.750000`) {
		t.Errorf("JSON: %s", got)
	}
	if out, errOut, code := tenantflow(t, environ, "analytics", "metrics", "acme"); code != exitInvalid || out != "" || errOut == "" {
		t.Errorf("with an argument: exit code %d: %s", code, errOut)
	}
	if _, errOut, code := tenantflow(t, append([]string{"TENANTFLOW_STORAGE_PRICE_MINOR=-1"}, environ...), "analytics", "metrics"); code != exitInvalid || !strings.Contains(errOut, "TENANTFLOW_STORAGE_PRICE_MINOR") {
		t.Errorf("with a price below 0: exit code %d: %s", code, errOut)
	}
}
