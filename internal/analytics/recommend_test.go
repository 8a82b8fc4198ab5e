package analytics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/events"
	"tenantflow/internal/analytics/analyticstest"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/postgres"
)

func TestJudgeChurn_Rules(t *testing.T) {
	t.Parallel()
	at := moment(t, "2026-11-01T00:00:00Z")
	for _, c := range []struct {
		name         string
		two, prev, n int64
		last         string
		want         string // score, listed, idle; empty: not judged
	}{
		{"falling", 300, 200, 100, "2026-10-31T23:59:59Z", "66.67 listed"},
		{"falling to nothing", 300, 200, 0, "2026-09-30T12:00:00Z", "100.00 listed idle"},
		{"gone for two months", 300, 0, 0, "2026-08-31T00:00:00Z", ""},
		{"new", 0, 0, 10, "2026-10-20T00:00:00Z", "50.00"},
		{"new and gone", 0, 10, 0, "2026-09-20T00:00:00Z", "50.00 idle"},
		{"rising", 100, 200, 300, "2026-10-18T00:00:00Z", "0.00"},
		{"a moment too early for the last 14 days", 100, 100, 100, "2026-10-17T23:59:59.999Z", "0.00 idle"},
		{"back after a month", 100, 0, 50, "2026-10-31T00:00:00Z", "50.00"},
		{"down and up", 300, 100, 200, "2026-10-31T00:00:00Z", "33.33"},
		{"voids of usage that is gone", -5, 10, -3, "2026-09-20T00:00:00Z", "50.00 idle"},
	} {
		got := ""
		for _, j := range JudgeChurn("pro", []JudgedUse{{MonthlyUse{"u", c.two, c.prev, c.n}, moment(t, c.last)}}, at) {
			got = j.Score.String()
			if j.Listed {
				got += " listed"
			}
			if j.Idle {
				got += " idle"
			}
			if j.UserID != "u" || j.Tier != "pro" || j.Listed == (j.Strategy == "") || j.Trend.CurrentMonth < 0 {
				t.Errorf("%s: %+v", c.name, j)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// Those who are listed are those of the analysis, with the same scores, and all scores are from 0 to 100.
func TestJudgeChurn_AgreesWithTheList(t *testing.T) {
	t.Parallel()
	at := moment(t, "2026-11-01T00:00:00Z")
	rapid.Check(t, func(t *rapid.T) {
		calls := rapid.OneOf(rapid.Int64Range(-3, 5), rapid.Int64Range(0, 1e9))
		var users []JudgedUse
		var use []MonthlyUse
		for i := range rapid.IntRange(0, 8).Draw(t, "users") {
			u := MonthlyUse{string(rune('a' + i)), calls.Draw(t, "two ago"), calls.Draw(t, "previous"), calls.Draw(t, "current")}
			users, use = append(users, JudgedUse{u, at.AddDate(0, 0, -1)}), append(use, u)
		}
		listed := map[string]ChurnRisk{}
		for _, r := range ChurnRisks("pro", use) {
			listed[r.UserID] = r
		}
		for _, j := range JudgeChurn("pro", users, at) {
			if r, ok := listed[j.UserID]; ok != j.Listed || ok && r != j.ChurnRisk || j.Score < 0 || j.Score > 100_00 {
				t.Fatalf("%+v, listed as %+v", j, r)
			}
			delete(listed, j.UserID)
		}
		if len(listed) > 0 {
			t.Fatalf("listed and not judged: %v", listed)
		}
	})
}

func TestStoredForecasts_HaveTheirScale(t *testing.T) {
	t.Parallel()
	if got := storedForecasts([]Money{1, 2, 3}, "USD", 100); got != nil {
		t.Errorf("of three months: %+v", got)
	}
	got := storedForecasts([]Money{100, 300, 200, 600}, "EUR", MonthOf(moment(t, "2026-10-15T00:00:00Z")))
	if len(got) != ForecastMonths {
		t.Fatalf("%+v", got)
	}
	for i, steps := range []int64{200 + 100 + 400, 100 + 300, 500} { // one, two and three months apart
		f := got[i]
		if f.Month != []string{"2026-11", "2026-12", "2027-01"}[i] || f.Naive != 600 || f.Steps != steps || f.History != 4 || f.Currency != "EUR" || f.Low > f.Value || f.Value > f.High {
			t.Errorf("%d: %+v, want steps of %d", i, f, steps)
		}
	}
}

// The trouble of companies keeps nothing from the others, also where a page has no other; where a store fails without any of them it is not theirs.
func TestEach_OneCompanysTroubleStaysItsOwn(t *testing.T) {
	t.Parallel()
	pages := [][]string{{"a", "b", "c"}, {"d"}}
	list := func(after string) ([]string, error) {
		for _, page := range pages {
			if page[0] > after {
				return page, nil
			}
		}
		return nil, nil
	}
	bad := errors.New("broken")
	for _, c := range []struct {
		name   string
		broken string
		away   error
		failed int
		err    string
	}{{"none", "", bad, 0, ""}, {"one", "b", bad, 1, ""}, {"one alone on its page", "d", nil, 1, ""}, {"all of a page", "abc", nil, 3, ""}, {"all", "abcd", nil, 4, ""},
		{"all of a page, and the store", "abc", bad, 3, "each of 3 companies failed: broken"}} {
		failed := &failures{log: slog.New(slog.DiscardHandler)}
		err := each(t.Context(), list, func(context.Context) error { return c.away }, failed, func(_ context.Context, company string) error {
			if strings.Contains(c.broken, company) {
				return bad
			}
			return nil
		})
		if failed.total != c.failed || c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err) {
			t.Errorf("%s: %d failed, %v", c.name, failed.total, err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	failed := &failures{log: slog.New(slog.DiscardHandler)}
	if err := each(ctx, list, nil, failed, func(ctx context.Context, _ string) error { return ctx.Err() }); !errors.Is(err, context.Canceled) || failed.total > 0 {
		t.Errorf("stopped: %v, and %d failed", err, failed.total)
	}
}

// A recommending fixture has a Recommender whose events are kept, and which can be stopped behind any step.
type recommending struct {
	fixture
	events  map[string]string // what was published: key, type, time and data by id
	reached []RecommendStep
}

// run recommends for a slot and is stopped behind so many steps; false: it has come to its end before.
func (r *recommending) run(t *testing.T, slot time.Time, stopBehind int) (done *Recommended, stopped bool) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	steps := make(chan RecommendStep, 1000)
	recommender := NewRecommender(RecommenderConfig{Analyst: r.Analyst, TopicPrefix: "x.", Now: func(context.Context) (time.Time, error) { return slot.Add(RecommendGrace), nil },
		UsageUntil: func(context.Context) (time.Time, error) { return slot.Add(RecommendGrace), nil },
		Publish:    func(_ context.Context, results []kafka.Result) error { return r.publish(t, results) },
		Step: func(s RecommendStep) {
			steps <- s
			if len(steps) > stopBehind {
				stop()
			}
		}})
	result, err := recommender.Recommend(ctx, slot)
	for len(steps) > 0 {
		r.reached = append(r.reached, <-steps)
	}
	done, ok := result.(*Recommended)
	if !ok || err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("%+v, %v", result, err)
	}
	return done, err != nil
}

func (r *recommending) publish(t *testing.T, results []kafka.Result) error {
	t.Helper()
	decoder, err := events.NewDecoder("")
	if err != nil {
		return err
	}
	for _, one := range results {
		e := one.Event
		if err := decoder.CheckData(e.Type, e.Data); err != nil || one.Topic != "x.business.metrics" || e.Source != "/tenantflow/jobs" || e.CausationSource != "/tenantflow/schedule" {
			t.Errorf("%+v: %v", one, err)
		}
		text := strings.Join([]string{one.Key, e.Type, e.Time.Format(time.RFC3339), e.CausationID, string(e.Data)}, " ")
		if before, known := r.events[e.ID]; known && before != text {
			t.Errorf("%s was published as\n%s\nand as\n%s", e.ID, before, text)
		}
		r.events[e.ID] = text
	}
	return nil
}

// rows are those of a query with one column, which is text.
func (r *recommending) rows(t *testing.T, query string) []string {
	t.Helper()
	rows, err := r.sql.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := []string{}
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// A run that is killed behind any of its steps, and run again, has stored and published everything once, and each outcome is found.
func TestRecommend_KillAtAnyStepChangesNothing(t *testing.T) {
	t.Parallel()
	r := &recommending{fixture: setup(t), events: map[string]string{}}
	r.companies(t)
	present := MonthOf(time.Now())
	made := present - 2 // judged at its end; what comes of it is known at the end of the month behind
	on := func(month Month, day int) time.Time { return month.Start().AddDate(0, 0, day-1).Add(time.Hour) }
	use := func(company, user string, from time.Time, calls int) {
		t.Helper()
		r.Plant(t, analyticstest.Use{Company: company, User: user, Tier: "free", From: from, Calls: calls})
	}
	use("acme", "heavy", on(made, 20), 900) // needs a larger tier, and is new
	use("acme", "light", on(made-2, 3), 30) // falls, and leaves
	use("acme", "light", on(made-1, 3), 20)
	use("acme", "light", on(made, 3), 10)
	use("acme", "idler", on(made-1, 3), 10) // stays
	use("acme", "idler", on(made, 28), 10)
	use("acme", "idler", on(made+1, 28), 1)
	use("acme", "heavy", on(made+1, 1), 1)
	use("acme", "suspended", on(made, 3), 900)
	use("acme", "edge", on(made-2, 3), 900) // has left already
	use("globex", "g-1", on(made-1, 3), 5)  // new, and idle
	use("shut", "s-1", on(made, 3), 900)
	use("grand", "e-1", on(made, 25), 900)
	use("grand", "e-1", on(made+1, 3), 900)
	for ago, amount := range []int64{77_777, 49_900, 49_900, 49_900, 49_900, 50_000} { // from the month behind backwards, which the forecast does not look at
		r.exec(t, fmt.Sprintf(`INSERT INTO billing_transactions (transaction_id, company_id, transaction_type, new_tier, amount_minor, currency, lines, period_start, created_at)
			VALUES ('t%d', 'grand', 'renewal', 'enterprise', %d, 'USD', '[]', '%s', now())`, ago, amount, on(made+1-Month(ago), 5).Format(time.RFC3339)))
	}
	r.exec(t, fmt.Sprintf(`INSERT INTO subscription_events (company_id, event, event_time, data) VALUES ('acme', 'subscription.upgraded', '%s', '{"to": "pro"}')`,
		on(made+2, 1).Add(-time.Hour-time.Millisecond).Format(time.RFC3339Nano)))

	// The slot of the month in which they are judged, stopped behind each step. What is published before a stop is published again.
	slot := (made + 1).Start()
	stops := 0
	for behind, stopped := 0, true; stopped; behind = (behind + 1) % 5 {
		if stops++; stops > 50 {
			t.Fatalf("it does not come to an end: %v", r.reached)
		}
		_, stopped = r.run(t, slot, behind)
	}
	if !slices.Contains(r.reached, StepStored) || !slices.Contains(r.reached, StepPublished) || stops < 3 {
		t.Errorf("stopped %d times, behind %v", stops, r.reached)
	}
	const rows = `SELECT concat_ws(' ', company_id, user_id, kind, month, tier, score, flagged, idle, outcome) FROM recommendations ORDER BY company_id, user_id, kind`
	want := func(light, stay, upgraded string) []string {
		m := made.String()
		return []string{"acme heavy churn " + m + " free 50.00 f f" + stay, "acme heavy upsell " + m + " free 67.00 t" + upgraded,
			"acme idler churn " + m + " free 50.00 f f" + stay, "acme light churn " + m + " free 66.67 t t" + light,
			"globex g-1 churn " + m + " free 50.00 f t" + light, "grand e-1 churn " + m + " enterprise 50.00 f f" + stay}
	}
	if got := r.rows(t, rows); !slices.Equal(got, want("", "", "")) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want("", "", ""), "\n"))
	}
	if got := r.rows(t, "SELECT recommendation_id::text FROM recommendations WHERE published_at IS NOT NULL"); len(got) != 2 || len(r.events) != 2 || r.events[got[0]] == "" || r.events[got[1]] == "" {
		t.Errorf("noted as published: %v; published: %v", got, r.events)
	}
	lightID := recommendationID(postgres.KindChurn, "acme", "light", made)
	event := r.events[lightID]
	for _, part := range []string{"acme churn.risk_identified.v1 " + slot.Format(time.RFC3339) + " slot:recommendations:" + slot.Format(time.RFC3339) + " {",
		`"month": "` + made.String() + `"`, `"user_id": "light"`, `"churn_risk_score": 66.67`, `"retention_strategy": "onboarding_mail"`, `"recommendation_id": "` + lightID + `"`} {
		if !strings.Contains(event, part) {
			t.Errorf("%s lacks %s", event, part)
		}
	}
	// Once more: nothing is done.
	again, _ := r.run(t, slot, 1000)
	if again.Recommendations != 0 || again.Forecasts != 0 || again.Published != 0 || again.Outcomes != 0 || again.Month != made {
		t.Errorf("again: %+v", again)
	}
	// Usage that comes late changes nothing that is stored.
	use("acme", "late", on(made, 3), 900)
	r.exec(t, "INSERT INTO user_directory (user_id, company_id) VALUES ('late', 'acme')")

	// The next slot finds what came of them.
	reached := len(r.reached)
	for behind, stopped := 0, true; stopped; behind = (behind + 1) % 7 {
		if stops++; stops > 100 {
			t.Fatalf("it does not come to an end: %v", r.reached)
		}
		_, stopped = r.run(t, present.Start(), behind)
	}
	if !slices.Contains(r.reached[reached:], StepScored) {
		t.Errorf("behind %v", r.reached[reached:])
	}
	judged := strings.Replace(rows, "ORDER BY", "WHERE month = '"+made.String()+"' ORDER BY", 1)
	if got := r.rows(t, judged); !slices.Equal(got, want(" t", " f", " t")) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want(" t", " f", " t"), "\n"))
	}
	forecasts := r.rows(t, "SELECT concat_ws(' ', company_id, month, value_minor < 50000, naive_minor, steps_minor, history_months, actual_minor) FROM forecasts WHERE made_month = '"+made.String()+"' ORDER BY month")
	if len(forecasts) != 3 || forecasts[0] != fmt.Sprintf("grand %s t 49900 100 5 77777", made+1) || forecasts[1] != fmt.Sprintf("grand %s t 49900 100 5", made+2) {
		t.Errorf("forecasts: %q", forecasts)
	}
	// Usage that was late is seen a month later, and so is an upgrade that was recorded late.
	use("acme", "light", on(made+1, 9), 1)
	if done, _ := r.run(t, (present + 1).Start(), 1000); done.Outcomes == 0 {
		t.Errorf("%+v", done)
	}
	if got := r.rows(t, judged); got[3] != "acme light churn "+made.String()+" free 66.67 t t f" {
		t.Errorf("with late usage: %s", got[3])
	}

	report, err := r.Accuracy(t.Context(), present.Start())
	if err != nil {
		t.Fatal(err)
	}
	c := report.Churn
	if c.Users != 5 || c.Left != 1 || c.Score.Flagged != 1 || *c.Score.Precision != 0 || *c.ByIdle.Precision != 0.5 || len(c.Months) != 1 || c.Active.Users != 4 || c.Active.Left != 0 || c.Active.AUC != nil || c.Late != 5 || c.Score.Brier != nil {
		t.Errorf("%+v", c)
	}
	if u := report.Upsell; u.Companies != 1 || u.Users != 1 || u.Upgraded != 1 || *u.Success != 1 || u.OtherCompanies != 1 || u.OtherUpgraded != 0 {
		t.Errorf("%+v", u) // grand has the highest tier and is no other company
	}
	if f := report.Forecast; f.N != 1 || len(f.Distances) != 1 || f.Distances[0].Months != 1 || *f.NaiveMASE != 1115.08 { // 278.77 off, where it was 0.25 off on average
		t.Errorf("%+v", f)
	}
}

// An installation without companies, companies without usage, and a tier that has left the catalogue have answers.
func TestAccuracy_OfNothingIsNothing(t *testing.T) {
	t.Parallel()
	r := &recommending{fixture: setup(t), events: map[string]string{}}
	at := MonthOf(time.Now()).Start()
	ask := func() string {
		t.Helper()
		report, err := r.Accuracy(t.Context(), at)
		return textOf(t, report, err)
	}
	empty := ask()
	for _, part := range []string{`"churn":{"users":0,"left":0,"base_rate":null,`, `"months":[]`, `"success_rate":null`, `"forecast":{"forecasts":0,"smape_percentage":null,`, `"distances":[]`} {
		if !strings.Contains(empty, part) {
			t.Errorf("%s lacks %s", empty, part)
		}
	}
	r.companies(t)
	if done, _ := r.run(t, at, 1000); done.Recommendations != 0 || done.Forecasts != 0 || done.Companies != 4 {
		t.Errorf("without usage: %+v", done)
	}
	if got := ask(); got != empty {
		t.Errorf("without usage: %s", got)
	}
	r.exec(t, "UPDATE subscriptions SET tier = 'legacy', price_minor = 100 WHERE company_id = 'acme'")
	r.Plant(t, analyticstest.Use{Company: "acme", User: "heavy", Tier: "legacy", From: at.AddDate(0, 0, -2), Calls: 900})
	if done, _ := r.run(t, at, 1000); done.Recommendations != 2 || done.Published != 1 {
		t.Errorf("a tier that has left the catalogue: %+v", done)
	}
}

// A month whose usage may still come in, or waits in the log, is left alone, and nothing is written of a company that is purged.
func TestRecommend_NeitherTooEarlyNorOfThePurged(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.companies(t)
	slot := MonthOf(time.Now()).Start()
	until := slot.Add(RecommendGrace)
	for name, c := range map[string]struct {
		now, stored time.Time
		err         string
		until       time.Time
	}{
		"within the grace":              {until.Add(-time.Nanosecond), until, "not yet: its usage may come in until " + until.Format(time.RFC3339), until},
		"with usage that is not stored": {until, until.Add(-time.Nanosecond), "not yet: usage is stored up to", until.Add(10 * time.Minute)},
	} {
		r := NewRecommender(RecommenderConfig{Analyst: f.Analyst, Now: func(context.Context) (time.Time, error) { return c.now, nil },
			UsageUntil: func(context.Context) (time.Time, error) { return c.stored, nil }})
		_, err := r.Recommend(t.Context(), slot)
		var notYet *NotYetError
		if !errors.As(err, &notYet) || !strings.Contains(err.Error(), c.err) || !notYet.Until.Equal(c.until) {
			t.Errorf("%s: %v", name, err)
		}
	}
	idle := false
	one := postgres.Recommendation{ID: recommendationID(postgres.KindChurn, "gone", "u", 24300), UserID: "u", Kind: postgres.KindChurn, Tier: "free", Idle: &idle, Detail: []byte("{}")}
	for company, want := range map[string]int64{"gone": 0, "acme": 1} {
		if n, _, err := f.Analyst.companies.PutRecommendations(t.Context(), company, "2025-01", []postgres.Recommendation{one}, nil); err != nil || n != want {
			t.Errorf("%s: %d rows, %v, want %d", company, n, err, want)
		}
	}
}
