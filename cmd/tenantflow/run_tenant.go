package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/kafka"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// How company and subscription events are read: a few at a time, because each waits for the results of those before it.
const (
	tenantBatchRows     = 200
	tenantBatchInterval = 5 * time.Millisecond
	tenantMemory        = config.Bytes(16 << 20)
	// warmTimeout bounds what is done to fill the caches of a new company.
	warmTimeout = time.Second
)

// runSubscription applies subscription events until ctx ends.
func runSubscription(ctx context.Context, s *service, metrics prometheus.Registerer) error {
	return s.runTenant(ctx, metrics, "subscription", events.TopicSubscription, func(c consumers.TenantConfig) kafka.BatchHandler { return consumers.NewSubscription(c) })
}

// runCompany applies company events until ctx ends.
func runCompany(ctx context.Context, s *service, metrics prometheus.Registerer) error {
	return s.runTenant(ctx, metrics, "company", events.TopicCompany, func(c consumers.TenantConfig) kafka.BatchHandler { return consumers.NewCompany(c) })
}

func (s *service) runTenant(ctx context.Context, metrics prometheus.Registerer, name, topic string, handler func(consumers.TenantConfig) kafka.BatchHandler) error {
	cfg := s.cfg
	catalogue, err := tier.Load(cfg.TiersFile)
	if err != nil {
		return invalid("TENANTFLOW_TIERS_FILE: %v", err)
	}
	decoder, err := events.NewDecoder(cfg.TopicPrefix)
	if err != nil {
		return err
	}
	done, ok, err := s.openTenants(ctx, name)
	if !ok {
		return err
	}
	defer done()
	if differ, err := s.tenants.postgres.TiersThatDiffer(ctx, catalogue); err == nil && len(differ) > 0 {
		s.log.Warn("prices and limits are taken from this process's catalogue, and the table subscription_tiers has others; run \"tenantflow migrate\" with the same TENANTFLOW_TIERS_FILE",
			slog.Any("tiers", differ))
	}
	transport, err := cfg.KafkaTransport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	tenants := consumers.TenantConfig{
		Store:       s.tenants.postgres.Tenants(postgres.TenantsConfig{Rules: tenantRules(cfg, catalogue), Wait: cfg.WaitingTimeout}),
		Decoder:     decoder,
		TopicPrefix: cfg.TopicPrefix,
		Applied:     s.warm,
		Metrics:     s.tenantMetrics(),
		Blocked:     func(note string) { s.health.Note(name, note) },

		FutureTolerance: min(exactly(cfg.FutureTolerance), consumers.DefaultTenantFuture),
	}
	client := &kafkago.Client{Addr: kafkago.TCP(cfg.KafkaBrokers...), Transport: transport}
	tenants.Companies = &kafka.TopicReading{Client: client, Topic: cfg.TopicPrefix + events.TopicCompany, Group: cfg.GroupPrefix + ".company"}
	results := kafka.NewResults(client)
	defer func() {
		if err := results.Close(); err != nil {
			s.log.Warn("closing the publisher of results", slog.Any("error", err))
		}
	}()
	group, working := errgroup.WithContext(ctx)
	// Once in a process: of two parts the one that companies come from.
	if name == "company" || !slices.ContainsFunc(s.parts, func(p part) bool { return p.name == "company" }) {
		group.Go(func() error { return consumers.NewTenantSweeper(tenants, results, s.log).Run(working) })
	}
	group.Go(func() error {
		return s.consume(working, metrics, name, topic, batching{tenantBatchRows, tenantBatchInterval, tenantMemory}, handler(tenants))
	})
	return group.Wait()
}

// tenantRules are the rules by which companies and their subscriptions change.
func tenantRules(cfg *config.Config, catalogue *tier.Catalogue) *tenant.Rules {
	rules := tenant.Config{Catalogue: catalogue, RenewalGrace: cfg.RenewalGrace}
	if cfg.RenewalGrace == 0 {
		rules.RenewalGrace = -1 // none, and not the default
	}
	return tenant.New(rules)
}

// tenantMetrics are the metrics that the consumers of company and subscription events share.
func (s *service) tenantMetrics() *consumers.TenantMetrics {
	s.tenantMetricsOnce.Do(func() { s.sharedTenantMetrics = consumers.NewTenantMetrics(s.registry) })
	return s.sharedTenantMetrics
}

// warm fills the caches of companies that are new, so that the first request for them finds them. Nothing depends on it.
func (s *service) warm(ctx context.Context, done []postgres.Applied) {
	ctx, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	for _, one := range done {
		for _, r := range one.Results {
			if r.Event == nil || r.Event.Type != events.TypeCompanyCreated {
				continue
			}
			if err := s.warmCompany(ctx, r); err != nil {
				s.log.DebugContext(ctx, "the caches of a new company are not filled", slog.String("company_id", r.Key), slog.Any("error", err))
			}
		}
	}
}

func (s *service) warmCompany(ctx context.Context, created postgres.Result) error {
	var said struct {
		User string `json:"initial_user_id"`
	}
	if err := json.Unmarshal(created.Event.Data, &said); err != nil {
		return err
	}
	if _, err := s.tenants.directory.User(ctx, said.User); err != nil {
		return err
	}
	if _, err := s.tenants.directory.CompanyConfig(ctx, created.Key); err != nil {
		return err
	}
	_, err := s.tenants.directory.BillingPeriod(ctx, created.Key)
	return err
}
