package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
	"tenantflow/internal/tenantmodel"
)

// liveEvents are usage, company and subscription events, some at a time.
type liveEvents struct {
	client    *kafkago.Client
	prefix    string // of the topics
	usage     *model.Generator
	companies *tenantmodel.Generator
	writer    *kafkago.Writer
}

func newLiveEvents(t *testing.T, environ []string, prefix string, seed uint64) *liveEvents {
	t.Helper()
	cfg, err := config.Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	client, disconnect, err := cfg.KafkaClient()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(disconnect)
	now := time.Now()
	usage, err := model.New(model.Config{Seed: seed, Count: 1_000_000, Resends: 0.05, Conflicts: 0.002, Malformed: 0.005, Late: 0.02, Start: now.Add(-time.Hour), Step: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	companies, err := tenantmodel.New(tenantmodel.Config{Seed: seed, Companies: 200, Events: 20_000, Conflicts: 0.01, Lapsed: 0.3, Prefix: fmt.Sprintf("live%d-", now.UnixNano()), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	w := enginetest.Writer(client)
	w.Balancer, w.BatchTimeout = &kafkago.Hash{}, 5*time.Millisecond
	t.Cleanup(func() { _ = w.Close() })
	return &liveEvents{client: client, prefix: prefix, usage: usage, companies: companies, writer: w}
}

// publish publishes the next hundred usage events and a few of companies.
func (f *liveEvents) publish(ctx context.Context) error {
	if _, err := model.Publish(ctx, f.usage, model.Publishing{Client: f.client, Topic: f.prefix + events.TopicUsage, Limit: 100}); err != nil {
		return err
	}
	var some []kafkago.Message
	for range 4 {
		m, ok := f.companies.Next()
		if !ok {
			break
		}
		one := kafkago.Message{Topic: f.prefix + m.Topic, Key: m.Key, Value: m.Value}
		for _, h := range m.Headers {
			one.Headers = append(one.Headers, kafkago.Header{Key: h.Key, Value: h.Value})
		}
		some = append(some, one)
	}
	if len(some) == 0 {
		return nil
	}
	return f.writer.WriteMessages(ctx, some...)
}
