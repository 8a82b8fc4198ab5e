package model

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
)

// ReadDeadLetters reads a dead letter topic from its beginning to its present end and counts what is in it by reason. A
// dead letter that was written twice counts once: its identity is its origin (group, topic, partition, offset).
func ReadDeadLetters(ctx context.Context, client *kafka.Client, topic string) (map[events.Reason]int64, error) {
	type origin struct {
		group, topic string
		partition    int
		offset       int64
	}
	seen := map[origin]bool{}
	counts := map[events.Reason]int64{}
	err := ReadTopic(ctx, client, topic, func(r *events.Record) error {
		letter, err := events.ParseDeadLetter(r)
		if err != nil {
			return fmt.Errorf("read the dead letter at %s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		o := origin{letter.Group, letter.Topic, letter.Partition, letter.Offset}
		if !seen[o] {
			seen[o] = true
			counts[letter.Reason]++
		}
		return nil
	})
	return counts, err
}

// ReadTopic calls take for every record that the topic has now, partition after partition.
func ReadTopic(ctx context.Context, client *kafka.Client, topic string, take func(*events.Record) error) error {
	metadata, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return fmt.Errorf("read the metadata of topic %s: %w", topic, err)
	}
	for _, t := range metadata.Topics {
		if t.Error != nil {
			return fmt.Errorf("read the metadata of topic %s: %w", topic, t.Error)
		}
		for _, p := range t.Partitions {
			if err := readPartition(ctx, client, topic, p.ID, take); err != nil {
				return fmt.Errorf("read partition %d of topic %s: %w", p.ID, topic, err)
			}
		}
	}
	return nil
}

func readPartition(ctx context.Context, client *kafka.Client, topic string, partition int, take func(*events.Record) error) error {
	answer, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topic: {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)},
	}})
	if err != nil {
		return err
	}
	bounds := answer.Topics[topic][0]
	if bounds.Error != nil {
		return bounds.Error
	}
	for offset := bounds.FirstOffset; offset < bounds.LastOffset; {
		fetched, err := client.Fetch(ctx, &kafka.FetchRequest{Topic: topic, Partition: partition, Offset: offset, MinBytes: 1, MaxBytes: 4 << 20})
		if err != nil {
			return err
		}
		if fetched.Error != nil {
			return fetched.Error
		}
		next, err := takeRecords(fetched.Records, topic, partition, offset, take)
		if err != nil {
			return err
		}
		if next == offset && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		offset = next
	}
	return nil
}

// takeRecords passes the records from the offset on and returns the offset behind the last.
func takeRecords(records kafka.RecordReader, topic string, partition int, offset int64, take func(*events.Record) error) (int64, error) {
	for {
		record, err := records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return offset, nil
		}
		if err != nil {
			return offset, err
		}
		if record.Offset < offset {
			continue // the batch begins before what was asked for
		}
		r := events.Record{Topic: topic, Partition: partition, Offset: record.Offset, Time: record.Time}
		if r.Key, err = kafka.ReadAll(record.Key); err != nil {
			return offset, err
		}
		if r.Value, err = kafka.ReadAll(record.Value); err != nil {
			return offset, err
		}
		for _, h := range record.Headers {
			r.Headers = append(r.Headers, events.Header{Key: h.Key, Value: h.Value})
		}
		if err := take(&r); err != nil {
			return offset, err
		}
		offset = record.Offset + 1
	}
}
