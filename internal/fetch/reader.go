// Package fetch reads the log of a Kafka partition, without a consumer group and without an allocation per record.
//
// It speaks one request of Kafka's protocol, Fetch, and leaves everything else - metadata, TLS, SASL, codecs - to
// kafka-go. It exists because reading is the hot path of the service: kafka-go's own client allocates every header of
// every record, and its Conn does not check record batches against their checksum. What a read-committed consumer must
// not see, it does not show: control records, and records of aborted transactions.
//
// Compressed batches are decompressed as a stream, so a batch may hold any number of bytes. What is in memory of one is at
// most a record of LargestRecord bytes, and what its codec needs: 32 KiB for gzip, blocks of at most 4 MiB for lz4, the
// window of a zstd frame (Kafka's own producer: 2 MiB at the default level, 8 MiB at level 19), the whole block for
// snappy, which has no window; a block holds at most 22 times its compressed bytes. Reader.Claim bounds what all readers
// together use of that.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
)

// MaxBytes is how much one fetch asks for. The broker sends at least one record batch, however large.
const MaxBytes = 1 << 20

// LargestRecord is the largest record that is shown with its bytes: key, value and headers, as they are encoded, with 40
// bytes for each header. Of a larger one it shows sizes and hashes, see events.Record.Large. It is far above what brokers
// take by default (1 MiB, compressed), and small beside the memory budget of a consumer.
const LargestRecord = 8 << 20

// A Reader reads one partition. It has one connection, to the partition's leader, and is for one goroutine.
type Reader struct {
	// MinBytes is how much the broker gathers before it answers, if that does not take longer than the wait. 0: whatever
	// there is.
	MinBytes int

	// MaxBytes is how much the broker sends at most, or one record batch, however large. 0, and what is more: MaxBytes.
	MaxBytes int

	// Uncommitted shows the records of transactions that are open as well, and with them those of aborted ones.
	Uncommitted bool

	// Claim, if set, is called before more than a mebibyte is used to decompress a batch, with the number of bytes. Release
	// is called when they are not needed any more. An error ends the fetch and is returned as it is.
	Claim func(bytes int64) (release func(), err error)

	// RecordBytes is how many bytes the record at hand holds: key, value and headers.
	RecordBytes int

	client    *kafka.Client
	topic     string
	partition int

	conn    *conn
	keys    names         // header names seen so far
	record  events.Record // overwritten by every record
	scratch *buffer       // what the record at hand was decompressed to

	// Of the batch at hand: its first offset, its first timestamp, and when the broker appended it, in milliseconds; 0
	// where the topic keeps the producers' times.
	base, first, appended int64

	last   Mark      // the last record shown
	proven time.Time // when the log held it, or records behind it
}

// New returns a reader that connects when it first fetches. The client's Transport must be a *kafka.Transport or nil.
func New(client *kafka.Client, topic string, partition int) *Reader {
	return &Reader{client: client, topic: topic, partition: partition}
}

// Close closes the connection. The reader may be used again.
func (r *Reader) Close() {
	if r.conn != nil {
		r.conn.close()
		r.conn = nil
	}
}

// A Result is what a fetch returned of the partition.
type Result struct {
	Next          int64 // the offset to read from next
	Records       int   // shown to the caller
	HighWatermark int64 // the end of the log, as far as it is replicated
	LastStable    int64 // the end of what can be read: where the first open transaction begins, or the high watermark
	Last          Mark  // the last record shown, if any
}

// Fetch reads from offset on and calls each for every record, in order. The record and its bytes are valid during the
// call only. An error of each ends the fetch and is returned as it is. When there is nothing new, Fetch waits for it, up
// to wait.
//
// Errors: a kafka.Error where the broker answered with one (OffsetOutOfRange above all), a *CorruptError where the
// bytes are not what the broker stored, a *ChangedError where the log does not hold the record any more that was shown
// last, and otherwise those of the connection. After any error the next Fetch asks for the partition's leader and connects
// again. With every new connection, and before it shows records after a while without any, it looks whether the log still
// holds the record that it has shown last.
func (r *Reader) Fetch(ctx context.Context, offset int64, wait time.Duration, each func(*events.Record) error) (Result, error) {
	fail := func(err error) (Result, error) {
		var claim *claimError
		if errors.As(err, &claim) {
			return Result{Next: offset}, claim.err // the connection is as good as before
		}
		r.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Result{Next: offset}, fmt.Errorf("fetch %s/%d at offset %d: %w", r.topic, r.partition, offset, err)
	}
	if r.conn == nil {
		var err error
		if r.conn, err = r.connect(ctx); err == nil {
			err = r.compare(ctx)
		}
		if err != nil {
			return fail(err)
		}
	}
	most := MaxBytes
	if r.MaxBytes > 0 {
		most = min(most, r.MaxBytes)
	}
	body, err := r.conn.fetch(ctx, request{r.topic, r.partition, offset, wait, min(r.MinBytes, most), most, r.Uncommitted})
	if err != nil {
		return fail(err)
	}
	defer body.release()
	answered := time.Now() // the caller may take its time with the records
	answer, err := parseAnswer(body.bytes)
	if err != nil {
		return fail(err)
	}
	if answer.code != 0 {
		return fail(kafka.Error(answer.code))
	}
	defer r.releaseScratch()
	if len(answer.records) > 0 && time.Since(r.proven) > doubt {
		if err := r.compare(ctx); err != nil {
			return fail(err)
		}
	}
	got := Result{Next: offset, HighWatermark: answer.highWatermark, LastStable: answer.lastStable}
	var eachErr error
	err = r.walk(answer, &got, func(rec *events.Record) error {
		eachErr = each(rec)
		return eachErr
	})
	switch {
	case eachErr != nil:
		return got, eachErr // the connection is as good as before
	case err != nil:
		return fail(err)
	}
	if got.Records > 0 {
		r.last, r.proven = got.Last, answered
	}
	return got, nil
}

// connect finds the leader of the partition and connects to it.
func (r *Reader) connect(ctx context.Context) (*conn, error) {
	res, err := r.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{r.topic}})
	if err != nil {
		return nil, fmt.Errorf("look up the leader: %w", err)
	}
	for _, t := range res.Topics {
		if t.Name != r.topic {
			continue
		}
		if t.Error != nil {
			return nil, t.Error
		}
		for _, p := range t.Partitions {
			if p.ID != r.partition {
				continue
			}
			if p.Leader.Host == "" {
				return nil, kafka.LeaderNotAvailable
			}
			transport, ok := r.client.Transport.(*kafka.Transport)
			if !ok && r.client.Transport != nil {
				return nil, fmt.Errorf("connect to the leader: a transport of type %T tells no TLS and SASL settings", r.client.Transport)
			}
			if transport == nil {
				transport = &kafka.Transport{}
			}
			return dial(ctx, transport, net.JoinHostPort(p.Leader.Host, strconv.Itoa(p.Leader.Port)))
		}
	}
	return nil, kafka.UnknownTopicOrPartition
}

// A CorruptError says that bytes from the broker are not a valid record batch.
type CorruptError struct {
	Offset int64 // of the batch, if known
	Err    error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("record batch at offset %d is corrupt: %v", e.Offset, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

var errShort = errors.New("it ends too early")
