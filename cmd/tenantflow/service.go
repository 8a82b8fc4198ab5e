package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/consumers"
	"tenantflow/internal/config"
	"tenantflow/internal/health"
	"tenantflow/internal/httpapi"
	"tenantflow/internal/telemetry"
	"tenantflow/internal/token"
)

// A part is one thing that `run` runs, by the name that --only takes.
type part struct {
	name   string
	stores []config.Store // whose addresses it needs

	// run works until ctx ends, then finishes what is under way and returns nil. After an error it is run again, see supervise. Its
	// metrics are gone when it returns. nil: the part is not there yet.
	run func(ctx context.Context, s *service, metrics prometheus.Registerer) error
}

// A service is the running process: its HTTP interface and its parts, and what the parts share.
type service struct {
	cfg      *config.Config
	log      *slog.Logger
	registry *prometheus.Registry
	health   *health.Tracker
	parts    []part
	api      *httpapi.API
	tenants  tenants

	tenantMetricsOnce   sync.Once
	sharedTenantMetrics *consumers.TenantMetrics
}

func newService(cfg *config.Config, log *slog.Logger, parts []part) (*service, error) {
	s := &service{cfg: cfg, log: log, registry: telemetry.NewRegistry(build()), parts: parts}
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = p.name
	}
	limitMemory(cfg, names, log)
	s.health = health.New(cfg.StallTimeout, log, names...)
	s.registry.MustRegister(s.health.Collector())
	if slices.Contains(names, "api") {
		var tokens *token.File
		if cfg.APITokensFile != "" {
			var err error
			if tokens, err = token.Open(cfg.APITokensFile, log); err != nil {
				return nil, invalid("TENANTFLOW_API_TOKENS_FILE: %v", err)
			}
		}
		s.api = httpapi.NewAPI(tokens, log)
	}
	return s, nil
}

// run runs until ctx ends or a part can't go on, and then stops in this order: not ready; the parts, which finish
// their batches, commit, leave their groups and close their stores; HTTP last, so that a probe can
// follow the stop until then. A stop that takes longer than the shutdown timeout is an error, and whatever is still
// under way ends with the process.
func (s *service) run(ctx context.Context) error {
	server := httpapi.New(httpapi.Options{Addr: s.cfg.HTTPAddr, Health: s.health, Metrics: s.registry, Build: build(), Log: s.log, API: s.api})
	// The parent's end must not cut off the answers of a stop under way.
	outlive := context.WithoutCancel(ctx)
	if err := server.Start(outlive); err != nil {
		return err
	}
	s.log.Info("service started", "http", server.Addr().String(), "version", build().Version)

	working, stop := context.WithCancel(ctx)
	defer stop()
	go s.tell(working)
	ended := make(chan error, len(s.parts))
	for _, p := range s.parts {
		go func() {
			s.log.Info("part started", "part", p.name)
			err := s.supervise(working, p)
			if err != nil {
				err = fmt.Errorf("running %s: %w", p.name, err)
				s.health.Set(p.name, health.Stopped, err.Error())
			}
			ended <- err
		}()
	}

	var failure error
	running := len(s.parts)
	select {
	case <-ctx.Done():
		s.log.Info("stopping: asked to", "timeout", s.cfg.ShutdownTimeout)
	case failure = <-ended:
		running--
		s.log.Error("stopping: a part can't go on", "error", failure)
	}
	s.health.Shutdown("the process is stopping")
	stop()

	started := time.Now()
	deadline, cancel := context.WithTimeout(outlive, s.cfg.ShutdownTimeout)
	defer cancel()
	for ; running > 0; running-- {
		select {
		case err := <-ended:
			failure = errors.Join(failure, err)
		case <-deadline.Done():
			failure = errors.Join(failure, fmt.Errorf("stopping took longer than %s with %d parts still at work; what they had not committed is done again after the next start", s.cfg.ShutdownTimeout, running))
			running = 1
		}
	}
	last, cancelLast := context.WithTimeout(outlive, time.Second)
	defer cancelLast()
	if err := server.Stop(last); err != nil {
		s.log.Warn("closing http", "error", err)
	}
	if failure == nil {
		s.log.Info("service stopped", "took", time.Since(started))
	}
	return failure
}
