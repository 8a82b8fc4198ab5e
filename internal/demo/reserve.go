package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"tenantflow/producer"
)

// A reserving is what became of two reservations for a user near the limit: one of all that is left, and one of a call more.
type reserving struct {
	user    string // empty: there was none to ask for
	left    int64
	held    producer.Hold
	refused producer.RefusedError
}

// reserveOnce reserves once it is noted that all is counted: a second, at most, after the last event. Until then counters may be short, and nothing is granted.
func reserveOnce(ctx context.Context, service producer.Reservations, ask producer.Reservation) (producer.Hold, error) {
	const patience, pause = 30 * time.Second, 100 * time.Millisecond
	again := time.NewTicker(pause)
	defer again.Stop()
	for began := time.Now(); ; {
		held, err := service.Reserve(ctx, ask)
		var refused *producer.RefusedError
		if !errors.As(err, &refused) || refused.Code != "rebuilding" || time.Since(began) > patience {
			return held, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return held, context.Cause(ctx)
		}
	}
}

// reserveTheRest holds what is left of the quota of the user near the limit, and asks for one call more.
func (d *demo) reserveTheRest(ctx context.Context) error {
	got := &d.result.counted
	near := got.near
	left := near.Limit - near.Usage
	if near.path == "" || left <= 0 {
		return nil
	}
	address, err := d.service.address()
	if err != nil {
		return err
	}
	service := producer.Reservations{URL: "http://" + address, Timeout: replyTimeout}
	r := reserving{user: d.quotas.near, left: left}
	if r.held, err = reserveOnce(ctx, service, producer.Reservation{UserID: r.user, ID: "demo-rest", Calls: left}); err != nil {
		return err
	}
	_, err = service.Reserve(ctx, producer.Reservation{UserID: r.user, ID: "demo-more"})
	var refused *producer.RefusedError
	switch {
	case errors.As(err, &refused):
		r.refused = *refused
	case err != nil:
		return err
	}
	if r.held.Remaining != 0 || r.held.Held != left || r.refused.Status != http.StatusTooManyRequests || r.refused.Code != "quota_exceeded" {
		got.wrong = append(got.wrong, fmt.Sprintf("reservations of %s with %d calls left: %+v, and one more: %v", r.user, left, r.held, err))
	}
	got.reserving = r
	return service.Release(ctx, r.user, "demo-rest")
}
