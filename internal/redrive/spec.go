package redrive

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/deadletter"
	"tenantflow/internal/replay"
	"tenantflow/internal/task"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/postgres"
)

// A LetterStore knows what was done about letters, companies, users and the inbox: *postgres.Store.
type LetterStore interface {
	LetterChanges(ctx context.Context, origins []events.Origin) (map[events.Origin]postgres.LetterChange, error)
	replay.ForgottenStore
	KnownEvents(ctx context.Context, all []*events.Event) ([]postgres.Known, error)
}

// Config is what redrives need of an installation.
type Config struct {
	Client      *kafka.Client
	TopicPrefix string

	Usage   *clickhouse.Store // the table of usage; nil: letters of usage.events can't be redriven
	Letters LetterStore
	Key     events.ReplayKey

	// FutureTolerance is the service's own setting: how far a usage event's timestamp may lie ahead. Default: 1h.
	FutureTolerance time.Duration
	// TenantFuture is the same for company and subscription events. Default: 5m.
	TenantFuture time.Duration

	// ChunkLetters is how many letters are decided about before position and counts move. Default: 500.
	ChunkLetters int

	// Refused, if set, is called for each letter that stays open, with the reason in words. A chunk that is decided again calls it
	// again.
	Refused func(events.Origin, Verdict)

	Logger *slog.Logger
}

// A Kind does redrives. It implements task.Kind.
type Kind struct{ cfg Config }

// New makes the kind of tasks that redrive.
func New(cfg Config) *Kind {
	if cfg.FutureTolerance == 0 {
		cfg.FutureTolerance = events.DefaultFutureTolerance
	}
	if cfg.TenantFuture == 0 {
		cfg.TenantFuture = events.DefaultTenantFuture
	}
	if cfg.ChunkLetters == 0 {
		cfg.ChunkLetters = 500
	}
	if cfg.Refused == nil {
		cfg.Refused = func(events.Origin, Verdict) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Kind{cfg}
}

// OnRefused makes a kind that differs in Config.Refused alone.
func (k *Kind) OnRefused(refused func(events.Origin, Verdict)) *Kind {
	cfg := k.cfg
	cfg.Refused = refused
	return New(cfg)
}

// A Spec is what a redrive is to do: the column spec of its task. It does not change while the task lasts.
type Spec struct {
	Filter  deadletter.Filter    `json:"filter"`
	Bounds  []deadletter.Stretch `json:"bounds"` // of the dead letter topic: letters written later are not meant
	Effects []string             `json:"effects"`
	Fix     json.RawMessage      `json:"fix,omitempty"`  // a JSON patch; none: the events go as they are
	Rate    float64              `json:"rate,omitempty"` // events a second; 0: no bound
	By      string               `json:"by"`
}

// fix reads the patch; nil: there is none.
func (s *Spec) fix() (*deadletter.Fix, error) {
	if len(s.Fix) == 0 {
		return nil, nil //nolint:nilnil // there is none
	}
	return deadletter.ParseFix(s.Fix)
}

// A Request is what an operator asks for.
type Request struct {
	Topic  string // without its prefix
	Filter deadletter.Filter
	Fix    []byte // a JSON patch; empty: none
	Rate   float64
	By     string
}

// A RequestError says what is wrong with a request: nothing was done.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return e.Err.Error() }

func (e *RequestError) Unwrap() error { return e.Err }

// A Plan is a request with what is to be read for it.
type Plan struct {
	Topic   string // with its prefix
	Spec    Spec
	Letters int64 // that are chosen
	Reasons map[events.Reason]int64
	Origins map[events.Origin]bool // those of the filter's origins that are there
}

// Plan finds the letters of a request. The error is a *RequestError where the request makes no sense.
func (k *Kind) Plan(ctx context.Context, r Request) (*Plan, error) {
	effects := replay.Effects(r.Topic)
	if effects == nil {
		return nil, &RequestError{fmt.Errorf("%s is no topic of input events: it has no dead letters", r.Topic)}
	}
	p := &Plan{Topic: k.cfg.TopicPrefix + r.Topic, Reasons: map[events.Reason]int64{}, Origins: map[events.Origin]bool{}}
	p.Spec = Spec{Filter: r.Filter, Effects: effects, Fix: r.Fix, Rate: r.Rate, By: r.By}
	if _, err := p.Spec.fix(); err != nil {
		return nil, &RequestError{err}
	}
	reader := k.reader(p.Topic)
	var err error
	if p.Spec.Bounds, err = reader.Bounds(ctx); err != nil {
		return nil, err
	}
	err = reader.All(ctx, p.Spec.Bounds, &r.Filter, func(l *deadletter.Letter) error {
		if l.Topic != p.Topic {
			return nil
		}
		p.Letters++
		p.Reasons[l.Reason]++
		if len(r.Filter.Origins) > 0 {
			p.Origins[l.Origin] = true
		}
		return nil
	})
	return p, err
}

func (k *Kind) reader(topic string) *deadletter.Reader {
	return &deadletter.Reader{Client: k.cfg.Client, Topics: []string{topic}}
}

// judge makes the judge of a topic's letters.
func (k *Kind) judge(topic string, s *Spec) (*judge, error) {
	fix, err := s.fix()
	if err != nil {
		return nil, task.Fatalf("read the patch of a redrive: %w", err)
	}
	j := &judge{letters: k.cfg.Letters, fix: fix}
	if strings.TrimPrefix(topic, k.cfg.TopicPrefix) == events.TopicUsage {
		if k.cfg.Usage == nil {
			return nil, task.Fatalf("redrive usage events: there is no ClickHouse")
		}
		j.effects = newUsageEffects(k.cfg.Usage, events.UsageLimits{FutureTolerance: k.cfg.FutureTolerance, MaxAge: events.DefaultMaxAge})
		return j, nil
	}
	decoder, err := events.NewDecoder(k.cfg.TopicPrefix)
	if err != nil {
		return nil, task.Fatalf("redrive letters of %s: %w", topic, err)
	}
	j.effects = &tenantEffects{decoder: decoder, store: k.cfg.Letters, future: k.cfg.TenantFuture}
	return j, nil
}
