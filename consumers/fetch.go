package consumers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	fetchapi "github.com/segmentio/kafka-go/protocol/fetch"

	"tenantflow/events"
)

// fetchBytes is how much one fetch asks for. A larger answer was slower, not faster, when measured: it no longer fits
// the caches. The broker returns at least one record batch, however large.
const fetchBytes = 1 << 20

// A fetcher reads one partition of a topic. It sees what a read-committed consumer sees: no control records, and
// nothing of aborted transactions. (kafka.Client.Fetch discards the list of those, so the request is made here.)
type fetcher struct {
	client    *kafka.Client
	topic     string
	partition int

	record  events.Record // filled anew for every record
	scratch []byte        // its key and value
}

func newFetcher(client *kafka.Client, topic string, partition int) *fetcher {
	return &fetcher{client: client, topic: topic, partition: partition}
}

// fetched is what one fetch told of the partition.
type fetched struct {
	next          int64 // the offset to read from next
	records       int
	highWatermark int64
	logStart      int64
}

// fetch reads from offset on and calls each for every record, in order. The record is valid during the call only.
// Errors are kafka.Error where the broker answered with one.
func (f *fetcher) fetch(ctx context.Context, offset int64, wait time.Duration, each func(*events.Record) error) (fetched, error) {
	res, err := f.client.Transport.RoundTrip(ctx, f.client.Addr, &fetchapi.Request{
		ReplicaID:      -1,
		MaxWaitTime:    int32(wait / time.Millisecond), // #nosec G115 -- at most a few seconds
		MinBytes:       1,
		MaxBytes:       fetchBytes,
		IsolationLevel: int8(kafka.ReadCommitted),
		SessionID:      -1,
		SessionEpoch:   -1,
		Topics: []fetchapi.RequestTopic{{
			Topic: f.topic,
			Partitions: []fetchapi.RequestPartition{{
				Partition:          int32(f.partition), // #nosec G115 -- Kafka's own partition number
				CurrentLeaderEpoch: -1,
				FetchOffset:        offset,
				LogStartOffset:     -1,
				PartitionMaxBytes:  fetchBytes,
			}},
		}},
	})
	if err != nil {
		return fetched{}, fmt.Errorf("fetch %s/%d at offset %d: %w", f.topic, f.partition, offset, err)
	}
	answer, ok := res.(*fetchapi.Response)
	if !ok || len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
		return fetched{}, fmt.Errorf("fetch %s/%d at offset %d: the answer does not name the partition", f.topic, f.partition, offset)
	}
	p := &answer.Topics[0].Partitions[0]
	for _, code := range []int16{answer.ErrorCode, p.ErrorCode} {
		if code != 0 {
			return fetched{logStart: p.LogStartOffset, highWatermark: p.HighWatermark},
				fmt.Errorf("fetch %s/%d at offset %d: %w", f.topic, f.partition, offset, kafka.Error(code))
		}
	}
	got := fetched{next: offset, highWatermark: p.HighWatermark, logStart: p.LogStartOffset}
	return got, f.read(p, &got, each)
}

// read walks through the record batches of an answer.
func (f *fetcher) read(p *fetchapi.ResponsePartition, got *fetched, each func(*events.Record) error) error {
	aborted := abortedTransactions{pending: p.AbortedTransactions}
	stream, ok := p.RecordSet.Records.(*protocol.RecordStream)
	if !ok {
		return nil // nothing new
	}
	for _, batch := range stream.Records {
		switch b := batch.(type) {
		case *protocol.ControlBatch:
			if err := f.readControl(b, &aborted, got); err != nil {
				return err
			}
		case *protocol.RecordBatch:
			skip := b.Attributes.Transactional() && aborted.contains(b.ProducerID, b.BaseOffset)
			if err := f.readRecords(b.Records, skip, got, each); err != nil {
				return err
			}
		default: // message sets of the formats before 0.11
			if err := f.readRecords(b, false, got, each); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fetcher) readRecords(r protocol.RecordReader, skip bool, got *fetched, each func(*events.Record) error) error {
	for {
		rec, err := r.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read record batch of %s/%d after offset %d: %w", f.topic, f.partition, got.next, err)
		}
		// A batch may begin before the offset that was asked for.
		wanted := rec.Offset >= got.next && !skip
		if err := f.fill(rec, wanted); err != nil {
			return fmt.Errorf("read record %s/%d/%d: %w", f.topic, f.partition, rec.Offset, err)
		}
		if rec.Offset >= got.next {
			got.next = rec.Offset + 1
		}
		if wanted {
			got.records++
			if err := each(&f.record); err != nil {
				return err
			}
		}
	}
}

// fill copies a record into f.record, and gives its pages back to kafka-go's pool.
func (f *fetcher) fill(rec *protocol.Record, wanted bool) error {
	defer closeBytes(rec.Key)
	defer closeBytes(rec.Value)
	if !wanted {
		return nil
	}
	keyLen, valueLen := -1, -1
	if rec.Key != nil {
		keyLen = rec.Key.Len()
	}
	if rec.Value != nil {
		valueLen = rec.Value.Len()
	}
	need := max(keyLen, 0) + max(valueLen, 0)
	if cap(f.scratch) < need {
		f.scratch = make([]byte, 2*need)
	}
	buf := f.scratch[:need]
	r := &f.record
	r.Topic, r.Partition, r.Offset, r.Time = f.topic, f.partition, rec.Offset, rec.Time
	r.Key, r.Value = nil, nil
	if keyLen >= 0 {
		r.Key = buf[:keyLen:keyLen]
		if _, err := io.ReadFull(rec.Key, r.Key); err != nil {
			return err
		}
	}
	if valueLen >= 0 {
		r.Value = buf[max(keyLen, 0):]
		if _, err := io.ReadFull(rec.Value, r.Value); err != nil {
			return err
		}
	}
	r.Headers = r.Headers[:0]
	for _, h := range rec.Headers {
		r.Headers = append(r.Headers, events.Header{Key: h.Key, Value: h.Value})
	}
	return nil
}

func closeBytes(b protocol.Bytes) {
	if b != nil {
		_ = b.Close() // returns pages to a pool; never fails
	}
}

// readControl passes over the marker that ends a transaction. Markers are no events, but they take up an offset.
func (f *fetcher) readControl(b *protocol.ControlBatch, aborted *abortedTransactions, got *fetched) error {
	for {
		rec, err := b.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read control batch of %s/%d after offset %d: %w", f.topic, f.partition, got.next, err)
		}
		marker, err := protocol.ReadControlRecord(rec)
		if err != nil {
			return fmt.Errorf("read control record %s/%d/%d: %w", f.topic, f.partition, rec.Offset, err)
		}
		const abort = 0
		if marker.Type == abort {
			aborted.end(b.ProducerID)
		}
		if marker.Offset >= got.next {
			got.next = marker.Offset + 1
		}
	}
}

// abortedTransactions tells which record batches of an answer belong to aborted transactions. The broker lists each
// such transaction with its producer and first offset; it ends at the producer's abort marker. Source: the Kafka
// protocol guide on read-committed fetches.
type abortedTransactions struct {
	pending []fetchapi.ResponseTransaction
	open    map[int64]bool // by producer id
}

func (a *abortedTransactions) contains(producer, offset int64) bool {
	rest := a.pending[:0]
	for _, t := range a.pending {
		if t.FirstOffset > offset {
			rest = append(rest, t)
			continue
		}
		if a.open == nil {
			a.open = map[int64]bool{}
		}
		a.open[t.ProducerID] = true
	}
	a.pending = rest
	return a.open[producer]
}

func (a *abortedTransactions) end(producer int64) { delete(a.open, producer) }
