package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/task"
	"tenantflow/sinks/clickhouse"
)

// Config is what replays need of an installation.
type Config struct {
	Client      *kafka.Client
	TopicPrefix string
	GroupPrefix string

	Usage   *clickhouse.Store // the table of usage; nil: usage.events can't be replayed
	Tenants companyStore      // *postgres.Store
	Key     events.ReplayKey

	// FutureTolerance is the service's own setting: how far a usage event's timestamp may lie ahead of its record's time.
	// Default: 1h.
	FutureTolerance time.Duration
	// TenantFuture is the same for company and subscription events. Default: 5m.
	TenantFuture time.Duration
	// BatchInterval is the service's own setting: how long events wait for their batch. The lag begins behind it. Default: 1s.
	BatchInterval time.Duration

	// Sources opens sources by their kind, beside the log itself.
	Sources map[string]OpenSource

	// ChunkRecords is how many records are decided about at a time, and ChunkEvents how many of them are published at most before
	// position and counts move. Default: 100,000 and 20,000.
	ChunkRecords, ChunkEvents int

	Logger *slog.Logger
}

// A Kind does replays. It implements task.Kind.
type Kind struct{ cfg Config }

// New makes the kind of tasks that replay.
func New(cfg Config) *Kind {
	if cfg.FutureTolerance == 0 {
		cfg.FutureTolerance = events.DefaultFutureTolerance
	}
	if cfg.TenantFuture == 0 {
		cfg.TenantFuture = events.DefaultTenantFuture
	}
	if cfg.BatchInterval == 0 {
		cfg.BatchInterval = time.Second
	}
	if cfg.ChunkRecords == 0 {
		cfg.ChunkRecords = 100_000
	}
	if cfg.ChunkEvents == 0 {
		cfg.ChunkEvents = 20_000
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Kind{cfg}
}

// A Request is what an operator asks for.
type Request struct {
	Topic      string // without its prefix
	Source     SourceSpec
	Partitions []int // empty: all
	From, To   Bound // of the log or the archive
	Companies  []string
	Types      []string
	Identities [][]byte // see task.Identity
	Effects    []string
	Rate       float64
	MaxLag     time.Duration
}

// DefaultMaxLag is how far the consumer group may be behind before a replay pauses.
const DefaultMaxLag = 2 * time.Second

// A Plan is a request with what is to be read for it.
type Plan struct {
	Topic   string // with its prefix
	Spec    Spec
	Records int64 // offsets to be read; of a file: bytes
	// Unconsumed is how many records at the end of the ranges the consumer group has not taken yet. They are left out: they still
	// take effect by themselves.
	Unconsumed int64
}

// Plan finds out what is to be read for a request. The error is a *RequestError where the request makes no sense.
func (k *Kind) Plan(ctx context.Context, r Request) (*Plan, error) {
	if err := CheckEffects(r.Topic, r.Effects); err != nil {
		return nil, &RequestError{err}
	}
	if r.Source.Kind == "" {
		r.Source.Kind = SourceKafka
	}
	if r.MaxLag == 0 {
		r.MaxLag = DefaultMaxLag
	}
	p := &Plan{Topic: k.cfg.TopicPrefix + r.Topic, Spec: Spec{
		Source: r.Source, Effects: r.Effects, Companies: r.Companies, Types: r.Types, Rate: r.Rate, MaxLag: Duration(r.MaxLag), AsOf: time.Now().UTC(),
	}}
	for _, one := range r.Identities {
		p.Spec.Identities = append(p.Spec.Identities, fmt.Sprintf("%x", one))
	}
	source, err := k.source(ctx, p.Topic, r.Source)
	if err != nil {
		return nil, err
	}
	defer func() { _ = source.Close() }() // nothing was written
	ranges, err := source.Ranges(ctx)
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		return nil, &RequestError{fmt.Errorf("there is no topic %s (has `tenantflow migrate` been run?)", p.Topic)}
	}
	if err != nil {
		return nil, err
	}
	if ranges, err = chosen(ranges, r.Partitions); err != nil {
		return nil, err
	}
	if s, ok := source.(timed); ok {
		for i := range ranges {
			if ranges[i], err = cut(ctx, s, ranges[i], r.From, r.To); err != nil {
				return nil, err
			}
		}
	}
	if _, ok := source.(*logSource); ok {
		if ranges, p.Unconsumed, err = consumed(ctx, k.cfg.Client, k.group(r.Topic), p.Topic, ranges); err != nil {
			return nil, err
		}
	}
	p.Spec.Ranges = slices.DeleteFunc(ranges, func(r Range) bool { return r.Len() == 0 })
	for _, r := range p.Spec.Ranges {
		p.Records += r.Len()
	}
	return p, nil
}

// A RequestError says what is wrong with a request: nothing was done.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return e.Err.Error() }

func (e *RequestError) Unwrap() error { return e.Err }

// chosen gives the ranges of some partitions.
func chosen(all []Range, partitions []int) ([]Range, error) {
	if len(partitions) == 0 {
		return all, nil
	}
	var some []Range
	for _, id := range partitions {
		at := slices.IndexFunc(all, func(r Range) bool { return r.Partition == id })
		if at < 0 {
			return nil, &RequestError{fmt.Errorf("there is no partition %d", id)}
		}
		some = append(some, all[at])
	}
	return some, nil
}

// group is the consumer group whose effects are brought back from a topic without its prefix.
func (k *Kind) group(topic string) string {
	names := Effects(topic)
	if len(names) == 0 {
		return ""
	}
	return k.cfg.GroupPrefix + "." + names[0]
}

// source opens a source.
func (k *Kind) source(ctx context.Context, topic string, spec SourceSpec) (Source, error) {
	if spec.Kind == SourceKafka {
		return &logSource{client: k.cfg.Client, topic: topic}, nil
	}
	open, ok := k.cfg.Sources[spec.Kind]
	if !ok {
		return nil, task.Fatalf("this version of the service reads no sources of the kind %q", spec.Kind)
	}
	return open(ctx, topic, spec)
}

// judge makes the judge of a topic's events.
func (k *Kind) judge(topic string, spec *Spec, known func(context.Context, [][]byte) (map[string]bool, error)) (judge, error) {
	f, err := spec.filter()
	if err != nil {
		return nil, err
	}
	bare := strings.TrimPrefix(topic, k.cfg.TopicPrefix)
	r := rules{filter: f, store: k.cfg.Tenants, known: known, letters: &letters{client: k.cfg.Client, topic: topic, group: k.group(bare)}}
	if bare == events.TopicUsage {
		if k.cfg.Usage == nil {
			return nil, task.Fatalf("replay usage events: there is no ClickHouse")
		}
		limits := events.UsageLimits{FutureTolerance: k.cfg.FutureTolerance, MaxAge: events.DefaultMaxAge}
		return newUsageJudge(r, topic, k.cfg.Usage, limits, spec.AsOf), nil
	}
	decoder, err := events.NewDecoder(k.cfg.TopicPrefix)
	if err != nil {
		return nil, task.Fatalf("replay %s: %w", topic, err)
	}
	return &tenantJudge{rules: r, decoder: decoder, future: k.cfg.TenantFuture}, nil
}

// Open implements task.Kind.
func (k *Kind) Open(ctx context.Context, l *task.Lease) (task.Work, error) {
	w := &work{kind: k, lease: l, size: k.cfg.ChunkRecords}
	if err := json.Unmarshal(l.Task.Spec, &w.spec); err != nil {
		return nil, task.Fatalf("read the spec of task %s: %w", l.Task.ID, err)
	}
	var err error
	if w.judge, err = k.judge(l.Task.Topic, &w.spec, l.Known); err != nil {
		return nil, err
	}
	if w.source, err = k.source(ctx, l.Task.Topic, w.spec.Source); err != nil {
		return nil, err
	}
	topic := strings.TrimPrefix(l.Task.Topic, k.cfg.TopicPrefix)
	brake := NewLagBrake(LagConfig{Client: k.cfg.Client, Topic: l.Task.Topic, Group: k.group(topic), MaxLag: time.Duration(w.spec.MaxLag), Batching: k.cfg.BatchInterval})
	w.guard = &Guard{Store: k.cfg.Tenants, Withheld: func(_ *Message, why Outcome) { w.withheld[why]++ }}
	w.publisher, err = NewPublisher(ctx, PublisherConfig{Client: k.cfg.Client, Topic: l.Task.Topic, Rate: w.spec.Rate, Brake: brake, Keep: w.guard.Keep, Waiting: l.Waiting})
	if err != nil {
		return nil, errors.Join(err, w.source.Close())
	}
	w.most = k.cfg.ChunkEvents
	if w.spec.Rate > 0 {
		w.most = max(1, min(w.most, int(2*w.spec.Rate))) // about two seconds' worth, so that a stop need not wait
	}
	return w, nil
}
