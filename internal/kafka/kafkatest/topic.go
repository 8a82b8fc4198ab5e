package kafkatest

import (
	"strconv"
	"testing"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
)

// Truncate takes away what a partition holds before an offset.
func (f *Log) Truncate(t *testing.T, partition int, before int64) {
	t.Helper()
	client := f.Producer(t)
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = int32(partition), before
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic, topic.Partitions = f.Topic, append(topic.Partitions, p)
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.Topics, req.TimeoutMillis = append(req.Topics, topic), 10_000
	for _, shard := range client.RequestSharded(t.Context(), req) {
		if shard.Err != nil {
			t.Fatal(shard.Err)
		}
		for _, p := range shard.Resp.(*kmsg.DeleteRecordsResponse).Topics[0].Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Recreate deletes the topic, waits for something, and creates it again.
func (f *Log) Recreate(t *testing.T, broker *engine.Kafka, between func()) {
	t.Helper()
	res, err := f.Client.DeleteTopics(t.Context(), &kafkago.DeleteTopicsRequest{Topics: []string{f.Topic}})
	if err == nil {
		err = res.Errors[f.Topic]
	}
	if err != nil {
		t.Fatal(err)
	}
	enginetest.Await(t, "the topic is deleted", func() bool {
		meta, err := f.Client.Metadata(t.Context(), &kafkago.MetadataRequest{Topics: []string{f.Topic}})
		return err == nil && len(meta.Topics) == 1 && meta.Topics[0].Error != nil
	})
	between()
	enginetest.CreateTopic(t, broker, f.Topic, f.Partitions)
	f.RenewClient(t)
}

// RenewClient makes another client, which does not remember the topic as it was.
func (f *Log) RenewClient(t testing.TB) {
	transport := &kafkago.Transport{DialTimeout: enginetest.Patience}
	t.Cleanup(transport.CloseIdleConnections)
	// Without a time of its own the client gives the broker two seconds for a topic.
	f.Client = &kafkago.Client{Addr: kafkago.TCP(f.Brokers), Transport: transport, Timeout: enginetest.Patience}
}

// AddPartitions gives the topic more partitions, and waits until the broker says so itself.
func (f *Log) AddPartitions(t *testing.T, n int) {
	t.Helper()
	more := make([]kafkago.TopicPartitionAssignment, n-f.Partitions)
	for i := range more {
		more[i].BrokerIDs = f.BrokerIDs(t)
	}
	res, err := f.Client.CreatePartitions(t.Context(), &kafkago.CreatePartitionsRequest{
		Topics: []kafkago.TopicPartitionsConfig{{Name: f.Topic, Count: int32(n), TopicPartitionAssignments: more}}})
	if err == nil {
		err = res.Errors[f.Topic]
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Partitions = n
	conn, err := (&kafkago.Dialer{Timeout: enginetest.Patience}).DialContext(t.Context(), "tcp", f.Brokers)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // it was only asked
	enginetest.Await(t, "the broker knows the new partitions", func() bool {
		all, err := conn.ReadPartitions(f.Topic)
		return err == nil && len(all) == n
	})
}

// BrokerIDs are the brokers that a new partition may be put on.
func (f *Log) BrokerIDs(t *testing.T) []int32 {
	t.Helper()
	meta, err := f.Client.Metadata(t.Context(), &kafkago.MetadataRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return []int32{int32(meta.Brokers[0].ID)}
}

// Leaders is how many partitions have a leader, as the client knows.
func (f *Log) Leaders(t *testing.T) int {
	t.Helper()
	meta, err := f.Client.Metadata(t.Context(), &kafkago.MetadataRequest{Topics: []string{f.Topic}})
	if err != nil {
		return 0
	}
	n := 0
	for _, p := range meta.Topics[0].Partitions {
		if p.Error == nil && p.Leader.Host != "" {
			n++
		}
	}
	return n
}

// Limit sets the largest batch a topic takes.
func (f *Log) Limit(t *testing.T, topic string, size int) {
	t.Helper()
	res, err := f.Client.IncrementalAlterConfigs(t.Context(), &kafkago.IncrementalAlterConfigsRequest{Resources: []kafkago.IncrementalAlterConfigsRequestResource{{
		ResourceType: kafkago.ResourceTypeTopic, ResourceName: topic,
		Configs: []kafkago.IncrementalAlterConfigsRequestConfig{{Name: "max.message.bytes", Value: strconv.Itoa(size), ConfigOperation: kafkago.ConfigOperationSet}}}}})
	if err == nil {
		err = res.Resources[0].Error
	}
	if err != nil {
		t.Fatal(err)
	}
}

// CommitOutside sets the group's offsets as Kafka's tools do: the group has no members.
func (f *Log) CommitOutside(t testing.TB, offsets map[int]int64) {
	t.Helper()
	CommitOutside(t, f.Client, f.Group, f.Topic, offsets, "")
}

// CommitOutside sets a group's offsets by partition, with the same metadata for each, as Kafka's tools do: the group has no members.
func CommitOutside(t testing.TB, client *kafkago.Client, group, topic string, offsets map[int]int64, metadata string) {
	t.Helper()
	var commits []kafkago.OffsetCommit
	for p, offset := range offsets {
		commits = append(commits, kafkago.OffsetCommit{Partition: p, Offset: offset, Metadata: metadata})
	}
	enginetest.Await(t, "the offsets to be set", func() bool { // while the group is emptying it refuses
		res, err := client.OffsetCommit(t.Context(), &kafkago.OffsetCommitRequest{
			GroupID: group, GenerationID: -1, Topics: map[string][]kafkago.OffsetCommit{topic: commits}})
		if err != nil {
			return false
		}
		for _, p := range res.Topics[topic] {
			if p.Error != nil {
				return false
			}
		}
		return true
	})
}
