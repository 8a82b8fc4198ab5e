package postgres_test

import (
	"errors"
	"testing"
	"time"

	"tenantflow/sinks/postgres"
)

func TestTouchMovesOnlyWhatIsAnHourOlder(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u1', 'acme'), ('u2', 'acme')")
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	touch := func(want int64, seen ...postgres.Activity) {
		t.Helper()
		if moved, err := w.store.Touch(t.Context(), seen); err != nil || moved != want {
			t.Errorf("%d users were moved on, want %d: %v", moved, want, err)
		}
	}
	touch(0)
	touch(1, postgres.Activity{CompanyID: "acme", UserID: "u1", At: at}, postgres.Activity{CompanyID: "acme", UserID: "nobody", At: at})
	touch(1, postgres.Activity{CompanyID: "acme", UserID: "u1", At: at.Add(59 * time.Minute)}, postgres.Activity{CompanyID: "acme", UserID: "u2", At: at})
	touch(1, postgres.Activity{CompanyID: "other", UserID: "u1", At: at.Add(9 * time.Hour)}, postgres.Activity{CompanyID: "acme", UserID: "u1", At: at.Add(time.Hour)})
	users, err := w.store.Users(t.Context(), []string{"u1"})
	if err != nil || len(users) != 1 || !users[0].LastActivity.Equal(at.Add(time.Hour)) {
		t.Errorf("found %+v, %v", users, err)
	}
	w.store.Close()
	if _, err := w.store.Touch(t.Context(), []postgres.Activity{{CompanyID: "acme", UserID: "u1", At: at}}); err == nil || postgres.Classify(err) != postgres.Transient || errors.Unwrap(err) == nil {
		t.Errorf("without a connection: %v", err)
	}
}
