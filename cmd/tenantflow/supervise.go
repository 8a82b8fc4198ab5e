package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/health"
)

// steady is how long a part has to run for its next failure to count as a first one.
const steady = time.Minute

// supervise runs a part until ctx ends, again after each failure: what one store refuses must not end the parts that don't use it, and
// a person who sets it right should not have to restart anything. Only a configuration that can't be right ends the part, and so
// the process.
func (s *service) supervise(ctx context.Context, p part) error {
	delays := backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Second), backoff.WithMaxInterval(10*time.Second), backoff.WithMaxElapsedTime(0))
	for {
		began := time.Now()
		metrics := &scope{Registerer: s.registry}
		err := p.run(ctx, s, metrics)
		metrics.unregister()
		var wrong invalidError
		switch {
		case ctx.Err() != nil:
			return err
		case err == nil:
			return errors.New("it ended by itself")
		case errors.As(err, &wrong):
			return err
		}
		if time.Since(began) > steady {
			delays.Reset()
		}
		wait := delays.NextBackOff().Round(100 * time.Millisecond)
		s.health.Set(p.name, health.Failing, fmt.Sprintf("%v (trying again)", err))
		s.log.Error("a part failed; it is started again, and the others go on", slog.String("part", p.name), slog.Any("error", err), slog.Duration("again_in", wait))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// A scope holds the metrics of one run of a part, so that the next run can register its own.
type scope struct {
	prometheus.Registerer

	mu  sync.Mutex
	all []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (s *scope) Register(c prometheus.Collector) error {
	if err := s.Registerer.Register(c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, c)
	return nil
}

// MustRegister implements prometheus.Registerer. It panics where a name is taken.
func (s *scope) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := s.Register(c); err != nil {
			panic(err)
		}
	}
}

func (s *scope) unregister() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all {
		s.Unregister(c)
	}
	s.all = nil
}
