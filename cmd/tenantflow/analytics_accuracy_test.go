package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/analytics"
)

func TestAnalytics_AccuracyShowsWhatBecameOfScores(t *testing.T) {
	t.Parallel()
	dsn := postgresWith(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x')")
	environ := []string{"TENANTFLOW_POSTGRES_DSN=" + dsn}
	has := func(lines ...string) {
		t.Helper()
		out := looked(t, environ, "analytics", "accuracy")
		for _, line := range lines {
			if !strings.Contains(out, line+"\n") {
				t.Errorf("it lacks %q:\n%s", line, out)
			}
		}
	}
	has("CHURN           SCORE  NO CALL FOR 14 DAYS  BASE RATE", "precision       -      -                    -", "churn scores: no month is over of which users were judged")
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	// Two months ago, so that it is in the report also if a month ends meanwhile: four users, two listed, of whom one has left; one of the others, too.
	month := analytics.MonthOf(time.Now()) - 3
	if _, err := conn.Exec(t.Context(), `INSERT INTO recommendations (recommendation_id, company_id, user_id, kind, month, tier, score, flagged, idle, detail, outcome, scored_at, created_at)
		SELECT gen_random_uuid(), 'acme', 'u-' || n, 'churn', $1, 'free', 100 - 10 * n, n < 3, n = 4, jsonb_build_object('usage_trend', jsonb_build_object('current_month', n - 1)), n IN (1, 4), now(), $2
		FROM generate_series(1, 4) AS n`, month.String(), (month + 1).Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `INSERT INTO forecasts (company_id, made_month, month, currency, value_minor, low_minor, high_minor, naive_minor, steps_minor, history_months, actual_minor, scored_at)
		VALUES ('acme', $1, $2, 'USD', 110, 90, 120, 120, 30, 4, 100, now())`, month.String(), (month + 1).String()); err != nil {
		t.Fatal(err)
	}
	has("flagged         2      1                    4", "precision       0.5    1                    0.5", "AUC             0.5    0.75                 0.5", "Brier           -      -                    -",
		"churn scores: AUC 0.5 is not better than that of no call for 14 days, 0.75",
		"among the 3 with a call in the last month, of whom 1 left: AUC 0 (95 %: 0 to 0.6574), no call for 14 days 1",
		"forecasts: 1; sMAPE 9.5238 % (naive 18.1818 %), MASE 1 (naive 2), within the 80 % interval: 1",
		"forecasts: MASE 1 is better than that of naive, 2")
	if out := compacted(t, looked(t, environ, "analytics", "accuracy", "-o", "json")); !strings.Contains(out, `"churn":{"users":4,"left":2,"base_rate":0.5,"brier_users":0,"late_users":0,"score":{"flagged":2,"precision":0.5,"recall":0.5,"lift_10_percent":2,"auc":0.5,`) {
		t.Error(out)
	}
	if _, errOut, code := tenantflow(t, nil, "analytics", "accuracy"); code != exitInvalid || !strings.Contains(errOut, "TENANTFLOW_POSTGRES_DSN") {
		t.Errorf("without an address: exit code %d, %s", code, errOut)
	}
}
