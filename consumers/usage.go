package consumers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/recent"
	"tenantflow/sinks/clickhouse"
)

// A UsageStore is where usage events go: *clickhouse.Store. It is an interface so that a test can take one of the
// mechanisms out and see that it is missed.
type UsageStore interface {
	// Deadline is the time until which the server takes an insert that begins now.
	Deadline() time.Time
	// SyncClock reads the server's clock.
	SyncClock(ctx context.Context) error
	// Acquire waits for permission to insert.
	Acquire(ctx context.Context) (release func(), err error)
	// Insert sends rows under an intent that is committed. Its error is a *clickhouse.InsertError.
	Insert(ctx context.Context, in *clickhouse.Intent, b *clickhouse.Block, first, last int) error
	// Await finds out what became of an insert whose outcome is unknown. It may give the intent another deadline, to be
	// committed before it is completed.
	Await(ctx context.Context, in *clickhouse.Intent, how clickhouse.Settling) (*clickhouse.Landed, error)
	// Complete completes what has landed of it.
	Complete(ctx context.Context, in *clickhouse.Intent, landed *clickhouse.Landed) (clickhouse.Settled, error)
	// Find looks events up by identity, company, user and timestamp.
	Find(ctx context.Context, b *clickhouse.Block, rows []int) ([]clickhouse.Match, error)
	// FindVoided looks up the usage that voids take back.
	FindVoided(ctx context.Context, b *clickhouse.Block, voids []int) ([]clickhouse.Match, error)
	// FindIdentity looks events up by identity alone, among those from an offset on.
	FindIdentity(ctx context.Context, topic string, partition int, from int64, b *clickhouse.Block, rows []int) ([]clickhouse.Match, error)
	// Newest is the largest timestamp that is stored, whatever place it came from.
	Newest(ctx context.Context) (int64, error)
	// Announce says that this process writes to the table, and returns which others do.
	Announce(ctx context.Context, w clickhouse.Writer) (clickhouse.Writers, error)
	// Places reads which events are stored at some offsets.
	Places(ctx context.Context, topic string, partition int, from, to int64) ([]clickhouse.Place, error)
}

// A UsageStep is a border between two steps of writing a usage batch. A process may die at any of them.
type UsageStep string

// The steps of writing a usage batch, in their order.
const (
	StepFormed       UsageStep = "formed"        // the batch is complete, in memory only
	StepChecked      UsageStep = "checked"       // duplicates are known
	StepDeadLettered UsageStep = "dead_lettered" // what can't be taken is in the dead letter topic
	StepIntended     UsageStep = "intended"      // the intent is committed
	StepInserted     UsageStep = "inserted"      // the rows are in the table
	StepUnknown      UsageStep = "unknown"       // an insert failed, its outcome is unknown
	StepResending    UsageStep = "resending"     // settling: the new deadline is committed, the resend not sent
	StepSettled      UsageStep = "settled"       // the outcome is known
)

// Defaults of UsageConfig.
const (
	DefaultFilterBytes    = 64 << 20
	DefaultStaleProducers = 15 * time.Minute
)

// UsageConfig is what the usage consumer needs besides its store.
type UsageConfig struct {
	Limits events.UsageLimits

	// FilterBytes is the memory of the recent-identity filters of all partitions together. Default: DefaultFilterBytes.
	FilterBytes int64

	// Group is the name of the consumer group. Of two groups that read one topic into one table, the later one is refused.
	Group string

	// StaleProducers is how long a producer may go on using the number of partitions of before some were added, or send
	// to another topic whose events are stored here: the longest time its metadata lives, and its deliveries may take.
	// Until it is over, and for events up to the future tolerance beyond it, every event is looked up in the
	// table. Default: DefaultStaleProducers.
	StaleProducers time.Duration

	// OnStep, if set, is called at each border between steps.
	OnStep func(UsageStep)

	// Metrics are registered here; nil: nowhere.
	Registry prometheus.Registerer
}

// Usage is the handler that writes usage events to ClickHouse, each exactly once, however often it is delivered.
//
// For a batch, which is the range [b, c) of a partition:
//
//  1. Events that are stored already are taken out; what can't be taken goes to the dead letters.
//  2. The intent to insert [b, c) is committed with the offset b, so that one commit says "done up to b" and "what is
//     in the table of [b, c) came from here". A member that has lost the partition can't make it.
//  3. The rows are inserted, with a deadline that the server enforces: usage first, then what takes usage back.
//  4. If the outcome is unknown - no answer, a crash, a takeover - the intent says what to look for. See
//     [clickhouse.Store.Await].
//
// Then c is done. It is committed with the next intent, or alone when nothing follows.
type Usage struct {
	store   UsageStore
	cfg     UsageConfig
	metrics *usageMetrics
	blocks  chan *clickhouse.Block // free ones, with their memory
	writers *usageWriters
}

// freeBlocks is how many free blocks are kept: about as many as are full at a time. More would hold memory for nothing.
const freeBlocks = 4

// NewUsage returns the handler.
func NewUsage(store UsageStore, cfg UsageConfig) *Usage {
	cfg.FilterBytes = cmp.Or(cfg.FilterBytes, DefaultFilterBytes)
	cfg.StaleProducers = cmp.Or(cfg.StaleProducers, DefaultStaleProducers)
	if cfg.OnStep == nil {
		cfg.OnStep = func(UsageStep) {}
	}
	return &Usage{
		store: store, cfg: cfg, metrics: newUsageMetrics(cfg.Registry), blocks: make(chan *clickhouse.Block, freeBlocks),
		writers: newUsageWriters(store, cfg.Group),
	}
}

// Open settles what an earlier owner of the partition left pending, and finds out how far its events may be stored.
func (u *Usage) Open(ctx context.Context, p *kafka.Partition) (kafka.BatchPartition, error) {
	if p.ID() > math.MaxUint16 {
		return nil, &kafka.FatalError{Err: fmt.Errorf("open %s/%d: partition numbers above 65535 do not fit the table", p.Topic(), p.ID())}
	}
	up := &usagePartition{Partition: p, usage: u, decoder: events.NewUsageDecoder(u.cfg.Limits).VoidsOfStored()}
	pending, err := clickhouse.ParseIntent(p.Topic(), p.ID(), p.Offset(), p.Metadata())
	if err != nil {
		return nil, &kafka.StopError{Kind: "unreadable_intent", Err: err}
	}
	if pending != nil {
		up.Line(ctx, slog.LevelInfo, "settling the insert an earlier owner left pending", slog.String("range", pending.Range()))
		if err := up.settle(ctx, pending, true, nil); err != nil {
			return nil, err
		}
	}
	if err := up.checkLog(ctx); err != nil {
		return nil, err
	}
	if err := up.findCoverage(ctx); err != nil {
		return nil, err
	}
	up.seen = recent.New(int(u.cfg.FilterBytes) / max(1, p.Peers()))
	up.seenFrom = p.Offset()
	return up, nil
}

// usagePartition is one partition of usage events.
type usagePartition struct {
	*kafka.Partition
	usage   *Usage
	decoder *events.UsageDecoder

	// An event is surely new if its identity is not among the seen and its timestamp is newer than both covered and
	// what the seen have forgotten. Everything else is looked up.
	seen     *recent.Set
	seenFrom int64 // the offset of the first of them
	touched  uint32
	covered  int64 // milliseconds

	// The number of partitions that covered holds for, and whether it has changed since. The writer's.
	partitions    int
	repartitioned bool

	deadline time.Time // of this partition's last insert
	refused  int       // rows that the store has refused since it accepted one
}

// checkLog compares a few events around the committed offset with what the table holds for the same places. Another
// event there means that the topic was deleted and created again: its offsets name other events now.
func (p *usagePartition) checkLog(ctx context.Context) error {
	const around = 32
	r := kafka.Range{From: max(0, p.Offset()-around), To: p.Offset() + around}
	places, err := keepTrying(ctx, p, func() ([]clickhouse.Place, error) {
		return p.usage.store.Places(ctx, p.Topic(), p.ID(), r.From, r.To)
	})
	if err != nil || len(places) == 0 {
		return err
	}
	// Asked after the table was: a log only grows, so it holds whatever was stored from it.
	log, err := kafka.Bounds(ctx, p.Client(), p.Topic(), p.ID())
	if err != nil {
		return err
	}
	stored := map[int64]uint64{}
	for _, at := range places {
		if at.Offset >= log.To {
			return p.Recreated(fmt.Sprintf("an event is stored from %s/%d/%d, and the log ends at %d", p.Topic(), p.ID(), at.Offset, log.To))
		}
		stored[at.Offset] = at.Identity
	}
	return p.ReadRange(ctx, r, func(rec *events.Record) error {
		want, ok := stored[rec.Offset]
		if !ok {
			return nil
		}
		envelope, err := events.ParseEnvelope(rec)
		if err == nil && events.IdentityHash([]byte(envelope.Source), []byte(envelope.ID)) == want {
			return nil
		}
		return p.Recreated(fmt.Sprintf("%s/%d/%d holds another event than the one stored from there", p.Topic(), p.ID(), rec.Offset))
	})
}

// usageBatch is the range being read: rows, suspects among them, and dead letters.
type usageBatch struct {
	partition *usagePartition
	block     *clickhouse.Block
	suspects  []int        // rows that may be stored already
	seen      map[int]bool // those of them whose identity was seen by this owner
	letters   []kafka.DeadLetter
	letterLen int64
	screened  int          // rows before this one were looked up among the seen
	closed    time.Time    // when its last record had been read
	usage     events.Usage // scratch

	// copies are later rows with the identity and the data of an earlier one, by that row. They are dropped, and share
	// its fate: where it becomes a dead letter, so do they.
	copies   map[int][]int
	unmeant  map[int]bool  // published by a replay for other consumers: they must be stored already
	refused  []rejectedRow // by the store
	accepted bool          // the store has taken a row
	probed   bool          // the store was asked whether it refuses all rows
}

// Begin takes no block yet: a partition that waits for events must not hold the memory of one.
func (p *usagePartition) Begin() kafka.Batch { return &usageBatch{partition: p} }

// rows is the batch's block.
func (b *usageBatch) rows() *clickhouse.Block {
	if b.block == nil {
		select {
		case b.block = <-b.partition.usage.blocks:
		default:
			b.block = clickhouse.NewBlock()
		}
	}
	return b.block
}

// Release keeps the batch's block for another one.
func (b *usageBatch) Release() {
	if b.block == nil {
		return
	}
	b.block.Reset()
	select {
	case b.partition.usage.blocks <- b.block:
	default: // enough are free
	}
	b.block = nil
}

func (b *usageBatch) Rows() int {
	if b.block == nil {
		return len(b.letters)
	}
	return b.block.Len() + len(b.letters)
}

func (b *usageBatch) Bytes() int64 {
	if b.block == nil {
		return b.letterLen
	}
	return b.block.Bytes() + b.letterLen
}

// Add decodes a record into the block. Whether its timestamp lies in the future, or is too old, is judged by the record's own time, so
// every delivery, the counters and a replay come to the same.
func (b *usageBatch) Add(r *events.Record) {
	if err := b.partition.decoder.Decode(r, r.Time, &b.usage); err != nil {
		b.reject(r, err)
		return
	}
	block := b.rows()
	if replayed, ok := events.ReadReplayed(r.Headers); ok && !replayed.Names(usageEffect) {
		if b.unmeant == nil {
			b.unmeant = map[int]bool{}
		}
		b.unmeant[block.Len()] = true
	}
	block.Append(&b.usage, b.usage.IdentityHash(), r.Offset)
	if block.Len()-b.screened == screenRows {
		b.screen()
	}
}

// Close looks the last rows up among the seen.
func (b *usageBatch) Close() {
	b.closed = time.Now()
	if b.block != nil {
		b.screen()
	}
}

// screenRows is how many rows are screened together.
const screenRows = 32

// screen adds the identities of the rows behind the last screened one to the seen, and notes which rows may be stored
// already. The set is larger than the caches: touched one right after the other, the places are loaded side by side.
func (b *usageBatch) screen() {
	p, block := b.partition, b.block
	for row := b.screened; row < block.Len(); row++ {
		p.touched ^= p.seen.Touch(block.Identity(row))
	}
	for row := b.screened; row < block.Len(); row++ {
		at := block.Timestamp(row)
		seen := p.seen.Add(block.Identity(row), at)
		if !seen && at > max(p.covered, p.seen.Forgotten()) && !b.unmeant[row] {
			continue
		}
		b.suspects = append(b.suspects, row)
		if seen {
			if b.seen == nil {
				b.seen = map[int]bool{}
			}
			b.seen[row] = true
		}
	}
	b.screened = block.Len()
}

func (b *usageBatch) reject(r *events.Record, err error) {
	var rejection *events.Rejection
	if !errors.As(err, &rejection) {
		rejection = events.Reject(events.MalformedEnvelope, "%v", err)
	}
	b.letters = append(b.letters, kafka.DeadLetter{Record: kafka.CopyRecord(r), Rejection: rejection, Attempts: 1})
	b.letterLen += kafka.RecordBytes(r)
}

// Write stores the batch.
func (b *usageBatch) Write(ctx context.Context, r kafka.Range) error {
	p := b.partition
	b.rows() // a batch of dead letters alone has none yet
	p.step(StepFormed)
	if err := p.checkCoverage(ctx, b); err != nil {
		return err
	}
	if err := p.dropKnown(ctx, b); err != nil {
		return err
	}
	p.step(StepChecked)
	// The letters go first: the insert may commit offsets inside the range, and what lies before a committed offset
	// must have had its effect.
	if err := p.DeadLetter(ctx, b.letters); err != nil {
		return err
	}
	p.step(StepDeadLettered)
	rows := b.block.Live()
	voids := b.holdVoids()
	if err := p.insert(ctx, b, r, 0, b.block.Len()); err != nil {
		return err
	}
	notTaken, err := p.insertVoids(ctx, b, r, voids)
	if err != nil {
		return err
	}
	if err := p.rejectRefused(ctx, b); err != nil {
		return err
	}
	p.usage.metrics.stored.Add(float64(rows - notTaken - len(b.refused)))
	for _, copies := range b.copies {
		p.usage.metrics.duplicates.Add(float64(len(copies)))
	}
	return nil
}

func (p *usagePartition) step(s UsageStep) { p.usage.cfg.OnStep(s) }

// keepTrying does something with ClickHouse until it works, saying what it waits for.
func keepTrying[T any](ctx context.Context, p *usagePartition, do func() (T, error)) (v T, err error) {
	fatal := func(err error) bool { return clickhouse.Classify(err) == clickhouse.Fatal }
	err = p.KeepTrying(ctx, fatal, func() error { v, err = do(); return err })
	return v, err
}
