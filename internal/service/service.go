// Package service is the composition root: it makes the service of its parts, from a configuration.
//
//	chosen, _, err := service.Choose(service.Parts(), []string{"usage", "api"})
//	cfg, err := config.Load(os.Environ(), service.Stores(chosen)...)
//	s, err := service.New(cfg, log, build, chosen)
//	err = s.Run(ctx) // until ctx ends
//
// It owns what the parts share: how a store is opened, the memory of the process, health, metrics, the order of a stop. The command
// line, the benchmark and tests all go through it, so there is one wiring. What a part does is in the package it comes from.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/consumers"
	"tenantflow/internal/certs"
	"tenantflow/internal/config"
	"tenantflow/internal/health"
	"tenantflow/internal/httpapi"
	"tenantflow/internal/telemetry"
	"tenantflow/internal/token"
	"tenantflow/internal/trace"
)

// A Service is the running process: its HTTP interface and its parts, and what the parts share.
type Service struct {
	cfg      *config.Config
	log      *slog.Logger
	build    telemetry.Build
	registry *prometheus.Registry
	health   *health.Tracker
	parts    []Part
	api      *httpapi.API
	tenants  tenants
	tracer   *trace.Tracer // nil: nothing is traced
	memory   memory

	tenantMetrics func() *consumers.TenantMetrics // those that the parts of company and subscription events share
}

// An Option changes what a service is made of.
type Option func(*Service)

// Traced has the service record spans. It closes the tracer when it stops. nil: nothing is recorded, as without the option.
func Traced(tracer *trace.Tracer) Option { return func(s *Service) { s.tracer = tracer } }

// New makes a service of some parts, and sets the memory limit of the process to what they need. Nothing is opened yet.
func New(cfg *config.Config, log *slog.Logger, build telemetry.Build, parts []Part, options ...Option) (*Service, error) {
	s := &Service{cfg: cfg, log: log, build: build, registry: telemetry.NewRegistry(build), parts: parts}
	s.tenantMetrics = sync.OnceValue(func() *consumers.TenantMetrics { return consumers.NewTenantMetrics(s.registry) })
	for _, option := range options {
		option(s)
	}
	if spans := s.tracer.Collector(); spans != nil {
		s.registry.MustRegister(spans)
	}
	s.limitMemory()
	s.health = health.New(cfg.StallTimeout, log, names(parts)...)
	s.registry.MustRegister(s.health.Collector(), certs.NewCollector(cfg.Certificates()))
	for _, c := range cfg.Certificates() {
		c.LogTo(log)
	}
	if s.has("api") {
		var tokens *token.File
		if cfg.APITokensFile != "" {
			var err error
			if tokens, err = token.Open(cfg.APITokensFile, log); err != nil {
				return nil, config.Invalidf("TENANTFLOW_API_TOKENS_FILE: %v", err)
			}
		}
		s.api = httpapi.NewAPI(tokens, log)
	}
	return s, nil
}

// Run runs until ctx ends or a part can't go on, and then stops in this order: not ready; the parts, which finish
// their batches, commit, leave their groups and close their stores; HTTP last, so that a probe can
// follow the stop until then; and then the spans that are left are sent, for two seconds at most. A stop that takes longer than the shutdown timeout is an error, and whatever is still
// under way ends with the process.
func (s *Service) Run(ctx context.Context) error {
	// The parent's end must not cut off the answers of a stop under way.
	outlive := context.WithoutCancel(ctx)
	board, err := s.showBoard(outlive)
	if err != nil {
		return err
	}
	servers, err := s.serve(outlive)
	if err != nil {
		board.close()
		return err
	}

	working, stop := context.WithCancel(ctx)
	defer stop()
	go s.report(working)
	gathered := board.start(working)
	ended := make(chan error, len(s.parts))
	for _, p := range s.parts {
		go func() {
			s.log.Info("part started", "part", p.Name)
			err := s.supervise(working, p)
			if err != nil {
				err = fmt.Errorf("running %s: %w", p.Name, err)
				s.health.Set(p.Name, health.Stopped, err.Error())
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
	select {
	case <-gathered:
	case <-time.After(time.Second): // a store that hangs must not hold up the end
	}
	last, cancelLast := context.WithTimeout(outlive, time.Second)
	defer cancelLast()
	stopServers(last, servers, s.log)
	if err := s.tracer.Close(outlive); err != nil {
		s.log.Warn("the last spans were not sent", "error", err)
	}
	if failure == nil {
		s.log.Info("service stopped", "took", time.Since(started))
	}
	return failure
}
