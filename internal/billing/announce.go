package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/postgres"
)

// causeID is the id of what causes the export of a company and a period.
func causeID(company, period string) string { return "billing:" + company + ":" + period }

// ready is the data of billing.export_ready.v1.
type ready struct {
	ExportID   string          `json:"export_id"`
	CompanyID  string          `json:"company_id"`
	Period     string          `json:"billing_period"`
	Revision   int             `json:"revision"`
	State      string          `json:"state"`
	Currency   string          `json:"currency"`
	Checksum   string          `json:"sha256"`
	CSV        string          `json:"csv_sha256"`
	Reconciled bool            `json:"reconciled"`
	Totals     json.RawMessage `json:"totals"`
	Location   string          `json:"location"`
	ClosedAt   time.Time       `json:"closed_at"`
}

// announcement is the event that says that an export is closed: the same one however often it is made.
func announcement(topic string, e *postgres.BillingExport) (kafka.Result, error) {
	data, err := json.Marshal(ready{ExportID: e.ExportID, CompanyID: e.CompanyID, Period: e.BillingPeriod, Revision: e.Revision, State: e.State, Currency: e.Currency,
		Checksum: e.Checksum, CSV: e.CSVChecksum, Reconciled: e.Reconciled, Totals: e.Totals, Location: "/v1/companies/" + e.CompanyID + "/billing/" + e.BillingPeriod,
		ClosedAt: e.CreatedAt.UTC()})
	if err != nil {
		return kafka.Result{}, fmt.Errorf("write the announcement of export %s: %w", e.ExportID, err)
	}
	cause := &events.Envelope{Source: events.ScheduleSource(), ID: causeID(e.CompanyID, e.BillingPeriod)}
	return kafka.Result{Topic: topic, Key: e.CompanyID, Event: events.NewResult(events.JobConsumer, cause, events.TypeBillingExportReady, 0, e.CreatedAt, data)}, nil
}

// announce publishes that exports are closed, and notes that. What a crash leaves in between is published again, as the same events.
func (e *Exporter) announce(ctx context.Context, all []postgres.BillingExport) error {
	if e.cfg.Results == nil {
		return nil
	}
	var results []kafka.Result
	var ids []string
	for i := range all {
		if all[i].PublishedAt != nil {
			continue
		}
		one, err := announcement(e.cfg.Topic, &all[i])
		if err != nil {
			return err
		}
		results, ids = append(results, one), append(ids, all[i].ExportID)
	}
	if len(results) == 0 {
		return nil
	}
	err := e.cfg.Results.Publish(ctx, results, func(err error) {
		e.cfg.Logger.WarnContext(ctx, "billing exports can't be announced now; they wait", slog.Any("error", err))
	})
	if err != nil {
		return err
	}
	e.cfg.Step(StepPublished)
	return e.cfg.Books.MarkBillingPublished(ctx, ids)
}

// announceWithin is how long a closing waits until its exports are announced: they are closed whatever comes of that, and a sweep announces what is left.
const announceWithin = 10 * time.Second

// announceSoon announces exports that were just closed, if that can be done soon.
func (e *Exporter) announceSoon(ctx context.Context, all []postgres.BillingExport) bool {
	if ctx.Err() != nil {
		return false // a client may send all the same what it is given then
	}
	soon, cancel := context.WithTimeout(ctx, e.within)
	defer cancel()
	err := e.announce(soon, all)
	if err != nil {
		e.cfg.Logger.WarnContext(ctx, "billing exports are closed and not announced yet; a sweep announces them", slog.Int("exports", len(all)), slog.Any("error", err))
	}
	return err == nil
}

// TryAnnounce is Announce before other work: what can't be announced soon stays for a sweep, and is logged.
func (e *Exporter) TryAnnounce(ctx context.Context) {
	soon, cancel := context.WithTimeout(ctx, e.within)
	defer cancel()
	if _, err := e.Announce(soon); err != nil {
		e.cfg.Logger.WarnContext(ctx, "billing exports that were closed before can't be announced now; a sweep announces them", slog.Any("error", err))
	}
}

// announcedAtOnce is how many exports are announced together.
const announcedAtOnce = 100

// Announce publishes what another process has closed and not announced, and returns how many exports that were.
func (e *Exporter) Announce(ctx context.Context) (int, error) {
	for n := 0; ; {
		some, err := e.cfg.Books.UnpublishedBilling(ctx, announcedAtOnce)
		if err != nil || len(some) == 0 {
			return n, err
		}
		if err := e.announce(ctx, some); err != nil {
			return n, err
		}
		n += len(some)
		if len(some) < announcedAtOnce {
			return n, nil
		}
	}
}

// announceInterval is how often Sweep looks for exports that were not announced.
const announceInterval = 30 * time.Second

// Sweep announces, until ctx ends, what processes have closed and not announced because they died or Kafka was away.
func (e *Exporter) Sweep(ctx context.Context) {
	tick := time.NewTicker(announceInterval)
	defer tick.Stop()
	for {
		if _, err := e.Announce(ctx); err != nil && ctx.Err() == nil {
			e.cfg.Logger.WarnContext(ctx, "billing exports that are not announced can't be looked up or published; it is tried again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
