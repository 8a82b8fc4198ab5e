package service

import (
	"context"
	"errors"
	"log/slog"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/billing"
	"tenantflow/internal/config"
	"tenantflow/internal/jobs"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/postgres"
)

// Billing makes, closes and announces billing exports.
type Billing struct {
	*billing.Exporter

	closers []func() error
}

// Close closes the stores.
func (b *Billing) Close() error {
	var all []error
	for i := len(b.closers) - 1; i >= 0; i-- {
		all = append(all, b.closers[i]())
	}
	return errors.Join(all...)
}

// billingTimeout bounds one look-up in Postgres: the export of a company with many users is large.
const billingTimeout = time.Minute

// OpenBilling opens what billing exports need: Kafka, ClickHouse and Postgres. Close the result.
func OpenBilling(ctx context.Context, cfg *config.Config, log *slog.Logger) (_ *Billing, err error) {
	books, err := OpenPostgres(ctx, cfg, billingTimeout, log)
	if err != nil {
		return nil, err
	}
	client, disconnect, err := cfg.KafkaClient()
	if err != nil {
		books.Close()
		return nil, err
	}
	results := kafka.NewResults(client)
	b, err := billingOf(cfg, client, books, results, log)
	if err != nil {
		_ = results.Close() // nothing was published
		disconnect()
		books.Close()
		return nil, err
	}
	b.closers = append([]func() error{func() error { books.Close(); return nil }, func() error { disconnect(); return nil }, results.Close}, b.closers...)
	return b, nil
}

const (
	// billingAgain is after how long it is looked again whether events that were behind are stored.
	billingAgain = 10 * time.Minute
	// billingPatience is for how long after the grace period events may be behind until that is a failure, which an alert says.
	billingPatience = 3 * time.Hour
)

// ExportBilling does the work of the job "billing_export", which is due when a month has begun: see [billing.Exporter.CloseMonth]. It opens the stores for itself. The result
// is a *billing.Summary; the error wraps a *jobs.NotYetError until the month can be closed.
func ExportBilling(ctx context.Context, cfg *config.Config, log *slog.Logger, slot time.Time) (result any, err error) {
	b, err := OpenBilling(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	summary, err := b.CloseMonth(ctx, slot)
	if err != nil {
		return nil, putOff(err, time.Now(), slot.Add(cfg.BillingGrace+billingPatience))
	}
	return summary, nil
}

// putOff says when to try again what can't be closed yet. What waits for events after late is a failure as it is.
func putOff(err error, now, late time.Time) error {
	var notYet *billing.NotYetError
	if !errors.As(err, &notYet) || notYet.Until.IsZero() && now.After(late) {
		return err
	}
	until := notYet.Until
	if until.IsZero() {
		until = now.Add(billingAgain)
	}
	return &jobs.NotYetError{Until: until, Why: notYet.Error()}
}

// readBilling makes what shows exports, closed ones and drafts, and closes none. The books stay the caller's.
func readBilling(r *Running, books *postgres.Store) (*Billing, error) {
	if len(r.Config.KafkaBrokers) == 0 {
		return billingOf(r.Config, nil, books, nil, r.Log)
	}
	client, disconnect, err := r.Config.KafkaClient()
	if err != nil {
		return nil, err
	}
	b, err := billingOf(r.Config, client, books, nil, r.Log)
	if err != nil {
		disconnect()
		return nil, err
	}
	b.closers = append([]func() error{func() error { disconnect(); return nil }}, b.closers...)
	return b, nil
}

// billingOf makes it with stores that stay the caller's. results: nil where nothing is to be closed. client: nil where there is no address of Kafka; only closed
// exports can be read then.
func billingOf(cfg *config.Config, client *kafkago.Client, books *postgres.Store, results *kafka.Results, log *slog.Logger) (*Billing, error) {
	options, err := cfg.ClickHouseOptions()
	if err != nil {
		return nil, config.Invalidf("reading %sCLICKHOUSE_DSN: %w", config.Prefix, err)
	}
	rows, err := opened(billing.OpenRows(options))
	if err != nil {
		return nil, err
	}
	b := &Billing{closers: []func() error{rows.Close}}
	of := billing.Config{Books: books, Rows: rows, Log: noPositions{}, Grace: cfg.BillingGrace, Results: results, Topic: cfg.TopicPrefix + events.TopicBillingExports, Logger: log}
	if client != nil {
		positions := billing.NewPositions(client, billing.Source{Topic: cfg.TopicPrefix + events.TopicUsage, Group: cfg.GroupPrefix + ".usage"},
			billing.Source{Topic: cfg.TopicPrefix + events.TopicSubscription, Group: cfg.GroupPrefix + ".subscription"},
			billing.Source{Topic: cfg.TopicPrefix + events.TopicCompany, Group: cfg.GroupPrefix + ".company"})
		of.Log = positions
		b.closers = append(b.closers, func() error { positions.Close(); return nil })
	}
	b.Exporter = billing.New(of)
	return b, nil
}

// noPositions is the log of a process that has no address of it.
type noPositions struct{}

func (noPositions) Look(context.Context, time.Time) (billing.AsOf, error) {
	return billing.AsOf{}, errors.New("how far usage events are stored is not known without TENANTFLOW_KAFKA_BROKERS")
}

// announceBilling announces billing exports that a process has closed and not announced, until ctx ends. Without an address of ClickHouse this installation
// may still have some.
func announceBilling(ctx context.Context, r *Running, client *kafkago.Client, books *postgres.Store) {
	results := kafka.NewResults(client)
	defer func() { _ = results.Close() }() // what is not noted as published is published again
	billing.New(billing.Config{Books: books, Results: results, Topic: r.Config.TopicPrefix + events.TopicBillingExports, Logger: r.Log}).Sweep(ctx)
}
