package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v4"

	"tenantflow/internal/health"
)

// await opens a store, and waits for it where it is down: an order in which to start things would be one more way to fail.
// Readiness says meanwhile what a part waits for. It gives nil when ctx ended before there was one.
func await[S any](ctx context.Context, s *service, part, name string, fatal func(error) bool, open func() (*S, error)) (*S, error) {
	delays := openDelays()
	for {
		store, err := open()
		switch {
		case err == nil:
			return store, nil
		case ctx.Err() != nil:
			return nil, nil //nolint:nilerr // asked to stop before there was anything to stop
		case fatal(err):
			return nil, err
		}
		s.health.Set(part, health.Failing, err.Error())
		s.log.Warn("a store does not answer; trying again", slog.String("store", name), slog.Any("error", err))
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(delays.NextBackOff()):
		}
	}
}

// openDelays is how long to wait between two tries of a store that is down.
func openDelays() backoff.BackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(0),
	)
}
