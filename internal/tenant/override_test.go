package tenant_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tenantmodel"
	"tenantflow/internal/tier"
)

func TestNext_OverridesEndBeforeCompanyEvents(t *testing.T) {
	t.Parallel()
	due := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	later := due.Add(time.Hour)
	named := func(name string, at time.Time) *events.CompanyDue {
		return &events.CompanyDue{Kind: tenant.DueOverride, Name: name, DueAt: at}
	}
	for _, c := range []struct {
		name    string
		payload any
		after   time.Duration // the event's time, and the broker's, after what is due
		status  string
		want    tenant.Step
	}{
		{"before it is due", &events.ConfigUpdated{}, -time.Microsecond, tenant.Active, tenant.Apply},
		{"when it is due", &events.ConfigUpdated{}, 0, tenant.Active, tenant.DueFirst},
		{"a user", &events.UserAdded{}, time.Minute, tenant.Active, tenant.DueFirst},
		{"another override", &events.LimitsOverridden{}, time.Minute, tenant.Active, tenant.DueFirst},
		{"an event that is held", &events.UserErasureRequested{}, time.Minute, tenant.Active, tenant.DueFirst},
		{"the end of the company", &events.CompanyClosed{}, time.Minute, tenant.Active, tenant.DueFirst},
		{"a second registration", &events.CompanyRegistered{}, time.Minute, tenant.Active, tenant.Apply},
		{"an event of the other topic", &events.UpgradeRequested{}, time.Minute, tenant.Active, tenant.Apply},
		{"what is due", named("max_users", due), 0, tenant.Active, tenant.DueFirst},
		{"what is due later, and comes too early", named("storage_mb", later), 0, tenant.Active, tenant.Drop},
		{"what is due later", named("storage_mb", later), time.Hour, tenant.Active, tenant.DueFirst},
		{"what is due, taken too early", named("max_users", due), -time.Microsecond, tenant.Active, tenant.Drop},
		{"another limit", named("daily_api_calls", due), 0, tenant.Active, tenant.Drop},
		{"another time", named("max_users", due.Add(-time.Second)), 0, tenant.Active, tenant.Drop},
		{"without an end", named("retention_days", due), 0, tenant.Active, tenant.Drop},
		{"of a closed company", named("max_users", due), 0, tenant.Closed, tenant.Drop},
		{"an event of a closed company", &events.ConfigUpdated{}, time.Hour, tenant.Closed, tenant.Apply},
	} {
		s := &tenant.State{CompanyID: "acme", Company: &tenant.Company{Status: c.status}, Subscription: &tenant.Subscription{}, Overrides: tenant.Overrides{
			{Limit: "max_users", ExpiresAt: &due}, {Limit: "retention_days"}, {Limit: "storage_mb", ExpiresAt: &later}}}
		at := due.Add(c.after)
		if got := tenant.Next(s, &tenant.Cause{Event: &events.Event{Envelope: events.Envelope{Time: at}}, Payload: c.payload, Appended: at}); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestOverrides_AreOverTheTiersLimits(t *testing.T) {
	t.Parallel()
	pro, _ := tier.Default().Tier("pro")
	all := tenant.Overrides{{Limit: "daily_api_calls", Value: 7}, {Limit: "daily_data_points", Value: 9}, {Limit: "gold", Value: 1}, {Limit: "max_users", Value: tier.Unlimited}, {Limit: "retention_days", Value: tier.Unlimited},
		{Limit: "storage_mb", Value: 0}}
	over := all.Over(pro.Limits)
	for name, want := range map[string]tier.Limit{"daily_api_calls": 7, "daily_data_points": 9, "max_users": tier.Unlimited, "retention_days": tier.Unlimited, "storage_mb": 0} {
		if got, _ := over.Named(name); got != want {
			t.Errorf("%s over pro: %s, want %s", name, got, want)
		}
	}
	if !slices.Equal(over.Features, pro.Features) || pro.DataPoints() != tier.Unlimited {
		t.Errorf("over pro: %v, and pro has become %v", over, pro.Limits)
	}
	if got, want := fmt.Sprint(tenant.Overrides(nil).Over(pro.Limits)), fmt.Sprint(pro.Limits); got != want {
		t.Errorf("none over pro: %s, want %s", got, want)
	}
	if pro.DailyAPICalls != 50000 {
		t.Error("the tier itself is another one now")
	}
}

// What a preview says of limits counts the overrides that are in force when the change happens.
func TestPreview_CountsOverridesInForceThen(t *testing.T) {
	t.Parallel()
	s := newStory(t, tenant.New(tenant.Config{Catalogue: tier.Default()}))
	s.tell("11-01 up enterprise")
	s.take(tenantmodel.Event{Topic: events.TopicCompany, Type: events.TypeLimitsOverridden, Company: "acme", Source: "/s", ID: "o", Time: when(t, "11-02"), Data: map[string]any{
		"limits": map[string]any{"daily_api_calls": 7, "max_users": 3}, "reason": "r", "expires_at": "2026-11-20T00:00:00Z"}})
	s.take(tenantmodel.Event{Topic: events.TopicCompany, Type: events.TypeLimitsOverridden, Company: "acme", Source: "/s", ID: "p", Time: when(t, "11-02"), Data: map[string]any{
		"limits": map[string]any{"storage_mb": 5}, "reason": "r"}})
	for _, c := range []struct{ tier, at, held, then string }{
		{"pro", "11-10", "unlimited unlimited 5", "50000 25 5"}, // at the end of the period, in December
		{"pro", "11-25", "unlimited unlimited 5", "50000 25 5"},
	} {
		p, err := s.rules.Preview(&s.state, c.tier, when(t, c.at))
		if err != nil {
			t.Fatal(err)
		}
		text := func(l tier.Limits) string { return fmt.Sprint(l.DailyAPICalls, " ", l.MaxUsers, " ", l.StorageMB) }
		if held, then := text(p.HeldLimits), text(p.Limits); held != c.held || then != c.then {
			t.Errorf("%s at %s: %s, then %s; want %s, then %s", c.tier, c.at, held, then, c.held, c.then)
		}
	}
	free := newStory(t, tenant.New(tenant.Config{Catalogue: tier.Default()}))
	free.state.Overrides = s.state.Overrides
	for at, want := range map[string]string{"11-10": "7 3 5", "11-20": "50000 25 5"} {
		p, err := free.rules.Preview(&free.state, "pro", when(t, at))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(p.Limits.DailyAPICalls, " ", p.Limits.MaxUsers, " ", p.Limits.StorageMB); got != want {
			t.Errorf("an upgrade at %s: %s, want %s", at, got, want)
		}
	}
}
