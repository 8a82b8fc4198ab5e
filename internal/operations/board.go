package operations

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/business"
	"tenantflow/internal/health"
	"tenantflow/internal/task"
)

// How often each panel is gathered, and how long that may take.
const (
	lagEvery, lagTimeout       = 5 * time.Second, 4 * time.Second
	pingEvery, pingTimeout     = 5 * time.Second, 2 * time.Second
	tailEvery, tailTimeout     = 15 * time.Second, 10 * time.Second
	tableEvery, tableTimeout   = 10 * time.Second, 5 * time.Second
	handledEvery               = 30 * time.Second // it counts a table
	businessEvery              = 30 * time.Second // there is a new one every hour
	tailPatience               = 4 * time.Second  // of one look, so that what was read is shown
	lettersDepth, resultsDepth = 20_000, 2_000
	quotasDepth                = 5_000
)

// A Group is a consumer group that a part has in a topic.
type Group struct {
	Part  string
	Group string
	Topic string // with its prefix
}

// A Target is a store to be asked whether it answers.
type Target struct {
	Name string
	// Ping makes a light request; nil: this process has no address of the store.
	Ping func(context.Context) error
}

// Config is what a Board needs.
type Config struct {
	Version string
	Health  *health.Tracker
	Parts   []string // all the parts there are; those that Health does not name run elsewhere

	// Kafka is nil where this process has no brokers; then all that is read from there says so.
	Kafka        *kafkago.Client
	Groups       []Group
	Inputs       []string // input topics, with prefix, whose dead letters are counted
	QuotaTopic   string
	ResultTopics []string

	Stores []Target

	// The tables in Postgres. Each may take as long as its context lets it, and is called by one goroutine.
	Tasks   func(ctx context.Context, limit int) ([]task.Task, error)
	Drift   func(ctx context.Context) (Drift, error)
	Handled func(ctx context.Context) (map[LetterKind]int64, error)

	// Business returns the last report of the business metrics, as it is stored; nil: there is none.
	Business func(ctx context.Context) (*business.Report, error)

	Logger *slog.Logger
}

// A LetterKind is what dead letters are counted by.
type LetterKind struct{ Topic, Reason string }

// A Board gathers what the page shows. Its methods may be called from any goroutine.
type Board struct {
	cfg Config

	lag        []*gatherer[Lag]
	stores     []*gatherer[Store]
	letters    *gatherer[Letters]
	handled    *gatherer[map[LetterKind]int64]
	tasks      *gatherer[[]Task]
	quotas     *gatherer[Quotas]
	drift      *gatherer[Drift]
	rejections *gatherer[Rejections]
	business   *gatherer[Business]
	closers    []func()
}

// New makes a Board. Nothing is asked before Run.
func New(cfg Config) *Board {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Board{cfg: cfg}
	for _, g := range cfg.Groups {
		b.lag = append(b.lag, b.lagOf(g))
	}
	for _, s := range cfg.Stores {
		b.stores = append(b.stores, pingOf(s))
	}
	letters, quotas, rejections := newLetters(cfg), newQuotas(cfg), newRejections(cfg)
	b.letters = &gatherer[Letters]{from: "Kafka", every: tailEvery, timeout: tailTimeout, take: letters.take}
	b.quotas = &gatherer[Quotas]{from: "Kafka", every: tailEvery, timeout: tailTimeout, take: quotas.take}
	b.rejections = &gatherer[Rejections]{from: "Kafka", every: tailEvery, timeout: tailTimeout, take: rejections.take}
	b.handled = &gatherer[map[LetterKind]int64]{from: "Postgres", every: handledEvery, timeout: tableTimeout, take: cfg.Handled}
	b.tasks = &gatherer[[]Task]{from: "Postgres", every: tableEvery, timeout: tableTimeout, take: tasksFrom(cfg.Tasks)}
	b.drift = &gatherer[Drift]{from: "Postgres", every: tableEvery, timeout: tableTimeout, take: cfg.Drift}
	b.business = &gatherer[Business]{from: "Postgres", every: businessEvery, timeout: tableTimeout, take: businessFrom(cfg.Business)}
	return b
}

// Run gathers until ctx ends.
func (b *Board) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, g := range b.lag {
		all.Go(func() { g.run(ctx) })
	}
	for _, g := range b.stores {
		all.Go(func() { g.run(ctx) })
	}
	for _, run := range []func(context.Context){b.letters.run, b.handled.run, b.tasks.run, b.quotas.run, b.drift.run, b.rejections.run, b.business.run} {
		all.Go(func() { run(ctx) })
	}
	all.Wait()
	for _, c := range b.closers {
		c()
	}
}

// Report returns what was gathered last. It asks nothing and takes no longer when a store is away.
func (b *Board) Report(now time.Time) *Report {
	r := &Report{Version: b.cfg.Version, Time: now.UTC()}
	r.Parts, r.Ready = b.parts(now)
	for _, g := range b.lag {
		r.Lag = append(r.Lag, lagNow(g.show(now), now))
	}
	for _, g := range b.stores {
		r.Stores = append(r.Stores, g.show(now))
	}
	for i := range r.Stores {
		if r.Stores[i].Data.Store == "" {
			r.Stores[i].Data = Store{Store: b.cfg.Stores[i].Name, State: Unknown, History: []*float64{}}
		}
	}
	for i := range r.Lag {
		if l := &r.Lag[i].Data; l.Group == "" {
			g := b.cfg.Groups[i]
			*l = Lag{Consumer: g.Part, Group: g.Group, Topic: g.Topic, Partitions: []PartitionLag{}, History: []LagSample{}}
		}
	}
	r.DeadLetters = withHandled(b.letters.show(now), b.handled.show(now))
	r.Tasks = b.tasks.show(now)
	r.Quotas = b.quotas.show(now)
	r.Drift = b.drift.show(now)
	r.Rejections = b.rejections.show(now)
	r.Business = b.business.show(now)
	r.Attention = attention(r)
	fill(r)
	return r
}

// fill replaces what JSON would show as null by what is empty.
func fill(r *Report) {
	if r.Attention == nil {
		r.Attention = []string{}
	}
	if r.DeadLetters.Data.Reasons == nil {
		r.DeadLetters.Data.Reasons = []LetterCount{}
	}
	if r.Tasks.Data == nil {
		r.Tasks.Data = []Task{}
	}
	if r.Quotas.Data.Users == nil {
		r.Quotas.Data.Users = []QuotaUser{}
	}
	if r.Drift.Data.Differences == nil {
		r.Drift.Data.Differences = map[string]int64{}
	}
	if r.Drift.Data.Unproven == nil {
		r.Drift.Data.Unproven = []string{}
	}
	if r.Business.Data.Months == nil {
		r.Business.Data.Months = []business.Month{}
	}
	if r.Rejections.Data.Codes == nil {
		r.Rejections.Data.Codes = map[string]int64{}
	}
	if r.Rejections.Data.Newest == nil {
		r.Rejections.Data.Newest = []Rejected{}
	}
}

// parts are the parts of this process, as they are now, and those that run elsewhere.
func (b *Board) parts(now time.Time) (Panel[[]Part], bool) {
	readiness, liveness := b.cfg.Health.Readiness(), b.cfg.Health.Liveness()
	zero := 0.0
	p := Panel[[]Part]{TakenAt: now.UTC(), AgeSeconds: &zero, Data: []Part{}}
	here := map[string]bool{}
	for _, one := range readiness.Parts {
		here[one.Part] = true
		part := Part{Part: one.Part, State: string(one.State), Words: words(one.State), Reason: one.Reason, Note: one.Note, Since: one.Since, Partitions: one.Partitions}
		for _, s := range liveness.Stalled {
			if s.Part == one.Part {
				part.Stalled = s.Reason
			}
		}
		p.Data = append(p.Data, part)
	}
	for _, name := range b.cfg.Parts {
		if !here[name] {
			p.Data = append(p.Data, Part{Part: name, State: Elsewhere, Words: "does not run in this process"})
		}
	}
	slices.SortStableFunc(p.Data, func(x, y Part) int { return b.order(x.Part) - b.order(y.Part) })
	return p, readiness.Ready
}

func (b *Board) order(part string) int {
	if i := slices.Index(b.cfg.Parts, part); i >= 0 {
		return i
	}
	return len(b.cfg.Parts)
}

// withHandled adds to the letters what Postgres says was done about them.
func withHandled(letters Panel[Letters], handled Panel[map[LetterKind]int64]) Panel[Letters] {
	letters.Data.Reasons = slices.Clone(letters.Data.Reasons)
	letters.Data.HandledKnown = !handled.Stale
	if handled.Data == nil {
		return letters
	}
	for i := range letters.Data.Reasons {
		c := &letters.Data.Reasons[i]
		c.Handled = handled.Data[LetterKind{c.Topic, c.Reason}]
	}
	return letters
}

// An UnsetError is the problem of a panel whose store this process has no address of. Its text is the store.
type UnsetError string

func (u UnsetError) Error() string {
	return string(u) + " has no address in this process's configuration"
}

// quoted makes an argument of a shell command of a text.
func quoted(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-/:", r)
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
