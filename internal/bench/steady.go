package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"tenantflow/internal/kafka"
	"tenantflow/internal/model"
)

// The steady load beside which latencies are measured.
const (
	steadyRate   = 20_000 // events a second
	steadyTime   = 20 * time.Second
	steadyLinger = 20 * time.Millisecond // from one request to a partition to the next
	steadyProbes = 50 * time.Millisecond // from one probe to the next
)

// steadyEvents makes the events of a steady load for some time, from now on.
func steadyEvents(lasting time.Duration) (*model.Generator, error) {
	total := int(lasting.Seconds() * steadyRate)
	return model.New(model.Config{Seed: 5, Count: total, Step: time.Second / steadyRate, Start: time.Now()})
}

// steadily publishes events at the steady rate. beside works at the same time; its context ends with the load.
//
// Each partition gets a request every steadyLinger, as from a producer that gathers for so long. They take turns: that all
// producers of a platform send at the same moment does not happen, and would be a load of short storms.
func (w *world) steadily(ctx context.Context, d dataset, g *model.Generator, beside func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	working, stop := context.WithCancel(ctx)
	defer stop()
	var all errgroup.Group
	all.Go(func() error {
		err := beside(working)
		if err != nil {
			cancel()
		}
		return err
	})
	all.Go(func() error {
		defer stop()
		err := w.publishSteadily(ctx, d, g)
		if err != nil {
			cancel()
		}
		return err
	})
	return all.Wait()
}

func (w *world) publishSteadily(ctx context.Context, d dataset, g *model.Generator) (err error) {
	var senders errgroup.Group
	partitions, requests := make([]int, d.partitions), make([]chan []kafkago.Record, d.partitions)
	for p := range partitions {
		partitions[p] = p
		requests[p] = make(chan []kafkago.Record, int(time.Second/steadyLinger))
		senders.Go(func() error { return w.send(ctx, d.topic(), p, requests[p]) })
	}
	total := g.Config().Count
	began := time.Now()
	err = func() error {
		defer func() {
			for _, r := range requests {
				close(r)
			}
		}()
		gathered := make([][]kafkago.Record, d.partitions)
		tick := time.NewTicker(steadyLinger / time.Duration(d.partitions))
		defer tick.Stop()
		var m model.Message
		for published, turn := 0, 0; published < total; turn++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			for due := min(total, int(time.Since(began).Seconds()*steadyRate)); published < due && g.Next(&m); published++ {
				p := kafka.Partitioner{}.Balance(kafkago.Message{Key: m.Key}, partitions...)
				gathered[p] = append(gathered[p], record(&m))
			}
			from, to := turn%d.partitions, turn%d.partitions+1
			if published == total {
				from, to = 0, d.partitions // nothing more to wait for
			}
			for p := from; p < to; p++ {
				if len(gathered[p]) == 0 {
					continue
				}
				select {
				case requests[p] <- gathered[p]:
				default:
					return fmt.Errorf("publish the load: partition %d has taken nothing for a second", p)
				}
				gathered[p] = nil
			}
		}
		return nil
	}()
	err = errors.Join(err, senders.Wait())
	if late := time.Since(began) - time.Duration(total)*time.Second/steadyRate; err == nil && late > time.Second {
		err = fmt.Errorf("the load was not steady: it took %s longer than it should", late)
	}
	return err
}

// send publishes the requests of one partition, one after the other.
func (w *world) send(ctx context.Context, topic string, partition int, requests <-chan []kafkago.Record) error {
	for records := range requests {
		res, err := w.client.Produce(ctx, &kafkago.ProduceRequest{
			Topic: topic, Partition: partition, RequiredAcks: kafkago.RequireAll, Records: kafkago.NewRecordReader(records...),
		})
		if err == nil {
			err = res.Error
		}
		if err != nil {
			return fmt.Errorf("publish the load to %s/%d: %w", topic, partition, err)
		}
	}
	return nil
}

// record is an event as a request to a broker holds it.
func record(m *model.Message) kafkago.Record {
	r := kafkago.Record{Key: kafkago.NewBytes(m.Key), Value: kafkago.NewBytes(m.Value), Headers: make([]kafkago.Header, len(m.Headers))}
	for i, h := range m.Headers {
		r.Headers[i] = kafkago.Header{Key: h.Key, Value: h.Value}
	}
	return r
}
