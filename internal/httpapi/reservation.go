package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/events"
	"tenantflow/internal/tier"
	"tenantflow/internal/token"
	"tenantflow/sinks/dragonfly"
)

// Reservations holds parts of users' quotas for work that is about to begin. *dragonfly.Store implements it.
type Reservations interface {
	// Reserve decides whether a part fits, and holds it, in one step. A *dragonfly.RebuildingError says that nothing can be decided now.
	Reserve(ctx context.Context, r dragonfly.Reservation, anyway bool) (answer dragonfly.Reserved, rebuilding bool, err error)
	// Release ends a hold. One that is gone is as well.
	Release(ctx context.Context, user, id string) error
}

const (
	reservationsPath = "/v1/users/{user_id}/reservations"
	// maxReservationBytes bounds the body. The longest sensible one has a tenth of it.
	maxReservationBytes = 4096
	defaultTTL          = 30 * time.Second
	// rebuildRetry is what a reservation is advised while the counters are being rebuilt, and no end is known.
	rebuildRetry = 5 * time.Second
	// unlimitedWait is how long the answer for a user without a limit waits for the counts that it shows.
	unlimitedWait = 200 * time.Millisecond
)

// The codes of reservations that are not granted, beside the reasons of Refusal.
const (
	quotaExceeded     = "quota_exceeded"
	tooManyHolds      = "too_many_reservations"
	otherReservation  = "reservation_differs"
	countersRebuilt   = "rebuilding"
	reservationFormat = "reservation_id is not 1 to 64 letters, digits, '_' or '-' of ASCII"
)

// What became of reservations, in the metric.
const (
	outcomeGranted   = "granted"
	outcomeRepeated  = "repeated"  // held already by the same id
	outcomeUnlimited = "unlimited" // granted without a hold
	outcomeExceeded  = "exceeded"
	outcomeCrowded   = "crowded"
	outcomeDiffers   = "differs"
	outcomeRefused   = "refused" // the user may not use the service
	outcomeRebuild   = "rebuilding"
)

func newReservationMetric() *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tenantflow_reservations_total",
		Help: "Reservations that were asked for, by what became of them: granted, repeated (held already), unlimited (granted without a hold), " +
			"exceeded, crowded (too many holds), differs (held with other amounts), refused (the user may not use the service), rebuilding.",
	}, []string{"outcome"})
	for _, outcome := range []string{outcomeGranted, outcomeRepeated, outcomeUnlimited, outcomeExceeded, outcomeCrowded, outcomeDiffers, outcomeRefused, outcomeRebuild} {
		v.WithLabelValues(outcome)
	}
	return v
}

// changing answers requests that change something: of tokens that may. Where there is no tokens file, being on this machine is the authority, which
// a browser lends to every page that is open in it: then other sites' pages are refused. With a token there is none to lend, and gateways forward Origin.
func (a *API) changing(answer func(http.ResponseWriter, *http.Request, *token.Grant)) http.HandlerFunc {
	check := http.NewCrossOriginProtection()
	return a.admit(token.Reserve, func(w http.ResponseWriter, r *http.Request, grant *token.Grant) {
		if err := check.Check(r); a.tokens == nil && err != nil {
			WriteProblem(w, r, Problem{Status: http.StatusForbidden, Detail: "the request was sent by a page of another site"})
			return
		}
		answer(w, r, grant)
	})
}

// reserveRoute answers POST /v1/users/{user_id}/reservations.
func (a *API) reserveRoute() http.HandlerFunc {
	return a.changing(func(w http.ResponseWriter, r *http.Request, grant *token.Grant) {
		user := r.PathValue("user_id")
		asked, problem := readReservation(r.Body)
		if _, unknown := readQuery(r.URL.RawQuery, nil); unknown != "" {
			problem = unknown
		}
		if !events.ValidID(user) {
			problem = wrongID("user_id")
		}
		if problem != "" {
			WriteProblem(w, r, Problem{Status: http.StatusBadRequest, Detail: problem})
			return
		}
		asked.User = user
		a.answer(w, r, request{id: user, grant: grant}, func(ctx context.Context, w http.ResponseWriter, r *http.Request, q request) error {
			return a.reserve(ctx, w, r, q, asked)
		})
	})
}

// releaseRoute answers DELETE /v1/users/{user_id}/reservations/{reservation_id}.
func (a *API) releaseRoute() http.HandlerFunc {
	return a.changing(func(w http.ResponseWriter, r *http.Request, grant *token.Grant) {
		user, id := r.PathValue("user_id"), r.PathValue("reservation_id")
		_, problem := readQuery(r.URL.RawQuery, nil)
		problem = cmp.Or(problem, wrongWith(r, "user_id", user))
		if problem == "" && !events.ValidReservationID(id) {
			problem = reservationFormat
		}
		if problem != "" {
			WriteProblem(w, r, Problem{Status: http.StatusBadRequest, Detail: problem})
			return
		}
		a.answer(w, r, request{id: user, grant: grant}, func(ctx context.Context, w http.ResponseWriter, _ *http.Request, q request) error {
			return release(ctx, w, q, id)
		})
	})
}

// readReservation reads the body of a request, or says what is wrong with it. What is in it is not repeated in the answer.
func readReservation(body io.Reader) (asked dragonfly.Reservation, problem string) {
	text, err := io.ReadAll(io.LimitReader(body, maxReservationBytes+1))
	switch {
	case err != nil:
		return asked, "the body could not be read"
	case len(text) > maxReservationBytes:
		return asked, fmt.Sprintf("the body has more than %d bytes", maxReservationBytes)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil || members == nil {
		return asked, "the body is no JSON object"
	}
	asked.Calls = 1
	ttl := int64(defaultTTL / time.Second)
	unknown := 0
	for name, value := range members {
		switch name {
		case "reservation_id":
			if json.Unmarshal(value, &asked.ID) != nil {
				return asked, reservationFormat
			}
		case "calls":
			problem = cmp.Or(problem, integer(name, value, &asked.Calls, 1, dragonfly.MostCalls))
		case "data_points":
			problem = cmp.Or(problem, integer(name, value, &asked.DataPoints, 0, dragonfly.MostPoints))
		case "ttl_seconds":
			problem = cmp.Or(problem, integer(name, value, &ttl, 1, int64(dragonfly.LongestHold/time.Second)))
		default:
			unknown++
		}
	}
	asked.TTL = time.Duration(ttl) * time.Second
	switch {
	case problem != "":
	case unknown > 0:
		problem = "there are members beside reservation_id, calls, data_points and ttl_seconds"
	case !events.ValidReservationID(asked.ID):
		problem = reservationFormat
	}
	return asked, problem
}

// integer reads a member that is a whole number within bounds, however it is written: 60, 60.0 and 6e1 are one. All bounds are far below 2^53.
func integer(name string, value json.RawMessage, to *int64, least, most int64) (problem string) {
	var n *float64 // nil: null
	if json.Unmarshal(value, &n) != nil || n == nil || *n != math.Trunc(*n) || *n < float64(least) || *n > float64(most) {
		return fmt.Sprintf("%s is no whole number from %d to %d", name, least, most)
	}
	*to = int64(*n)
	return ""
}

// reserve holds a part of a user's day.
func (a *API) reserve(ctx context.Context, w http.ResponseWriter, r *http.Request, q request, asked dragonfly.Reservation) error {
	s, err := user(ctx, q)
	if err != nil {
		return err
	}
	if reason := Refusal(s); reason != "" {
		a.reserved.WithLabelValues(outcomeRefused).Inc()
		WriteProblem(w, r, Problem{Status: http.StatusForbidden, Code: reason, Detail: "the user may not use the service"})
		return nil
	}
	limit, points := s.Limits.DailyAPICalls, s.Limits.DataPoints()
	if limit == tier.Unlimited && points == tier.Unlimited {
		a.reserveUnlimited(ctx, w, q, asked)
		return nil
	}
	asked.CallLimit, asked.PointsLimit = int64(limit), int64(points) // both say unlimited by -1
	got, rebuilding, err := q.from.Reservations.Reserve(ctx, asked, q.from.ReserveAnyway)
	var unsure *dragonfly.RebuildingError
	switch {
	case errors.As(err, &unsure):
		a.reserved.WithLabelValues(outcomeRebuild).Inc()
		retryIn(w, cmp.Or(unsure.After, rebuildRetry))
		WriteProblem(w, r, Problem{Status: http.StatusServiceUnavailable, Code: countersRebuilt, Detail: "nothing can be reserved yet: " + unsure.Error()})
		return nil
	case err != nil:
		return err
	}
	reset := got.Day.AddDate(0, 0, 1)
	switch got.Decision {
	case dragonfly.Granted, dragonfly.Held:
		outcome := outcomeGranted
		if got.Decision == dragonfly.Held {
			outcome = outcomeRepeated
		}
		a.reserved.WithLabelValues(outcome).Inc()
		o := newObject()
		o.text("reservation_id", asked.ID)
		o.time("expires_at", got.Expires)
		o.integer("current_usage", got.Counted.APICalls)
		o.integer("held", got.Held.APICalls)
		o.limit("daily_limit", limit)
		o.limit("remaining", left(limit, got.Counted.APICalls, got.Held.APICalls))
		o.integer("data_points", got.Counted.DataPoints)
		o.integer("held_data_points", got.Held.DataPoints)
		if points != tier.Unlimited {
			o.limit("daily_data_points", points)
			o.limit("remaining_data_points", left(points, got.Counted.DataPoints, got.Held.DataPoints))
		}
		o.text("user_id", s.UserID)
		o.time("reset_time", reset)
		if rebuilding {
			o.boolean("rebuilding", true)
		}
		o.created(w)
	case dragonfly.HeldOtherway:
		a.reserved.WithLabelValues(outcomeDiffers).Inc()
		WriteProblem(w, r, Problem{Status: http.StatusConflict, Code: otherReservation,
			Detail: "a reservation with this id is held, with other calls or data points, until " + got.Expires.Format(time.RFC3339Nano)})
	case dragonfly.Crowded:
		a.reserved.WithLabelValues(outcomeCrowded).Inc()
		retryAt(w, got, reset)
		WriteProblem(w, r, Problem{Status: http.StatusTooManyRequests, Code: tooManyHolds,
			Detail: fmt.Sprintf("the user has %d reservations, and may not have more", dragonfly.MostHolds)})
	default:
		a.reserved.WithLabelValues(outcomeExceeded).Inc()
		retryAt(w, got, reset)
		WriteProblem(w, r, Problem{Status: http.StatusTooManyRequests, Code: quotaExceeded,
			Detail: cmp.Or(noRoom("calls", limit, got.Counted.APICalls, got.Held.APICalls, asked.Calls),
				noRoom("data points", points, got.Counted.DataPoints, got.Held.DataPoints, asked.DataPoints),
				"there was no room; some has become free just now")})
	}
	return nil
}

// left is what a limit leaves, of which some is counted and some held.
func left(limit tier.Limit, counted, held int64) tier.Limit {
	if limit == tier.Unlimited {
		return limit
	}
	return max(0, limit-tier.Limit(counted)-tier.Limit(held))
}

// noRoom says by how much a limit is too low for what is asked for; "": it is not.
func noRoom(what string, limit tier.Limit, counted, held, asked int64) string {
	if limit == tier.Unlimited || counted+held+asked <= int64(limit) {
		return ""
	}
	return fmt.Sprintf("of %d %s a day %d are counted and %d held: no room for %d", int64(limit), what, counted, held, asked)
}

// reserveUnlimited grants without a hold. The answer does not depend on the store of the counters, and does not wait for one that is silent: callers
// wait for half a second.
func (a *API) reserveUnlimited(ctx context.Context, w http.ResponseWriter, q request, asked dragonfly.Reservation) {
	a.reserved.WithLabelValues(outcomeUnlimited).Inc()
	now := a.now().UTC()
	today := now.Truncate(24 * time.Hour)
	ctx, cancel := context.WithTimeout(ctx, unlimitedWait)
	defer cancel()
	counters, rebuilding, err := q.from.counters(ctx, q.id, today)
	o := newObject()
	o.text("reservation_id", asked.ID)
	o.time("expires_at", now.Add(asked.TTL))
	if err == nil {
		o.integer("current_usage", counters.APICalls)
	}
	o.integer("held", 0)
	o.text("daily_limit", tier.Unlimited.String())
	o.text("remaining", tier.Unlimited.String())
	if err == nil {
		o.integer("data_points", counters.DataPoints)
	}
	o.integer("held_data_points", 0)
	o.text("user_id", q.id)
	o.time("reset_time", today.AddDate(0, 0, 1))
	if rebuilding {
		o.boolean("rebuilding", true)
	}
	o.created(w)
}

// release ends a hold. Of a user outside the token's scope there is none.
func release(ctx context.Context, w http.ResponseWriter, q request, id string) error {
	if !q.grant.Everything() {
		if s, err := user(ctx, q); err != nil {
			return err
		} else if s == nil {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
	}
	if err := q.from.Reservations.Release(ctx, q.id, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// retryAt advises to come back when the day ends, or the first hold does, whichever comes first.
func retryAt(w http.ResponseWriter, got dragonfly.Reserved, reset time.Time) {
	at := reset
	if !got.First.IsZero() && got.First.Before(at) {
		at = got.First
	}
	retryIn(w, at.Sub(got.Now))
}

// retryIn advises to come back after a time, rounded up to seconds.
func retryIn(w http.ResponseWriter, d time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))))
}
