package archive

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/topic"
)

// Metrics say how well archives are kept up. Each has the label topic.
type Metrics struct {
	lastSuccess *prometheus.GaugeVec
	upTo        *prometheus.GaugeVec
	retention   *prometheus.GaugeVec
	interval    *prometheus.GaugeVec
	failures    *prometheus.CounterVec
	records     *prometheus.CounterVec
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantflow_archive_" + name, Help: help}, []string{"topic"})
		r.MustRegister(g)
		return g
	}
	counter := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantflow_archive_" + name, Help: help}, []string{"topic"})
		r.MustRegister(c)
		return c
	}
	return &Metrics{
		lastSuccess: gauge("last_success_timestamp_seconds", "When this process last finished archiving the topic without an error; 0: not yet."),
		upTo:        gauge("up_to_timestamp_seconds", "The time up to which every record of the topic is archived, by the times of the records."),
		retention:   gauge("retention_seconds", "How long the topic keeps its records; 0: without a limit."),
		interval:    gauge("interval_seconds", "How often the topic is to be archived."),
		failures:    counter("failures_total", "Runs of the archiver that failed."),
		records:     counter("records_total", "Records that were archived."),
	}
}

// Keeping is what Keep needs.
type Keeping struct {
	Config
	Interval time.Duration // between the end of a run and the next one
	Metrics  *Metrics
}

// afterFailure is how long Keep waits after a run that failed, if the interval is not shorter: most failures pass.
const afterFailure = time.Minute

// Keep archives a topic again and again until ctx ends, and then returns nil. What fails is logged and tried again. Of several
// processes that keep the same archive, one works, and the others wait.
func Keep(ctx context.Context, k Keeping) error {
	k.setDefaults()
	log := k.Logger.With(slog.String("topic", k.Topic))
	m, name := k.Metrics, k.Topic
	m.lastSuccess.WithLabelValues(name).Set(0)
	m.interval.WithLabelValues(name).Set(k.Interval.Seconds())
	m.failures.WithLabelValues(name)
	k.showManifest()
	for {
		wait := k.Interval
		report, err := Run(ctx, k.Config)
		var locked *LockedError
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // asked to stop in the middle of a run; the next one goes on
		case errors.As(err, &locked):
			log.DebugContext(ctx, "another process archives the topic", slog.String("holder", locked.Holder))
			k.showManifest()
		case err != nil:
			m.failures.WithLabelValues(name).Inc()
			log.ErrorContext(ctx, "archiving failed; it is tried again", slog.Any("error", err))
			wait = min(wait, afterFailure)
		default:
			m.lastSuccess.WithLabelValues(name).Set(seconds(k.Now()))
			m.upTo.WithLabelValues(name).Set(seconds(report.UpTo))
			m.records.WithLabelValues(name).Add(float64(report.Records))
			log.InfoContext(ctx, "the topic is archived", slog.Int64("records", report.Records), slog.Int64("bytes", report.Bytes), slog.Time("up_to", report.UpTo))
		}
		if keep, err := topic.Retention(ctx, k.Client, name); err == nil {
			m.retention.WithLabelValues(name).Set(keep.Seconds())
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// showManifest sets the metrics to what the archive holds, no matter which process wrote it.
func (k *Keeping) showManifest() {
	m, err := readManifest(filepath.Join(k.Root, k.Topic))
	if err != nil {
		return // a run says what is wrong
	}
	if at := m.upTo(); !at.IsZero() {
		k.Metrics.upTo.WithLabelValues(k.Topic).Set(seconds(at))
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
