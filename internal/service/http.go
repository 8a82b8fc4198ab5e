package service

import (
	"context"
	"log/slog"

	"tenantflow/internal/httpapi"
)

// serve starts to answer HTTP: everything at one address, or probes and metrics at one of their own. Then the other one is there only
// where there is something to answer. No error: the servers are to be stopped.
func (s *Service) serve(ctx context.Context) ([]*httpapi.Server, error) {
	options := httpapi.Options{Addr: s.cfg.HTTPAddr, Health: s.health, Metrics: s.registry, Build: s.build, Log: s.log, API: s.api, AccessLog: s.cfg.AccessLog, Tracer: s.tracer}
	if c := s.cfg.HTTPCertificates(); c != nil {
		options.TLS = c.Server()
	}
	all, names := []*httpapi.Server{}, []string{"http"}
	if s.cfg.AdminAddr == "" {
		all = append(all, httpapi.New(options))
	} else {
		names = []string{"admin", "http"}
		admin := options
		admin.Addr, admin.Serves = s.cfg.AdminAddr, httpapi.OnlyAdmin
		all = append(all, httpapi.New(admin))
		if s.api != nil {
			options.Serves = httpapi.OnlyAPI
			all = append(all, httpapi.New(options))
		}
	}
	attrs := []slog.Attr{slog.String("version", s.build.Version), slog.Bool("tls", options.TLS != nil)}
	for i, server := range all {
		if err := server.Start(ctx); err != nil {
			stopServers(ctx, all[:i], s.log)
			return nil, err
		}
		attrs = append(attrs, slog.String(names[i], server.Addr().String()))
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "service started", attrs...)
	return all, nil
}

// stopServers waits for the requests under way, until ctx ends.
func stopServers(ctx context.Context, servers []*httpapi.Server, log *slog.Logger) {
	for _, server := range servers {
		if err := server.Stop(ctx); err != nil {
			log.Warn("closing http", "error", err)
		}
	}
}
