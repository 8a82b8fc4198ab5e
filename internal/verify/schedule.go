package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/logs"
	"tenantflow/sinks/postgres"
)

// Job is the name of the scheduled run in the table of slots.
const Job = "verify"

// ScheduleConfig is what a Schedule needs.
type ScheduleConfig struct {
	// Interval is how often a run is due. Above 0.
	Interval time.Duration

	// Slots keeps the times at which a run was due, so that each is done by one process.
	Slots *postgres.Store

	// Verify makes one run that looks at what came since a time.
	Verify func(ctx context.Context, since time.Time) (*Report, error)

	// Poll is how often it looks whether a run is due, and what the last one has found, which may be another process's. Default: a
	// twentieth of the interval, from 1s to 1m.
	Poll time.Duration

	// Registry takes the metrics; nil: nowhere.
	Registry prometheus.Registerer

	Logger *slog.Logger
}

// A Schedule makes a cheap run at an interval, in one process at a time, and makes what it finds a metric. It repairs nothing.
type Schedule struct {
	cfg      ScheduleConfig
	log      *slog.Logger
	troubles *logs.Troubles
	drift    *prometheus.GaugeVec
	success  prometheus.Gauge
	interval prometheus.Gauge
	seconds  prometheus.Gauge
}

// slotLease is how long a process that works on a slot is taken to live without a sign.
const slotLease = 2 * time.Minute

// overlap is how much further back a run looks than the one before it began: what was under way then was not judged.
const overlap = 30 * time.Minute

// NewSchedule makes a Schedule.
func NewSchedule(cfg ScheduleConfig) *Schedule {
	if cfg.Poll == 0 {
		cfg.Poll = min(max(cfg.Interval/20, time.Second), time.Minute)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Schedule{cfg: cfg, log: cfg.Logger, troubles: logs.NewTroubles(cfg.Logger),
		drift: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantflow_drift_differences",
			Help: "Differences between log and stores that the last scheduled verification found, by their kind in docs/verify.md. All are 0 where everything is right."}, []string{"kind"}),
		success: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tenantflow_verify_last_success_timestamp_seconds",
			Help: "When the last scheduled verification began that could judge everything, whichever process ran it. Until there is one: when this process started."}),
		interval: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tenantflow_verify_interval_seconds", Help: "How often a scheduled verification is due."}),
		seconds:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "tenantflow_verify_duration_seconds", Help: "How long the last scheduled verification took."}),
	}
	for _, k := range kinds() {
		if isDrift(k) {
			s.drift.WithLabelValues(string(k))
		}
	}
	s.interval.Set(cfg.Interval.Seconds())
	s.success.SetToCurrentTime()
	if cfg.Registry != nil {
		cfg.Registry.MustRegister(s.drift, s.success, s.interval, s.seconds)
	}
	return s
}

// What the log says of what is tried again.
const (
	verifyFailed = "the scheduled verification failed; it is tried again when it is due"
	unkept       = "the slot of the scheduled verification could not be kept"
)

// Run works until ctx ends. What fails is logged, and due again at the next slot.
func (s *Schedule) Run(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Poll)
	defer tick.Stop()
	for {
		switch err := s.once(ctx); {
		case ctx.Err() != nil:
		case err != nil:
			s.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: verifyFailed, Err: err})
		default:
			s.troubles.Over(ctx, verifyFailed, "")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Last returns what the last scheduled run found that was done, whichever process made it; nil: there was none.
func Last(ctx context.Context, slots *postgres.Store) (*Outcome, error) {
	last, err := slots.LastSlot(ctx, Job)
	if err != nil || last == nil {
		return nil, err
	}
	return outcomeOf(last)
}

// outcomeOf reads the result of a slot.
func outcomeOf(s *postgres.Slot) (*Outcome, error) {
	o := &Outcome{Started: s.Started}
	if err := json.Unmarshal(s.Result, o); err != nil {
		return nil, fmt.Errorf("read the result of the scheduled verification of %s: %w", stamp(s.At), err)
	}
	return o, nil
}

// An Outcome is what is kept of a run.
type Outcome struct {
	Started time.Time `json:"-"` // by Postgres' clock

	Differences map[Kind]int64 `json:"differences"`
	Offsets     int64          `json:"offsets"`
	Seconds     float64        `json:"seconds"`
	Since       time.Time      `json:"since"`
	Unproven    []string       `json:"unproven,omitempty"`
	Error       string         `json:"error,omitempty"`
}

// isDrift reports whether what a run has found is a difference between log and stores. That nothing was consumed is none: nothing was
// proven, as on the first day of an installation.
func isDrift(k Kind) bool { return !k.Information() && k != NotConsumed }

// once makes a run if one is due, and shows what the last one has found.
func (s *Schedule) once(ctx context.Context) error {
	now, err := s.cfg.Slots.Now(ctx)
	if err != nil {
		return err
	}
	last, err := s.cfg.Slots.LastSlot(ctx, Job)
	if err != nil {
		return err
	}
	slot := now.UTC().Truncate(s.cfg.Interval)
	taken := false
	if last == nil || last.At.Before(slot) {
		if taken, err = s.cfg.Slots.BeginSlot(ctx, Job, slot, slotLease); err != nil {
			return err
		}
	}
	if taken {
		since := now.Add(-s.cfg.Interval - overlap)
		if last != nil {
			since = last.Started.Add(-overlap) // after an outage, everything since
			// Each run looks at a difference again until it is mended. (One that only could not judge everything is not kept as done.)
			if o, err := outcomeOf(last); err == nil && len(o.Differences) > 0 && o.Since.Before(since) {
				since = o.Since
			}
		}
		if err := s.work(ctx, slot, since); err != nil {
			return err
		}
		if last, err = s.cfg.Slots.LastSlot(ctx, Job); err != nil {
			return err
		}
	}
	return s.show(last)
}

// show makes the result of the last run a metric.
func (s *Schedule) show(last *postgres.Slot) error {
	if last == nil {
		return nil
	}
	result, err := outcomeOf(last)
	if err != nil {
		return err
	}
	for _, k := range kinds() {
		if isDrift(k) {
			s.drift.WithLabelValues(string(k)).Set(float64(result.Differences[k]))
		}
	}
	if len(result.Unproven) == 0 { // else what differs is shown, and the time of the success before stays
		s.success.Set(float64(last.Started.UnixMilli()) / 1000)
	}
	s.seconds.Set(result.Seconds)
	return nil
}

// work makes the run of a slot, and says what came of it.
func (s *Schedule) work(ctx context.Context, slot, since time.Time) error {
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		s.keep(running, slot, stop)
	}()
	report, err := s.cfg.Verify(running, since)
	if cause := context.Cause(running); err != nil && cause != nil {
		err = errors.Join(err, cause)
	}
	stop(nil)
	<-kept
	result := Outcome{Differences: map[Kind]int64{}, Since: since.UTC()}
	switch {
	case err != nil:
		result.Error = err.Error()
	default:
		s.tell(ctx, report)
		result.Offsets, result.Seconds, result.Unproven = report.Sum().Judged, report.Seconds, report.Unproven
		if n := report.NotJudged(); n > 0 {
			result.Unproven = append(result.Unproven, fmt.Sprintf("%d totals could not be judged", n))
		}
		for _, g := range report.Findings {
			switch {
			case isDrift(g.Kind):
				result.Differences[g.Kind] = g.Count
			case g.Kind == NotConsumed:
				result.Unproven = append(result.Unproven, "the usage group has consumed nothing")
			}
		}
	}
	text, encodeErr := json.Marshal(result)
	if encodeErr != nil {
		return encodeErr
	}
	// Also when the process is stopping: the next one need not wait for the lease to end.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	// What differs is shown at once, also where not everything could be judged.
	done := err == nil && (len(result.Unproven) == 0 || len(result.Differences) > 0)
	return errors.Join(err, s.cfg.Slots.FinishSlot(ending, Job, slot, done, text))
}

// keep keeps the slot while the run works, and ends the run when it is lost.
func (s *Schedule) keep(ctx context.Context, slot time.Time, stop context.CancelCauseFunc) {
	tick := time.NewTicker(slotLease / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ours, err := s.cfg.Slots.RenewSlot(ctx, Job, slot, slotLease)
		switch {
		case err != nil:
			s.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: unkept, Err: err})
		case !ours:
			stop(errors.New("the slot was lost: this process gave no sign for too long"))
			return
		default:
			s.troubles.Over(ctx, unkept, "")
		}
	}
}

// tell logs what a run has found.
func (s *Schedule) tell(ctx context.Context, r *Report) {
	const samples = 5
	for _, g := range r.Findings {
		if !isDrift(g.Kind) {
			continue
		}
		for _, f := range g.Samples[:min(samples, len(g.Samples))] {
			s.log.ErrorContext(ctx, "the scheduled verification found a difference", slog.String("kind", string(f.Kind)), slog.String("where", f.Where),
				slog.String("event", f.Event), slog.String("detail", f.Detail))
		}
		if more := g.Count - samples; more > 0 {
			s.log.ErrorContext(ctx, "the scheduled verification found more differences of a kind", slog.String("kind", string(g.Kind)), slog.Int64("more", more))
		}
	}
	for _, why := range r.Unproven {
		s.log.WarnContext(ctx, "the scheduled verification could not judge everything", slog.String("why", why))
	}
	if r.Differences() == 0 && len(r.Unproven) == 0 {
		s.log.InfoContext(ctx, "the scheduled verification found no difference", slog.Int64("offsets", r.Sum().Judged), slog.Float64("seconds", r.Seconds))
	}
}
