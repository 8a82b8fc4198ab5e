package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"tenantflow/internal/tier"
	"tenantflow/sinks/dragonfly"
)

func (w *world) Reserve(_ context.Context, r dragonfly.Reservation, anyway bool) (dragonfly.Reserved, bool, error) {
	w.asked.Add(1)
	return w.reserve(r, anyway)
}

func (w *world) Release(_ context.Context, user, id string) error {
	w.asked.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.released = append(w.released, user+" "+id)
	return w.countErr
}

// post makes a request a reservation, of a token that may.
func post(body string) func(*http.Request) {
	return func(r *http.Request) {
		r.Method, r.Body, r.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader(body)), int64(len(body))
		r.Header.Set("Authorization", "Bearer "+gateToken)
	}
}

func del(r *http.Request) {
	r.Method = http.MethodDelete
	r.Header.Set("Authorization", "Bearer "+gateToken)
}

// atNoon is an answer of the store at noon.
func atNoon(decision dragonfly.Decision) dragonfly.Reserved {
	now := at(noon)
	return dragonfly.Reserved{Decision: decision, Day: now.Truncate(24 * time.Hour), Now: now, Expires: now.Add(90 * time.Second), Counted: dragonfly.Counters{APICalls: 990, DataPoints: 7},
		Held: dragonfly.Counters{APICalls: 4, DataPoints: 5}, First: now.Add(1500 * time.Millisecond)}
}

const freeReservations = "/v1/users/u-free/reservations"

func TestReservation_IsAnsweredExactly(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	var asked dragonfly.Reservation
	decision := dragonfly.Granted
	f.world.reserve = func(r dragonfly.Reservation, anyway bool) (dragonfly.Reserved, bool, error) {
		asked = r
		return atNoon(decision), anyway, nil
	}
	const want = `{"reservation_id":"r-1","expires_at":"2026-11-23T12:01:30Z","current_usage":990,"held":4,"daily_limit":1000,"remaining":6,` +
		`"data_points":7,"held_data_points":5,"user_id":"u-free","reset_time":"2026-11-24T00:00:00Z"}` + "\n"
	for _, decision = range []dragonfly.Decision{dragonfly.Granted, dragonfly.Held} {
		a := f.ask(freeReservations, post(`{"reservation_id":"r-1"}`))
		if a.status != http.StatusCreated || a.body != want || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: got %d %v %s", decision, a.status, a.header, a.body)
		}
	}
	if asked != (dragonfly.Reservation{User: "u-free", ID: "r-1", Calls: 1, TTL: 30 * time.Second, CallLimit: 1000, PointsLimit: -1}) {
		t.Errorf("asked for %+v", asked)
	}
	f.ask(freeReservations, post(`{"ttl_seconds": 300, "data_points": 17, "calls": 12, "reservation_id": "r-2"}`))
	if asked != (dragonfly.Reservation{User: "u-free", ID: "r-2", Calls: 12, DataPoints: 17, TTL: 300 * time.Second, CallLimit: 1000, PointsLimit: -1}) {
		t.Errorf("asked for %+v", asked)
	}
	stores := f.world.stores()
	stores.ReserveAnyway = true
	f.Attach(stores)
	if a := f.ask(freeReservations, post(`{"reservation_id":"r-1"}`)); a.json["rebuilding"] != true {
		t.Errorf("granted anyway: %s", a.body)
	}
	if n := testutil.ToFloat64(f.reserved.WithLabelValues(outcomeRepeated)); n != 3 {
		t.Errorf("%v are counted as repeated, want 3", n)
	}
}

func TestReservation_WhatIsNotGrantedSaysWhy(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for name, c := range map[string]struct {
		decision dragonfly.Decision
		err      error
		first    time.Duration
		status   int
		code     any
		retry    string
	}{
		"until the first hold ends": {dragonfly.Exceeded, nil, 1500 * time.Millisecond, 429, "quota_exceeded", "2"},
		"until the day ends":        {dragonfly.Exceeded, nil, 0, 429, "quota_exceeded", "43200"},
		"too many":                  {dragonfly.Crowded, nil, time.Millisecond, 429, "too_many_reservations", "1"},
		"another":                   {dragonfly.HeldOtherway, nil, 0, 409, "reservation_differs", ""},
		"rebuilding":                {"", &dragonfly.RebuildingError{}, 0, 503, "rebuilding", "5"},
		"holds lost":                {"", &dragonfly.RebuildingError{After: 299500 * time.Millisecond}, 0, 503, "rebuilding", "300"},
		"away":                      {"", errors.New("connection refused"), 0, 503, nil, "1"},
	} {
		f.world.reserve = func(dragonfly.Reservation, bool) (dragonfly.Reserved, bool, error) {
			got := atNoon(c.decision)
			if got.First = (time.Time{}); c.first > 0 {
				got.First = got.Now.Add(c.first)
			}
			return got, false, c.err
		}
		a := f.ask(freeReservations, post(`{"reservation_id":"r-1"}`))
		if a.status != c.status || a.json["code"] != c.code || a.header.Get("Retry-After") != c.retry || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got %d, Retry-After %q, %s", name, a.status, a.header.Get("Retry-After"), a.body)
		}
	}
	for user, reason := range map[string]string{"u-suspended": "user_suspended", "u-closed": "subscription_cancelled", "u-none": "no_subscription"} {
		a := f.ask("/v1/users/"+user+"/reservations", post(`{"reservation_id":"r-1"}`))
		if a.status != http.StatusForbidden || a.json["code"] != reason {
			t.Errorf("%s: %d %s", user, a.status, a.body)
		}
	}
}

func TestReservation_UnlimitedNeedsNoHoldAndNoStore(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	const path = "/v1/users/u-enterprise/reservations"
	const want = `{"reservation_id":"r-1","expires_at":"2026-11-23T12:00:30Z","current_usage":812345,"held":0,"daily_limit":"unlimited","remaining":"unlimited",` +
		`"data_points":7,"held_data_points":0,"user_id":"u-enterprise","reset_time":"2026-11-24T00:00:00Z"}` + "\n"
	if a := f.ask(path, post(`{"reservation_id":"r-1"}`)); a.status != http.StatusCreated || a.body != want {
		t.Errorf("%d %s", a.status, a.body)
	}
	f.world.countErr = errors.New("connection refused")
	if a := f.ask(path, post(`{"reservation_id":"r-1"}`)); a.status != http.StatusCreated || a.json["current_usage"] != nil {
		t.Errorf("while the counters are away: %d %s", a.status, a.body)
	}
}

func TestReservation_ABodyThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for body, detail := range map[string]string{
		"": "no JSON object", "null": "no JSON object", `[]`: "no JSON object", `{"reservation_id":"a"`: "no JSON object", `{"reservation_id":"a"} x`: "no JSON object",
		`{}`: "reservation_id", `{"reservation_id":null}`: "reservation_id", `{"reservation_id":1}`: "reservation_id", `{"reservation_id":"a b"}`: "reservation_id",
		`{"reservation_id":"` + strings.Repeat("a", 65) + `"}`: "reservation_id", `{"reservation_id":"."}`: "reservation_id",
		`{"reservation_id":"a","calls":0}`: "calls", `{"reservation_id":"a","calls":"1"}`: "calls", `{"reservation_id":"a","calls":1000000001}`: "calls",
		`{"reservation_id":"a","data_points":-1}`: "data_points", `{"reservation_id":"a","ttl_seconds":0}`: "ttl_seconds from 1 to 300",
		`{"reservation_id":"a","ttl_seconds":301}`: "ttl_seconds", `{"reservation_id":"a","Calls":2}`: "members beside", `{"reservation_id":"a","x":"` + strings.Repeat("x", 4096) + `"}`: "more than 4096 bytes",
	} {
		detail = strings.Replace(detail, "ttl_seconds from", "ttl_seconds is no whole number from", 1)
		if a := f.ask(freeReservations, post(body)); a.status != http.StatusBadRequest || !strings.Contains(a.body, detail) {
			t.Errorf("%.50s: %d %s, want %q", body, a.status, a.body, detail)
		}
	}
	for _, target := range []string{"/v1/users/u%20x/reservations", freeReservations + "?x=1"} {
		if a := f.ask(target, post(`{"reservation_id":"a"}`)); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
	if n := f.world.asked.Load(); n != 0 {
		t.Errorf("the stores were asked %d times", n)
	}
}

func TestReservation_ATokenNeedsTheRight(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	f.world.reserve = func(dragonfly.Reservation, bool) (dragonfly.Reserved, bool, error) {
		return atNoon(dragonfly.Granted), false, nil
	}
	for _, c := range []struct {
		target, token string
		change        func(*http.Request)
		status        int
	}{
		{freeReservations, gateToken, post(`{"reservation_id":"a"}`), 201},
		{freeReservations, everyToken, post(`{"reservation_id":"a"}`), 403},
		{freeReservations + "/a", everyToken, del, 403},
		{freeReservations + "/a", gateToken, del, 204},
		{"/v1/users/u-free/quota", gateToken, func(*http.Request) {}, 403},
		{"/v1/operations", gateToken, func(*http.Request) {}, 403},
		{"/", gateToken, func(*http.Request) {}, 403},
		{"/v1/users/u-pro/quota", acmeGate, func(*http.Request) {}, 200},
		{"/v1/users/u-pro/reservations", acmeGate, post(`{"reservation_id":"a"}`), 201},
	} {
		a := f.ask(c.target, c.change, withToken(c.token))
		if a.status != c.status || a.status == 403 && c.target != "/" && !strings.Contains(a.body, "has no right to") {
			t.Errorf("%s: got %d %s, want %d", c.target, a.status, a.body, c.status)
		}
	}
}

func TestReservation_AScopeHidesWhoIsOutside(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	answers := map[string]bool{}
	for _, user := range []string{"u-free", "u-none"} { // of another company, and of none
		a := f.ask("/v1/users/"+user+"/reservations", post(`{"reservation_id":"a"}`), withToken(acmeGate))
		answers[strings.ReplaceAll(a.body, user, "")] = a.status == http.StatusForbidden
		if a := f.ask("/v1/users/"+user+"/reservations/a", del, withToken(acmeGate)); a.status != http.StatusNoContent || a.body != "" {
			t.Errorf("%s: %d %s", user, a.status, a.body)
		}
	}
	if len(answers) != 1 || len(f.world.released) != 0 {
		t.Errorf("answers %v, released %v", answers, f.world.released)
	}
	f.ask("/v1/users/u-pro/reservations/a", del, withToken(acmeGate))
	f.ask("/v1/users/u-none/reservations/b", del)
	if want := []string{"u-pro a", "u-none b"}; !slices.Equal(f.world.released, want) {
		t.Errorf("released %v, want %v", f.world.released, want)
	}
}

// A page of another site that is open in a browser on this machine must not place holds. With a token it is the caller's word that counts, and gateways
// forward the headers of their own callers.
func TestReservation_APageOfAnotherSiteIsRefused(t *testing.T) {
	t.Parallel()
	local, tokens := setupAPI(t), setupAPI(t)
	for name, f := range map[string]apiFixture{"local": local, "tokens": tokens} {
		f.world.reserve = func(dragonfly.Reservation, bool) (dragonfly.Reserved, bool, error) {
			return atNoon(dragonfly.Granted), false, nil
		}
		want := http.StatusCreated
		if name == "local" {
			f.tokens, want = nil, http.StatusForbidden
		}
		from := func(r *http.Request) { r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost" }
		for header, value := range map[string]string{"Origin": "https://example.org", "Sec-Fetch-Site": "cross-site"} {
			a := f.ask(freeReservations, post(`{"reservation_id":"a"}`), from, withHeader(header, value))
			if a.status != want || want == http.StatusForbidden && !strings.Contains(a.body, "another site") {
				t.Errorf("%s, %s: %d %s, want %d", name, header, a.status, a.body, want)
			}
		}
		if a := f.ask(freeReservations, post(`{"reservation_id":"a"}`), from); a.status != http.StatusCreated {
			t.Errorf("%s, without such a header: %d %s", name, a.status, a.body)
		}
	}
}

// silent counters never answer.
type silent struct {
	*world
	waits time.Duration
}

func (s *silent) Counters(ctx context.Context, _ string, _ time.Time) (dragonfly.Counters, error) {
	ends, _ := ctx.Deadline()
	s.waits = time.Until(ends)
	<-ctx.Done()
	return dragonfly.Counters{}, context.Cause(ctx)
}

func TestReservation_UnlimitedDoesNotWaitForASilentStore(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	s := &silent{world: f.world}
	stores := f.world.stores()
	stores.Quotas = s
	f.Attach(stores)
	a := f.ask("/v1/users/u-enterprise/reservations", post(`{"reservation_id":"r-1"}`))
	if a.status != http.StatusCreated || a.json["current_usage"] != nil || a.json["data_points"] != nil || s.waits > unlimitedWait {
		t.Errorf("waited up to %s: %d %s", s.waits, a.status, a.body)
	}
}

// Data points may have a limit, with calls or without.
func TestReservation_OfDataPoints(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		calls, points tier.Limit
		answer        dragonfly.Reserved
		asked         int64
		want          string // a part
	}{
		"both": {1000, 50, atNoon(dragonfly.Granted), 5, `"daily_limit":1000,"remaining":6,"data_points":7,"held_data_points":5,"daily_data_points":50,"remaining_data_points":38,`},
		"data points alone": {tier.Unlimited, 50, atNoon(dragonfly.Granted), 5,
			`"daily_limit":"unlimited","remaining":"unlimited","data_points":7,"held_data_points":5,"daily_data_points":50,"remaining_data_points":38,`},
		"beyond":               {1000, 10, atNoon(dragonfly.Granted), 0, `"remaining_data_points":0,`},
		"no room for them":     {1000, 50, atNoon(dragonfly.Exceeded), 39, `"of 50 data points a day 7 are counted and 5 held: no room for 39"`},
		"no room for calls":    {994, 50, atNoon(dragonfly.Exceeded), 39, `"of 994 calls a day 990 are counted and 4 held: no room for 1"`},
		"room has become free": {1000, 50, atNoon(dragonfly.Exceeded), 1, `"there was no room; some has become free just now"`},
	} {
		f := setupAPI(t)
		s := *f.world.users["u-free"]
		s.Limits.Set("daily_api_calls", c.calls)
		s.Limits.Set("daily_data_points", c.points)
		f.world.users["u-free"] = &s
		var asked dragonfly.Reservation
		f.world.reserve = func(r dragonfly.Reservation, _ bool) (dragonfly.Reserved, bool, error) {
			asked = r
			return c.answer, false, nil
		}
		a := f.ask(freeReservations, post(fmt.Sprintf(`{"reservation_id":"a","data_points":%d}`, c.asked)))
		if !strings.Contains(a.body, c.want) || asked.CallLimit != int64(c.calls) || asked.PointsLimit != int64(c.points) || asked.DataPoints != c.asked {
			t.Errorf("%s: asked for %+v, got %s", name, asked, a.body)
		}
		if a := f.ask("/v1/users/u-free/quota"); a.json["daily_data_points"] != float64(c.points) {
			t.Errorf("%s: quota %s", name, a.body)
		}
	}
}

// JSON has one kind of number, and JSON Schema takes 60.0 for an integer.
func TestReservation_WholeNumbersAreTakenAsWritten(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	var asked dragonfly.Reservation
	f.world.reserve = func(r dragonfly.Reservation, _ bool) (dragonfly.Reserved, bool, error) {
		asked = r
		return atNoon(dragonfly.Granted), false, nil
	}
	a := f.ask(freeReservations, post(`{"reservation_id":"a","calls":6e1,"data_points":1.0E+11,"ttl_seconds":90.0}`))
	if a.status != http.StatusCreated || asked.Calls != 60 || asked.DataPoints != 100_000_000_000 || asked.TTL != 90*time.Second {
		t.Errorf("%d %s, asked for %+v", a.status, a.body, asked)
	}
	for _, number := range []string{"null", "1.5", "1e99", "1e999", "0.0", "-1", `"1"`, "true"} {
		if a := f.ask(freeReservations, post(`{"reservation_id":"a","calls":`+number+`}`)); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", number, a.status, a.body)
		}
	}
}
