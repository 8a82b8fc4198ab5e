package producer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/semaphore"

	"tenantflow/events"
)

// maxEventBytes is the largest record that the service keeps whole; a larger one becomes a dead letter, too_large. Key, value and headers
// count, and headerBytes for each header.
const (
	maxEventBytes = 8 << 20
	headerBytes   = 40
)

// An Outcome is what became of an event.
type Outcome struct {
	// Event is as Enqueue has completed it: give it to Enqueue again to send it again.
	Event Event
	// Err is nil for an event that all in-sync replicas have.
	Err error
	// Partition and Offset are its place in the log, for an event that was delivered; else -1.
	Partition int
	Offset    int64
}

// Stats are counts since New. Enqueued is Delivered, Failed and Buffered together.
type Stats struct {
	Enqueued  int64 // accepted by Enqueue or TryEnqueue
	Delivered int64
	Failed    int64
	Buffered  int64 // without an outcome yet
	Refused   int64 // not accepted: invalid, no room, or closed
	Retries   int64 // requests that were sent again, whole or in halves

	// LastError is why a request failed last, nil if none has, and LastErrorAt when. It may be long over.
	LastError   error
	LastErrorAt time.Time
}

// An item is an event on its way.
type item struct {
	event    Event
	key      []byte
	value    []byte
	headers  []kafka.Header
	size     int64
	deadline time.Time
}

// A Producer buffers usage events and publishes them. Its methods may be called from several goroutines.
type Producer struct {
	config      Config
	client      *kafka.Client
	transport   *kafka.Transport // the producer's own; nil: the caller's
	connections connections

	room, bytes *semaphore.Weighted // of the buffer, in events and in bytes
	in          chan *item          // from Enqueue to dispatch; has room for the whole buffer

	closing context.Context // ends when Close begins: Enqueue waits no longer
	begin   context.CancelFunc
	running context.Context // ends when Close gives up: nothing is sent any more
	giveUp  context.CancelCauseFunc
	ended   chan struct{} // closed when all goroutines are done
	lanes   sync.WaitGroup

	checking sync.Mutex
	judge    *events.UsageDecoder // the service's own

	mu     sync.Mutex
	closed bool
	stats  Stats
	lost   int // failed since Close began
}

// New starts a producer. It connects when there is something to send, so the brokers may be away. The error names everything that is wrong
// with the configuration.
func New(config Config) (*Producer, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Producer{
		config:      config,
		connections: connections{open: map[net.Conn]struct{}{}},
		room:        semaphore.NewWeighted(int64(config.BufferEvents)),
		bytes:       semaphore.NewWeighted(config.BufferBytes),
		in:          make(chan *item, config.BufferEvents),
		ended:       make(chan struct{}),
		judge:       events.NewUsageDecoder(config.Limits),
	}
	if config.Transport == nil {
		p.transport = p.connections.transport(config.Topic)
		config.Transport = p.transport
	}
	// kafka-go tells the broker half of the client's timeout, and half a second where it has none.
	p.client = &kafka.Client{Addr: kafka.TCP(config.Brokers...), Transport: config.Transport, Timeout: config.RequestTimeout}
	p.closing, p.begin = context.WithCancel(context.Background())
	p.running, p.giveUp = context.WithCancelCause(context.Background())
	go p.run()
	return p, nil
}

// Enqueue checks an event and puts it into the buffer, waiting for room until ctx ends. It returns the event with the id and time that
// it is sent with, also beside an error: given to Enqueue again, that is the same event.
//
// After an error the event is not in the buffer and has no outcome. It is a *FieldError, or a *events.Rejection with the reason for which the service would make it a
// dead letter; ErrClosed; or the cause of ctx's end.
func (p *Producer) Enqueue(ctx context.Context, e Event) (Event, error) {
	return p.enqueue(e, func(it *item) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if p.tryRoom(it) {
			return nil
		}
		return p.awaitRoom(ctx, it)
	})
}

// TryEnqueue is Enqueue without waiting: ErrFull where there is no room.
func (p *Producer) TryEnqueue(e Event) (Event, error) {
	return p.enqueue(e, func(it *item) error {
		if p.tryRoom(it) {
			return nil
		}
		return ErrFull
	})
}

func (p *Producer) enqueue(e Event, room func(*item) error) (Event, error) {
	it, err := p.prepare(e)
	if err == nil {
		if err = room(it); err == nil {
			err = p.accept(it)
		}
		if err != nil {
			err = fmt.Errorf("enqueue usage event %s: %w", it.event.ID, err)
		}
	}
	if err != nil {
		p.mu.Lock()
		p.stats.Refused++
		p.mu.Unlock()
	}
	return it.event, err
}

// prepare completes, checks and encodes an event. The item has the event also where it is refused.
func (p *Producer) prepare(e Event) (*item, error) {
	it := &item{event: e}
	now := time.Now()
	if err := it.event.complete(now); err != nil {
		return it, err
	}
	if err := it.event.check(); err != nil {
		return it, err
	}
	value, headers, err := it.event.encode(p.config.Source)
	if err != nil {
		return it, err
	}
	it.key, it.value = []byte(it.event.CompanyID), value
	if p.config.Key == ByUser {
		it.key = []byte(it.event.UserID)
	}
	it.headers = make([]kafka.Header, len(headers))
	it.size = int64(len(it.key) + len(value))
	for i, h := range headers {
		it.headers[i] = kafka.Header{Key: h.Key, Value: h.Value}
		it.size += int64(len(h.Key) + len(h.Value) + headerBytes)
	}
	if most := min(maxEventBytes, p.config.BufferBytes); it.size > most {
		return it, fmt.Errorf("usage event %s: its record has %d bytes; at most %d are taken: shorten service_name or api_endpoint", it.event.ID, it.size, most)
	}
	// What was checked above names the field. The service's own decoder has the last word, so that nothing is sent which it would not take.
	p.checking.Lock()
	defer p.checking.Unlock()
	var usage events.Usage
	record := events.Record{Topic: p.config.Topic, Time: now, Key: it.key, Value: value, Headers: headers}
	if err := p.judge.Decode(&record, now, &usage); err != nil {
		return it, fmt.Errorf("usage event %s: the service would refuse it: %w", it.event.ID, err)
	}
	return it, nil
}

func (p *Producer) tryRoom(it *item) bool {
	if !p.room.TryAcquire(1) {
		return false
	}
	if p.bytes.TryAcquire(it.size) {
		return true
	}
	p.room.Release(1)
	return false
}

// awaitRoom waits for room in the order of the calls.
func (p *Producer) awaitRoom(ctx context.Context, it *item) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.closing, func() { cancel(ErrClosed) })() //nolint:contextcheck // the wait ends with the producer, too
	if p.room.Acquire(ctx, 1) != nil {
		return noRoom(ctx)
	}
	if p.bytes.Acquire(ctx, it.size) != nil {
		p.room.Release(1)
		return noRoom(ctx)
	}
	return nil
}

func noRoom(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, ErrClosed) {
		return cause
	}
	return fmt.Errorf("the buffer is still full: %w", cause)
}

// accept takes an event that has room. From here on it will have an outcome.
func (p *Producer) accept(it *item) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.release(it)
		return ErrClosed
	}
	it.deadline = time.Now().Add(p.config.Timeout)
	p.in <- it // never waits: the channel has room for as many as the buffer
	p.stats.Enqueued++
	return nil
}

func (p *Producer) release(it *item) {
	p.bytes.Release(it.size)
	p.room.Release(1)
}

// finish gives an event its outcome.
func (p *Producer) finish(it *item, o Outcome) {
	p.release(it)
	p.mu.Lock()
	if o.Err == nil {
		p.stats.Delivered++
	} else {
		p.stats.Failed++
		if p.closed {
			p.lost++
		}
	}
	p.mu.Unlock()
	if p.config.Done != nil {
		o.Event = it.event
		p.config.Done(o)
	}
}

func (p *Producer) fail(it *item, err error) {
	p.finish(it, Outcome{Err: fmt.Errorf("publish usage event %s: %w", it.event.ID, err), Partition: -1, Offset: -1})
}

// Stats returns the counts.
func (p *Producer) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Buffered = s.Enqueued - s.Delivered - s.Failed
	return s
}

// Close accepts no more events and waits until those in the buffer have their outcome. When ctx ends before, the rest fail with ErrClosed.
// It returns when every call of Done has returned and no goroutine is left, and may be called again, with the same result. (Of a
// transport that is the caller's, a request that was given up may keep its connection for up to RequestTimeout.)
//
// The error says how many of the events that were in the buffer were not delivered.
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.in)
		p.begin()
	}
	p.mu.Unlock()
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.giveUp(context.Cause(ctx))
		<-p.ended
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost > 0 {
		return fmt.Errorf("close the producer: %d usage events were not delivered", p.lost)
	}
	return nil
}

// run is the producer's life.
func (p *Producer) run() {
	defer close(p.ended)
	p.dispatch()
	p.lanes.Wait()
	p.giveUp(nil)
	if p.transport != nil {
		p.transport.CloseIdleConnections()
		p.connections.close()
	}
}
