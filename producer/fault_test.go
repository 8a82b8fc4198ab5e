package producer_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/producer"
)

// Connections are cut and answers are lost while many goroutines enqueue: every event has one outcome, and what was delivered is there.
func TestOutcomes_OneEachUnderRandomCuts(t *testing.T) {
	t.Parallel()
	const partitions, senders, each = 3, 4, 120
	broker := enginetest.SharedKafka(t)
	topic := enginetest.NewTopic(t, partitions)
	proxy := enginetest.Proxy(t, broker.Addr())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	p, outcomes := start(t, producer.Config{Brokers: []string{broker.Addr()}, Topic: topic, Transport: through(t, proxy),
		BufferEvents: 100, ChunkEvents: 20, Timeout: 3 * time.Second, RequestTimeout: time.Second})

	sent := make([][]producer.Event, senders)
	var sending sync.WaitGroup
	for s := range senders {
		sending.Go(func() {
			for i := range each {
				e, err := p.Enqueue(t.Context(), usage(fmt.Sprintf("company-%d", s), i))
				if err != nil {
					t.Error(err)
					return
				}
				sent[s] = append(sent[s], e)
			}
		})
	}
	stop, cutting := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(cutting)
		for {
			select {
			case <-stop:
				proxy.Refuse(false)
				return
			case <-time.After(time.Duration(random.IntN(60)) * time.Millisecond):
			}
			switch random.IntN(4) {
			case 0:
				proxy.SwallowResponse(isProduce)
			case 1:
				proxy.Refuse(true)
			case 2:
				proxy.Refuse(false)
			default:
				proxy.Cut()
			}
		}
	}()
	sending.Wait()
	err := closeIn(p, 2*time.Second) // in the midst of it
	close(stop)
	<-cutting
	s := p.Stats()
	t.Logf("close: %v; %d delivered, %d failed, %d retries", err, s.Delivered, s.Failed, s.Retries)
	if s.Enqueued != senders*each || s.Delivered+s.Failed != s.Enqueued || s.Buffered != 0 {
		t.Errorf("stats %+v do not add up", s)
	}
	inLog := rows(t, broker.Addr(), topic, partitions)
	there := ids(inLog)
	delivered := int64(0)
	for _, of := range sent {
		for _, e := range of {
			if o := outcomes.one(t, e.ID); o.Err == nil {
				delivered++
				if there[e.ID] == 0 {
					t.Errorf("event %s was delivered and is not in the log", e.ID)
				}
			}
		}
	}
	if delivered != s.Delivered || outcomes.count() != senders*each {
		t.Errorf("%d of %d outcomes are delivered, the stats have %d", delivered, outcomes.count(), s.Delivered)
	}
	checkOrder(t, inLog, outcomes)
}

// checkOrder holds the first occurrences of each company's events against their numbers. Events that failed have no place: they may be missing, or late.
func checkOrder(t *testing.T, all []row, outcomes *journal) {
	t.Helper()
	seen, last := map[string]bool{}, map[string]int64{}
	for _, r := range all {
		if seen[r.id] || outcomes.one(t, r.id).Err != nil {
			continue
		}
		seen[r.id] = true
		company := string(r.record.Key)
		if before, ok := last[company]; ok && int64(r.dataPoints) <= before {
			t.Fatalf("%s: event %d stands behind event %d", company, r.dataPoints, before)
		}
		last[company] = int64(r.dataPoints)
	}
}

// One that was killed and is started again: nothing is lost, nothing has failed, and the order stays.
func TestOrder_StaysOverBrokerRestarts(t *testing.T) {
	t.Parallel()
	const partitions, companies, each = 3, 5, 400
	broker := enginetest.Kafka(t)
	topic := enginetest.NewTopicOn(t, broker, partitions)
	p, outcomes := start(t, producer.Config{Brokers: []string{broker.Addr()}, Topic: topic, BufferEvents: 50, ChunkEvents: 10, Timeout: enginetest.Patience})
	var sending sync.WaitGroup
	for c := range companies {
		sending.Go(func() {
			for i := range each {
				if _, err := p.Enqueue(t.Context(), usage(fmt.Sprintf("company-%d", c), i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	late := 0
	for _, n := range []int{100, 900} {
		enginetest.Await(t, "some are delivered", func() bool { return outcomes.count() >= n })
		if err := broker.Kill(); err != nil {
			t.Fatal(err)
		}
		// Something has to be on its way, also where all was delivered before the kill. A full buffer is that as well.
		if _, err := p.TryEnqueue(usage("late", n)); err == nil {
			late++
		} else if !errors.Is(err, producer.ErrFull) {
			t.Fatal(err)
		}
		failed := p.Stats().Retries
		enginetest.Await(t, "a request has failed", func() bool { return p.Stats().Retries > failed })
		if err := broker.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sending.Wait()
	if err := closeIn(p, enginetest.Patience); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Delivered != int64(companies*each+late) || s.Failed != 0 {
		t.Errorf("stats %+v, want all %d delivered", s, companies*each+late)
	}
	all := rows(t, broker.Addr(), topic, partitions)
	if n := len(ids(all)); n != companies*each+late {
		t.Errorf("%d events in the log, want %d", n, companies*each+late)
	}
	checkOrder(t, all, outcomes)
}
