package producer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/internal/retry"
)

// layoutAge is how long the number of partitions is taken as known. kafka-go answers from what it knows, which it renews every few seconds.
const layoutAge = time.Second

// dispatch hands the events to the lanes of their partitions, until the producer is closed and all are handed over.
func (p *Producer) dispatch() {
	lanes := map[int]*lane{}
	var partitions []int
	var asked time.Time
	for it := range p.in {
		switch {
		case len(partitions) == 0:
			var err error
			if partitions, err = p.partitions(it); err != nil {
				p.fail(it, err)
				continue
			}
			asked = time.Now()
		case time.Since(asked) > layoutAge: // there may be more of them by now
			if known, err := p.askPartitions(p.running); err == nil {
				partitions = known
			}
			asked = time.Now()
		}
		// As Java's client by default, so that whichever program sends an event again, it meets the first one in one partition.
		id := kafka.Murmur2Balancer{}.Balance(kafka.Message{Key: it.key}, partitions...)
		l := lanes[id]
		if l == nil {
			l = &lane{producer: p, partition: id, wake: make(chan struct{}, 1)}
			lanes[id] = l
			p.lanes.Go(l.run)
		}
		l.push(it)
	}
	for _, l := range lanes {
		l.end()
	}
}

// partitions asks for the topic's partitions, in order, until the deadline of an event that waits for them.
func (p *Producer) partitions(it *item) (ids []int, err error) {
	ctx, cancel := context.WithDeadline(p.running, it.deadline)
	defer cancel()
	err = retry.Do(ctx, func() error {
		ids, err = p.askPartitions(ctx)
		return err
	}, func(err error) error {
		if ctx.Err() != nil {
			return err
		}
		p.note(err, !final(err))
		if final(err) {
			return err
		}
		return nil
	})
	if err != nil && !final(err) {
		return nil, p.overdue(err)
	}
	return ids, err
}

func (p *Producer) askPartitions(ctx context.Context) ([]int, error) {
	res, err := p.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{p.config.Topic}})
	if err != nil {
		return nil, fmt.Errorf("ask for the partitions of %s: %w", p.config.Topic, err)
	}
	for _, t := range res.Topics {
		if t.Name != p.config.Topic {
			continue
		}
		if t.Error != nil {
			return nil, fmt.Errorf("ask for the partitions of %s: %w", p.config.Topic, t.Error)
		}
		ids := make([]int, len(t.Partitions))
		for i, partition := range t.Partitions {
			ids[i] = partition.ID
		}
		slices.Sort(ids)
		if len(ids) > 0 {
			return ids, nil
		}
	}
	return nil, fmt.Errorf("ask for the partitions of %s: %w", p.config.Topic, kafka.UnknownTopicOrPartition)
}

// overdue is the error of events that are given up, where last is the last failure, if there was one.
func (p *Producer) overdue(last error) error {
	why := fmt.Errorf("%w, %s", ErrExpired, p.config.Timeout)
	if p.running.Err() != nil {
		why = fmt.Errorf("%w before it was acknowledged: %w", ErrClosed, context.Cause(p.running))
	}
	if last == nil || errors.Is(last, context.Canceled) {
		return why
	}
	return fmt.Errorf("%w; last: %w", why, last)
}

// note keeps the error of a request, and counts it if it will be sent again.
func (p *Producer) note(err error, again bool) {
	p.mu.Lock()
	if again {
		p.stats.Retries++
	}
	p.stats.LastError, p.stats.LastErrorAt = err, time.Now()
	p.mu.Unlock()
}

// A lane is the way to one partition. It has one request under way at a time, which keeps the order.
type lane struct {
	producer  *Producer
	partition int
	last      error // of the last request; nil if that succeeded

	wake    chan struct{} // has an element after a push or the end
	mu      sync.Mutex
	waiting []*item
	ended   bool
}

func (l *lane) push(it *item) {
	l.mu.Lock()
	l.waiting = append(l.waiting, it)
	l.mu.Unlock()
	l.signal()
}

func (l *lane) end() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.signal()
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) run() {
	for {
		chunk, more := l.take()
		switch {
		case len(chunk) > 0:
			l.deliver(chunk)
		case more:
			<-l.wake
		default:
			return
		}
	}
}

// take removes the next chunk: what waits, as far as one request takes it. More is false when nothing will come.
func (l *lane) take() (chunk []*item, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, size := 0, int64(0)
	for n < len(l.waiting) && n < l.producer.config.ChunkEvents {
		if size += l.waiting[n].size; n > 0 && size > l.producer.config.ChunkBytes {
			break
		}
		n++
	}
	chunk = slices.Clone(l.waiting[:n])
	l.waiting = slices.Delete(l.waiting, 0, n)
	return chunk, !l.ended || n > 0
}

// deliver sends a chunk until every event of it has its outcome, in order.
func (l *lane) deliver(chunk []*item) {
	pauses := retry.New()
	for {
		if chunk = l.expire(chunk); len(chunk) == 0 {
			return
		}
		base, err := l.send(chunk)
		switch l.last = err; {
		case err == nil:
			for i, it := range chunk {
				l.producer.finish(it, Outcome{Partition: l.partition, Offset: base + int64(i)})
			}
			return
		case refused(err) && len(chunk) > 1:
			l.producer.note(err, true)
			// The first half has its outcome before the second is sent: the order stays.
			half := len(chunk) / 2
			l.deliver(chunk[:half])
			l.deliver(chunk[half:])
			return
		case refused(err) || final(err):
			l.producer.note(err, false)
			for _, it := range chunk {
				l.producer.fail(it, err)
			}
			return
		}
		if l.producer.running.Err() == nil {
			l.producer.note(err, true)
			_ = pauses.Wait(l.producer.running) // its end is seen above
		}
	}
}

// expire fails the events whose time is over, and all of them when the producer gives up. The rest is returned.
func (l *lane) expire(chunk []*item) []*item {
	now, over := time.Now(), l.producer.running.Err() != nil
	n := 0
	for n < len(chunk) && (over || now.After(chunk[n].deadline)) {
		n++ // deadlines are in the order of the buffer
	}
	for _, it := range chunk[:n] {
		l.producer.fail(it, l.producer.overdue(l.last))
	}
	return chunk[n:]
}

// send publishes a chunk in one request and returns the offset of its first event.
func (l *lane) send(chunk []*item) (base int64, err error) {
	p := l.producer
	records := make([]kafka.Record, len(chunk))
	for i, it := range chunk {
		records[i] = kafka.Record{Key: kafka.NewBytes(it.key), Value: kafka.NewBytes(it.value), Headers: it.headers}
	}
	res, err := p.client.Produce(p.running, &kafka.ProduceRequest{
		Topic: p.config.Topic, Partition: l.partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
	})
	if err == nil {
		err = res.Error
		for i, why := range res.RecordErrors {
			if err != nil && i == 0 && len(chunk) == 1 {
				err = fmt.Errorf("%w: %w", err, why)
			}
		}
	}
	if err != nil {
		return 0, fmt.Errorf("send %d events to %s/%d: %w", len(chunk), p.config.Topic, l.partition, err)
	}
	return res.BaseOffset, nil
}
