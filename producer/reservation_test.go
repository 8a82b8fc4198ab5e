package producer_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/directory"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/httpapi"
	"tenantflow/internal/tier"
	"tenantflow/producer"
	"tenantflow/sinks/dragonfly"
)

// subscribed says who the users are.
type subscribed map[string]*directory.Subscription

func (s subscribed) User(_ context.Context, id string) (*directory.Subscription, error) {
	if found := s[id]; found != nil {
		return found, nil
	}
	return nil, directory.ErrUnknown
}

func (s subscribed) UserIn(ctx context.Context, id string, _ directory.Scope) (*directory.Subscription, error) {
	return s.User(ctx, id)
}

// serveReservations is the service's own API, over a store in which everything is counted.
func serveReservations(t *testing.T) *producer.Reservations {
	t.Helper()
	store, err := dragonfly.Open(t.Context(), dragonfly.Config{Options: enginetest.RedisOptions(t, enginetest.Counters(t).URL()), Topic: "usage.events"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	session := store.Session("usage.events", 0)
	t.Cleanup(session.Close)
	doubted, err := session.Look(t.Context())
	if err == nil {
		err = session.Begin(t.Context(), doubted, 0, dragonfly.Epoch{Partitions: 1})
	}
	if err != nil {
		t.Fatal(err)
	}
	begun, err := session.Look(t.Context())
	if err == nil {
		err = session.Note(t.Context(), dragonfly.Progress{Epoch: begun.Epoch.Number})
	}
	if err != nil {
		t.Fatal(err)
	}
	user := func(id string, limit tier.Limit) *directory.Subscription {
		return &directory.Subscription{UserID: id, CompanyID: "acme", Tier: "pro", Status: "active", BillingStatus: "active", Limits: tier.Limits{DailyAPICalls: limit}}
	}
	points := user("points", tier.Unlimited)
	points.Limits.Set("daily_data_points", 100)
	users := subscribed{"u": user("u", 10), "all": user("all", tier.Unlimited), "points": points}
	log := slog.New(slog.DiscardHandler)
	api := httpapi.NewAPI(nil, log)
	api.Attach(httpapi.Stores{Subscriptions: users, Quotas: store, Reservations: store})
	served := httptest.NewServer(httpapi.Handler(httpapi.Options{Health: health.New(time.Minute, log), Metrics: prometheus.NewRegistry(), Log: log, API: api}))
	t.Cleanup(served.Close)
	return &producer.Reservations{URL: served.URL + "/", Client: served.Client(), Timeout: enginetest.Patience}
}

func TestReservations_HoldUpToTheLimit(t *testing.T) {
	t.Parallel()
	r := serveReservations(t)
	hold := func(id string, calls int64) (producer.Hold, error) {
		return r.Reserve(t.Context(), producer.Reservation{UserID: "u", ID: id, Calls: calls, TTL: 90*time.Second + 1})
	}
	for range 2 { // the second time as after a lost answer
		got, err := hold("a", 8)
		if err != nil || got.ID != "a" || got.Held != 8 || got.DailyLimit != 10 || got.Remaining != 2 || time.Until(got.ExpiresAt) > 91*time.Second || time.Until(got.ExpiresAt) < 30*time.Second {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	var refused *producer.RefusedError
	if _, err := hold("b", 3); !errors.As(err, &refused) || refused.Status != http.StatusTooManyRequests || refused.Code != "quota_exceeded" || refused.RetryAfter <= 0 || refused.Detail == "" {
		t.Errorf("beyond the limit: %v", err)
	}
	if _, err := hold("a", 7); !errors.As(err, &refused) || refused.Code != "reservation_differs" {
		t.Errorf("with other calls: %v", err)
	}
	for range 2 {
		if err := r.Release(t.Context(), "u", "a"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := hold("b", 3); err != nil || got.Held != 3 {
		t.Errorf("after the release: %+v, %v", got, err)
	}
	if got, err := r.Reserve(t.Context(), producer.Reservation{UserID: "all", ID: "c", DataPoints: 5}); err != nil || got.DailyLimit != -1 || got.Remaining != -1 || got.Held != 0 ||
		got.DataPointLimit != -1 || got.RemainingDataPoints != -1 || got.HeldDataPoints != 0 {
		t.Errorf("without a limit: %+v, %v", got, err)
	}
	if got, err := r.Reserve(t.Context(), producer.Reservation{UserID: "points", ID: "c", DataPoints: 60}); err != nil || got.DailyLimit != -1 || got.HeldDataPoints != 60 ||
		got.DataPointLimit != 100 || got.RemainingDataPoints != 40 || got.DataPoints != 0 {
		t.Errorf("with a limit on data points alone: %+v, %v", got, err)
	}
	if _, err := r.Reserve(t.Context(), producer.Reservation{UserID: "points", ID: "e", DataPoints: 60}); !errors.As(err, &refused) || refused.Code != "quota_exceeded" {
		t.Errorf("beyond that limit: %v", err)
	}
	if _, err := r.Reserve(t.Context(), producer.Reservation{UserID: "none", ID: "d"}); !errors.As(err, &refused) || refused.Code != "no_subscription" {
		t.Errorf("an unknown user: %v", err)
	}
	if _, err := r.Reserve(t.Context(), producer.Reservation{UserID: "u", ID: "d e"}); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
		t.Errorf("an id that is none: %v", err)
	}
}

func TestReservations_NoAnswerIsAnError(t *testing.T) {
	t.Parallel()
	r := &producer.Reservations{URL: "http://" + enginetest.ClosedAddress(t)}
	var refused *producer.RefusedError
	if _, err := r.Reserve(t.Context(), producer.Reservation{UserID: "u", ID: "a"}); err == nil || errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
	if err := r.Release(t.Context(), "u", "a"); err == nil {
		t.Error("released")
	}
}

// A caller that serves whenever it has no answer must not serve users who were refused.
func TestRefusedError_SaysWhetherItWasDecided(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		want   bool
	}{
		{400, `{"detail":"calls is no whole number"}`, true},
		{401, `{}`, true},
		{403, `{"code":"user_suspended"}`, true},
		{403, `{"detail":"the token has no right to reserve"}`, true},
		{404, `<html>not here</html>`, true},
		{409, `{"code":"reservation_differs"}`, true},
		{429, `{"code":"quota_exceeded"}`, true},
		{429, `{"code":"too_many_reservations"}`, true},
		{429, `{"detail":"too many requests are under way"}`, false},
		{408, `<html>timeout</html>`, false},
		{502, `<html>bad gateway</html>`, false},
		{503, `{"code":"rebuilding"}`, false},
		{503, `{"detail":"a store does not answer"}`, false},
	} {
		served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		}))
		r := producer.Reservations{URL: served.URL, Client: served.Client(), Timeout: enginetest.Patience}
		_, err := r.Reserve(t.Context(), producer.Reservation{UserID: "u", ID: "a"})
		var refused *producer.RefusedError
		if !errors.As(err, &refused) || refused.Refused() != c.want {
			t.Errorf("%d %s: got %v, want refused %t", c.status, c.body, err, c.want)
		}
		served.Close()
	}
}
