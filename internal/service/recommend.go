package service

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"tenantflow/events"
	"tenantflow/internal/analytics"
	"tenantflow/internal/config"
	"tenantflow/internal/kafka"
)

// Recommend does the work of the job "recommendations", which is due when a month has begun: see [analytics.Recommender]. It opens the stores for
// itself, and returns what was done, an object of JSON. The error is an [analytics.NotYetError] while usage of the month may still come in. publish returns when the events are durable.
func Recommend(ctx context.Context, cfg *config.Config, log *slog.Logger, publish func(context.Context, []kafka.Result) error, slot time.Time) (result any, err error) {
	on, err := openAnalyses(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, on.close()) }()
	client, disconnect, err := cfg.KafkaClient()
	if err != nil {
		return nil, err
	}
	defer disconnect()
	behind := &kafka.Behind{Client: client, Topic: cfg.TopicPrefix + events.TopicUsage, Group: cfg.GroupPrefix + ".usage"}
	defer behind.Close()
	return analytics.NewRecommender(analytics.RecommenderConfig{
		Analyst: analytics.New(on.companies, on.usage, on.tiers), Publish: publish, TopicPrefix: cfg.TopicPrefix, UsageUntil: behind.StoredUntil, Logger: log,
	}).Recommend(ctx, slot)
}
