package producer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Reservations asks the service to hold a part of a user's quota before the work is done, over its HTTP API:
//
//	_, err := reservations.Reserve(ctx, producer.Reservation{UserID: "u-1", ID: id, TTL: 3 * time.Minute})
//	if refused := (*producer.RefusedError)(nil); errors.As(err, &refused) && refused.Refused() {
//		return err                                   // don't serve; any other error is no answer
//	}
//	...                                                  // do the work
//	p.Enqueue(ctx, producer.Event{..., ReservationID: id})  // counts it, and ends the hold in the same step
//	reservations.Release(ctx, "u-1", id)                 // instead, if nothing was used
//
// Its methods may be called from several goroutines. The zero Client, Timeout and Token have defaults.
type Reservations struct {
	// URL is where the service answers /v1, such as http://127.0.0.1:8080.
	URL string
	// Token has the right to reserve. Empty: none is sent, which the service takes from its own machine where it has no tokens file.
	Token string
	// Client sends the requests. Default: http.DefaultClient.
	Client *http.Client
	// Timeout bounds one request. Default: 500 ms: the caller is serving a request as well.
	Timeout time.Duration
}

// A Reservation is what to hold. Making the same one again, after a timeout for example, holds nothing twice.
type Reservation struct {
	UserID string
	// ID is the caller's, [A-Za-z0-9_-]{1,64}: a new one for each piece of work, such as the id of its usage event.
	ID string
	// Calls is how many usage events the work will make. Default: 1.
	Calls int64
	// DataPoints of those events. Default: 0.
	DataPoints int64
	// TTL is how long they are held, in whole seconds up to 300: longer than the work takes, and until its event is counted, which may be a minute
	// later where a process that counts is killed: two to five minutes are sensible. Default: 30 s.
	TTL time.Duration
}

// A Hold is what the service answers.
type Hold struct {
	ID           string
	ExpiresAt    time.Time
	CurrentUsage int64 // calls counted today
	Held         int64 // calls held, this hold's included
	DailyLimit   int64 // -1: unlimited
	Remaining    int64 // calls that are neither counted nor held; -1: unlimited

	DataPoints          int64 // counted today
	HeldDataPoints      int64 // held, this hold's included
	DataPointLimit      int64 // -1: unlimited, as for most tiers. Where calls are unlimited as well nothing is held
	RemainingDataPoints int64 // -1: unlimited
}

// A RefusedError is an answer of the service that grants nothing.
type RefusedError struct {
	Status int
	// Code says what was refused: quota_exceeded, no_subscription, user_suspended, reservation_differs, rebuilding and so on; empty with most
	// statuses.
	Code   string
	Detail string // words for a person
	// RetryAfter is how long to wait at least before the next attempt; 0: the service did not say.
	RetryAfter time.Duration
}

func (e *RefusedError) Error() string {
	return strings.Join(strings.Fields(fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Detail)), " ")
}

// Refused reports whether the service has decided, or something is wrong with the request: the work must not be done. If not, it could not decide: the
// counters are being rebuilt, a store is away, or too many requests are under way. That is no answer, like any error that is no *RefusedError.
func (e *RefusedError) Refused() bool {
	switch {
	case e.Status == http.StatusTooManyRequests:
		return e.Code != ""
	case e.Status == http.StatusRequestTimeout: // of a proxy
		return false
	}
	return e.Status >= 400 && e.Status < 500
}

// Reserve holds a part of a user's quota. A *RefusedError that is Refused says that the work must not be done; any other error is the caller's own to
// decide on: docs/data-bridge.md, "When there is no answer". Don't make a Reservation again once its work was done: its hold may have ended with the
// event, and would be another one.
func (r *Reservations) Reserve(ctx context.Context, ask Reservation) (Hold, error) {
	body := map[string]any{"reservation_id": ask.ID}
	if ask.Calls != 0 {
		body["calls"] = ask.Calls
	}
	if ask.DataPoints != 0 {
		body["data_points"] = ask.DataPoints
	}
	if ask.TTL != 0 {
		body["ttl_seconds"] = int64((ask.TTL + time.Second - 1) / time.Second)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return Hold{}, fmt.Errorf("reserve for user %s: %w", ask.UserID, err)
	}
	answer, err := r.ask(ctx, http.MethodPost, "/v1/users/"+url.PathEscape(ask.UserID)+"/reservations", text)
	if err != nil {
		return Hold{}, fmt.Errorf("reserve for user %s: %w", ask.UserID, err)
	}
	var held struct {
		ID           string          `json:"reservation_id"`
		ExpiresAt    time.Time       `json:"expires_at"`
		CurrentUsage int64           `json:"current_usage"`
		Held         int64           `json:"held"`
		DailyLimit   json.RawMessage `json:"daily_limit"`
		Remaining    json.RawMessage `json:"remaining"`

		DataPoints          int64  `json:"data_points"`
		HeldDataPoints      int64  `json:"held_data_points"`
		DataPointLimit      *int64 `json:"daily_data_points"`
		RemainingDataPoints *int64 `json:"remaining_data_points"`
	}
	err = json.Unmarshal(answer, &held)
	limit, notLimit := limitOf(held.DailyLimit)
	remaining, notRemaining := limitOf(held.Remaining)
	if err = errors.Join(err, notLimit, notRemaining); err != nil {
		return Hold{}, fmt.Errorf("reserve for user %s: read the answer: %w", ask.UserID, err)
	}
	return Hold{
		ID: held.ID, ExpiresAt: held.ExpiresAt, CurrentUsage: held.CurrentUsage, Held: held.Held, DailyLimit: limit, Remaining: remaining,
		DataPoints: held.DataPoints, HeldDataPoints: held.HeldDataPoints,
		DataPointLimit: orUnlimited(held.DataPointLimit), RemainingDataPoints: orUnlimited(held.RemainingDataPoints),
	}, nil
}

// Release ends a hold whose work was not done. It is no error if the hold is gone. What is not released ends by itself.
func (r *Reservations) Release(ctx context.Context, userID, id string) error {
	_, err := r.ask(ctx, http.MethodDelete, "/v1/users/"+url.PathEscape(userID)+"/reservations/"+url.PathEscape(id), nil)
	if err != nil {
		return fmt.Errorf("release reservation %s of user %s: %w", id, userID, err)
	}
	return nil
}

// orUnlimited is a limit that need not be there.
func orUnlimited(n *int64) int64 {
	if n == nil {
		return -1
	}
	return *n
}

// limitOf reads a number or "unlimited".
func limitOf(text json.RawMessage) (int64, error) {
	if string(text) == `"unlimited"` {
		return -1, nil
	}
	var n int64
	err := json.Unmarshal(text, &n)
	return n, err
}

// ask sends a request, and returns the body of an answer that grants it.
func (r *Reservations) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	timeout, client := r.Timeout, r.Client
	if timeout <= 0 {
		timeout = 500 * time.Millisecond
	}
	if client == nil {
		client = http.DefaultClient
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(r.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if r.Token != "" {
		request.Header.Set("Authorization", "Bearer "+r.Token)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	const most = 64 << 10
	answer, err := io.ReadAll(io.LimitReader(response.Body, most))
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusCreated || response.StatusCode == http.StatusNoContent {
		return answer, nil
	}
	refused := &RefusedError{Status: response.StatusCode}
	var problem struct{ Code, Detail string }
	if json.Unmarshal(answer, &problem) == nil { // a proxy in front may have answered something else
		refused.Code, refused.Detail = problem.Code, problem.Detail
	}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
		refused.RetryAfter = time.Duration(seconds) * time.Second
	}
	return nil, refused
}
