package postgres_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/directory"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

func TestUsersAreWhatTheirCompanyHasSubscribedTo(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.exec(t,
		"INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('none', 'N', 'n@x'), ('shut', 'S', 's@x')",
		"INSERT INTO subscriptions (company_id, tier, status, period_start) VALUES ('acme', 'enterprise', 'past_due', '2026-11-01 00:00+00'), ('shut', 'pro', 'active', '2026-11-01 00:00+00')",
		`INSERT INTO user_directory (user_id, company_id, email, subscription_status, subscription_start_date, created_at, last_activity)
		VALUES ('u1', 'acme', 'u1@acme', 'active', '2026-01-02 03:04:05+02', '2026-01-01 00:00+00', '2026-11-20 10:00+00')`,
		"INSERT INTO user_directory (user_id, company_id, subscription_status) VALUES ('u2', 'acme', 'suspended')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u3', 'none'), ('u4', 'shut')",
		"UPDATE companies SET status = 'closed' WHERE company_id = 'shut'",
		"UPDATE company_config SET config = '{}'")
	got, err := w.store.Users(t.Context(), []string{"u3", "u1", "nobody", "u2", "u4", "u1", "x' OR 'a'='a"})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b directory.Subscription) int { return strings.Compare(a.UserID, b.UserID) })
	if len(got) != 4 {
		t.Fatalf("%d users: %+v", len(got), got)
	}
	day := func(s string) *time.Time {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return &at
	}
	u := got[0]
	want := directory.Subscription{UserID: "u1", CompanyID: "acme", Email: "u1@acme", Tier: "enterprise", Status: "active", StartDate: day("2026-01-02T01:04:05Z"),
		Memberships: []directory.Membership{{CompanyID: "acme", Since: *day("2026-01-01T00:00:00Z")}},
		EndDate:     day("2026-12-01T00:00:00Z"), CreatedAt: *day("2026-01-01T00:00:00Z"), LastActivity: day("2026-11-20T10:00:00Z"), BillingStatus: "past_due",
		Limits: tier.Limits{DailyAPICalls: tier.Unlimited, StorageMB: tier.Unlimited, MaxUsers: tier.Unlimited, RetentionDays: 1095, Features: []string{"all_features"}}}
	if u.Version == 0 || u.Origin == "" || time.Since(u.UpdatedAt).Abs() > time.Minute {
		t.Errorf("version %d, updated at %s", u.Version, u.UpdatedAt)
	}
	if at := u.Memberships[0].RecordedAt; time.Since(at).Abs() > time.Minute {
		t.Errorf("the membership was recorded at %s", at)
	}
	want.Memberships[0].RecordedAt = u.Memberships[0].RecordedAt
	if text, wanted := asJSON(t, u, true), asJSON(t, want, true); text != wanted {
		t.Errorf("u1 is\n%s\nwant\n%s", text, wanted)
	}
	if got[1].Status != "suspended" || got[1].BillingStatus != "past_due" {
		t.Errorf("the suspended user is %+v", got[1])
	}
	if n := got[2]; n.Tier != "" || n.BillingStatus != "" || n.CompanyID != "none" || !reflect.DeepEqual(n.Limits, tier.Limits{Features: []string{}}) || n.EndDate != nil {
		t.Errorf("the user of a company without a subscription is %+v", n)
	}
	if got[3].BillingStatus != "closed" || got[3].Tier != "pro" {
		t.Errorf("the user of a closed company is %+v", got[3])
	}
	if none, err := w.store.Users(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("nobody: %v, %v", none, err)
	}
}

func TestUsers_MembershipsFollowTheDirectory(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('bolt', 'B', 'b@x')",
		"SELECT tenant_user_put('acme', 'u1', 'u1@x', '2026-03-01 08:00+00')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u2', 'acme')")
	history := func(user string) string {
		t.Helper()
		users, err := w.store.Users(t.Context(), []string{user, "nobody"})
		if err != nil || len(users) != 1 {
			t.Fatalf("%d users, %v", len(users), err)
		}
		var all []string
		for _, m := range users[0].Memberships {
			// Whatever the events' times are, they were recorded just now.
			if time.Since(m.RecordedAt).Abs() > time.Minute || m.EndedAt.IsZero() != m.Until.IsZero() ||
				!m.EndedAt.IsZero() && (m.EndedAt.Before(m.RecordedAt) || time.Since(m.EndedAt).Abs() > time.Minute) {
				t.Errorf("recorded at %s, and its end at %s", m.RecordedAt, m.EndedAt)
			}
			text := m.CompanyID + " " + m.Since.Format("01-02T15")
			if !m.Until.IsZero() {
				text += " to " + m.Until.Format("01-02T15")
			}
			all = append(all, text)
		}
		return strings.Join(all, ", ")
	}
	remove := func(company, user, at string) {
		t.Helper()
		w.exec(t, "BEGIN", "SELECT set_config('tenantflow.effective_at', '"+at+"', true)",
			fmt.Sprintf("SELECT tenant_user_remove('%s', '%s', '%s')", company, user, at), "COMMIT")
	}
	for i, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, "acme 03-01T08"},
		{func() {
			w.exec(t, "UPDATE user_directory SET email = 'other', last_activity = now() WHERE user_id = 'u1'")
		}, "acme 03-01T08"},
		{func() { remove("acme", "u1", "2026-03-02 12:00+00") }, "acme 03-01T08 to 03-02T12"},
		{func() { w.exec(t, "SELECT tenant_user_put('bolt', 'u1', 'u1@x', '2026-03-02 13:00+00')") }, "bolt 03-02T13, acme 03-01T08 to 03-02T12"},
		{func() { remove("acme", "u1", "2026-03-03 12:00+00") }, "bolt 03-02T13, acme 03-01T08 to 03-02T12"}, // is not one of acme
		// An event that is dated before the beginning ends it with the beginning, and the same again begins it again.
		{func() { remove("bolt", "u1", "2026-03-02 12:30+00") }, "bolt 03-02T13 to 03-02T13, acme 03-01T08 to 03-02T12"},
		{func() { w.exec(t, "SELECT tenant_user_put('bolt', 'u1', 'u1@x', '2026-03-02 13:00+00')") }, "bolt 03-02T13, acme 03-01T08 to 03-02T12"},
		{func() {
			w.exec(t, "BEGIN", "SELECT set_config('tenantflow.effective_at', '2026-03-05 09:00+00', true)",
				"UPDATE user_directory SET company_id = 'acme' WHERE user_id = 'u1'", "COMMIT")
		}, "acme 03-05T09, bolt 03-02T13 to 03-05T09, acme 03-01T08 to 03-02T12"},
	} {
		step.do()
		if got := history("u1"); got != step.want {
			t.Errorf("after step %d it is %s, want %s", i, got, step.want)
		}
	}
	w.exec(t, "TRUNCATE user_directory") // by hand: now
	users, err := w.store.Users(t.Context(), []string{"u1", "u2"})
	if err != nil || len(users) != 2 {
		t.Fatalf("%+v, %v", users, err)
	}
	for _, u := range users {
		if u.CompanyID != "" || u.Origin == "" || time.Since(u.Memberships[0].Until).Abs() > time.Minute || u.Memberships[0].EndedAt.Before(u.Memberships[0].RecordedAt) {
			t.Errorf("after all were removed: %+v", u)
		}
	}
	w.exec(t, "INSERT INTO user_memberships SELECT 'u1', 'c' || n, '2020-01-01 00:00+00'::timestamptz + n * interval '1 day', '2025-01-01 00:00+00' FROM generate_series(1, 100) AS n")
	if users, err := w.store.Users(t.Context(), []string{"u1"}); err != nil || len(users[0].Memberships) != 32 || users[0].Memberships[0].CompanyID != "acme" {
		t.Errorf("of a hundred moves: %+v, %v", users, err)
	}
}

func TestUserOf_OthersAreNotFound(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('bolt', 'B', 'b@x')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u1', 'acme'), ('u2', 'bolt'), ('u3', 'acme')", "DELETE FROM user_directory WHERE user_id = 'u3'")
	for user, companies := range map[string][]string{"u1": {"bolt"}, "u2": {"acme", "cord"}, "u3": {"acme", "bolt"}, "u4": {"acme", "bolt"}} {
		if u, err := w.store.UserOf(t.Context(), user, companies); !errors.Is(err, directory.ErrUnknown) {
			t.Errorf("%s of %s is %+v, %v", user, companies, u, err)
		}
	}
	if u, err := w.store.UserOf(t.Context(), "u1", []string{"bolt", "acme"}); err != nil || u.UserID != "u1" || u.CompanyID != "acme" {
		t.Errorf("%+v, %v", u, err)
	}
}

// asJSON writes a subscription, without what differs every time.
func asJSON(t *testing.T, s directory.Subscription, stable bool) string {
	t.Helper()
	if stable {
		s.Version, s.Origin, s.UpdatedAt = 0, "", time.Time{}
	}
	for _, at := range []*time.Time{s.StartDate, s.EndDate, s.LastActivity, &s.CreatedAt} {
		if at != nil {
			*at = at.UTC()
		}
	}
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestACompanyIsItsConfigurationAndItsPeriod(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('none', 'N', 'n@x')",
		"INSERT INTO company_config (company_id, config) VALUES ('acme', '{\"theme\": {\"dark\": true}}')",
		"INSERT INTO subscriptions (company_id, tier, period_start) VALUES ('acme', 'pro', '2026-10-31 12:00+00')")
	c, err := w.store.Company(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if c.CompanyID != "acme" || c.BillingEmail != "a@x" || c.Tier != "pro" || c.SupportLevel != "email" || c.Limits.MaxUsers != 25 ||
		string(c.Config) != `{"theme": {"dark": true}}` || c.Period.Status != "active" || c.Version == 0 {
		t.Errorf("%+v", c)
	}
	if start, end := c.Period.Start.UTC().Format(time.RFC3339), c.Period.End.UTC().Format(time.RFC3339); start != "2026-10-31T12:00:00Z" || end != "2026-11-30T12:00:00Z" {
		t.Errorf("the period is %s to %s", start, end)
	}
	if c, err := w.store.Company(t.Context(), "none"); err != nil || c.Tier != "" || c.Period.Status != "" || c.Period.Start != nil || c.Config != nil || c.SupportLevel != "community" {
		t.Errorf("without anything: %+v, %v", c, err)
	}
	if _, err := w.store.Company(t.Context(), "nobody"); !errors.Is(err, directory.ErrUnknown) {
		t.Errorf("an unknown company: %v", err)
	}
}

func TestATierThatLeftTheCatalogueIsSaidOnce(t *testing.T) {
	t.Parallel()
	w := setup(t)
	var log bytes.Buffer
	store := open(t, postgres.Config{DSN: w.dsn, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x')",
		"INSERT INTO subscriptions (company_id, tier) VALUES ('acme', 'gold')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u1', 'acme'), ('u2', 'acme')")
	for range 2 {
		users, err := store.Users(t.Context(), []string{"u1", "u2"})
		if err != nil || len(users) != 2 || users[0].Tier != "gold" || users[0].Limits.DailyAPICalls != 1000 {
			t.Errorf("%+v, %v", users, err)
		}
	}
	if _, err := store.Company(t.Context(), "acme"); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "tier=gold"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
}

func TestTheUsersOfACompanyAreListedPageByPage(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('bolt', 'B', 'b@x')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('b', 'acme'), ('Z', 'acme'), ('a', 'acme'), ('x', 'bolt'), ('_', 'acme')")
	var pages [][]string
	for after := ""; ; {
		page, err := w.store.Members(t.Context(), "acme", after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		pages = append(pages, page)
		after = page[len(page)-1]
	}
	if want := [][]string{{"Z", "_"}, {"a", "b"}}; !reflect.DeepEqual(pages, want) {
		t.Errorf("%q, want %q", pages, want)
	}
}

func TestAFreePeriodIsTheOneThatNowLiesIn(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('old', 'O', 'o@x')",
		"INSERT INTO subscriptions (company_id, tier, period_start) VALUES ('old', 'free', '2024-01-31 10:00+00')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u', 'old')")
	now := time.Now()
	users, err := w.store.Users(t.Context(), []string{"u"})
	if err != nil || len(users) != 1 || !users[0].EndDate.After(now) || users[0].StartDate.After(now) {
		t.Errorf("the user's: %+v, %v", users, err)
	}
	company, err := w.store.Company(t.Context(), "old")
	if err != nil || !company.Period.End.After(now) || company.Period.Start.After(now) {
		t.Errorf("the company's: %+v, %v", company.Period, err)
	}
	subscription, err := w.store.Subscription(t.Context(), "old")
	if err != nil || !subscription.PeriodEnd.After(now) || subscription.PeriodStart.After(now) {
		t.Errorf("the subscription's: %+v, %v", subscription, err)
	}
}
