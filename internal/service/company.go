package service

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/kafka"
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
func runSubscription(ctx context.Context, r *Running) error {
	return r.applyTenants(ctx, events.TopicSubscription, func(c consumers.TenantConfig) kafka.BatchHandler { return consumers.NewSubscription(c) })
}

// runCompany applies company events until ctx ends.
func runCompany(ctx context.Context, r *Running) error {
	return r.applyTenants(ctx, events.TopicCompany, func(c consumers.TenantConfig) kafka.BatchHandler { return consumers.NewCompany(c) })
}

func (r *Running) applyTenants(ctx context.Context, topic string, handler func(consumers.TenantConfig) kafka.BatchHandler) error {
	cfg, s := r.Config, r.service
	rules, catalogue, err := Rules(cfg)
	if err != nil {
		return err
	}
	decoder, err := events.NewDecoder(cfg.TopicPrefix)
	if err != nil {
		return err
	}
	done, err := s.openTenants(ctx)
	if err != nil {
		return err
	}
	defer done()
	key, err := s.tenants.postgres.ReplayKey(ctx)
	if err != nil {
		return err
	}
	if differ, err := s.tenants.postgres.TiersThatDiffer(ctx, catalogue); err == nil && len(differ) > 0 {
		r.Log.Warn("prices and limits are taken from this process's catalogue, and the table subscription_tiers has others; run \"tenantflow migrate\" with the same TENANTFLOW_TIERS_FILE",
			slog.Any("tiers", differ))
	}
	client, disconnect, err := cfg.KafkaClient()
	if err != nil {
		return err
	}
	defer disconnect()
	notes := notesOf(s.health, r.part)
	store := s.tenants.postgres.Tenants(postgres.TenantsConfig{Rules: rules, Wait: cfg.WaitingTimeout})
	tenants := consumers.TenantConfig{
		Store:       store,
		Decoder:     decoder,
		TopicPrefix: cfg.TopicPrefix,
		Applied:     s.warm,
		Metrics:     s.tenantMetrics(),
		Blocked:     func(note string) { notes.say("blocked", note) },
		Companies:   &kafka.TopicReading{Client: client, Topic: cfg.TopicPrefix + events.TopicCompany, Group: s.group("company")},
		ReplayKey:   key,

		FutureTolerance: tenantFuture(cfg),
	}
	results := kafka.NewResults(client).Traced(s.tracer)
	defer func() {
		if err := results.Close(); err != nil {
			r.Log.Warn("closing the publisher of results", slog.Any("error", err))
		}
	}()
	group, working := errgroup.WithContext(ctx)
	// Once in a process: of two parts the one that companies come from.
	if r.part == "company" || !s.has("company") {
		group.Go(func() error { return consumers.NewTenantSweeper(tenants, results, r.Log).Run(working) })
	}
	if r.part == "company" {
		group.Go(func() error { return r.decideVoids(working, tenants, store, results, client, notes) })
	}
	group.Go(func() error {
		return r.Consume(working, topic, Batching{tenantBatchRows, tenantBatchInterval, tenantMemory}, handler(tenants))
	})
	return group.Wait()
}

// warm fills the caches of companies that are new, so that the first request for them finds them. Nothing depends on it.
func (s *Service) warm(ctx context.Context, done []postgres.Applied) {
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

func (s *Service) warmCompany(ctx context.Context, created postgres.Result) error {
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
