package topic_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/topic"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// onBothBrokers runs a test on the embedded broker and on Apache Kafka. Its topics begin with the prefix.
func onBothBrokers(t *testing.T, test func(t *testing.T, client *kafka.Client, prefix string)) {
	t.Parallel()
	for name, broker := range map[string]func(testing.TB) *engine.Kafka{
		"embedded": enginetest.SharedKafka,
		"apache":   enginetest.SharedApacheKafka,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			transport := &kafka.Transport{DialTimeout: enginetest.Patience}
			t.Cleanup(transport.CloseIdleConnections)
			test(t, &kafka.Client{Addr: kafka.TCP(broker(t).Addr()), Transport: transport, Timeout: enginetest.Patience}, strings.ReplaceAll(t.Name(), "/", ".")+".")
		})
	}
}

func TestEveryInputHasADeadLetterTopicThatTakesItsLargestEvent(t *testing.T) {
	t.Parallel()
	got := map[string]string{}
	for _, topic := range topic.All(topic.Settings{Prefix: "eu.", Partitions: 3, Replication: 3, MaxMessageBytes: 5000}) {
		got[topic.Name] = fmt.Sprint(topic.Partitions, topic.Replication, topic.Config)
	}
	want := map[string]string{
		"eu.usage.events":            "3 3 map[cleanup.policy:delete max.message.bytes:5000 message.timestamp.type:LogAppendTime min.insync.replicas:2 retention.ms:604800000]",
		"eu.usage.events.dlq":        "3 3 map[cleanup.policy:delete max.message.bytes:70536 message.timestamp.type:LogAppendTime min.insync.replicas:2 retention.ms:31536000000]",
		"eu.company.config":          "3 3 map[cleanup.policy:compact max.message.bytes:5000 message.timestamp.type:LogAppendTime min.insync.replicas:2]",
		"eu.subscription.results":    "3 3 map[cleanup.policy:delete max.message.bytes:5000 message.timestamp.type:LogAppendTime min.insync.replicas:2 retention.ms:2592000000]",
		"eu.subscription.events.dlq": "3 3 map[cleanup.policy:delete max.message.bytes:70536 message.timestamp.type:LogAppendTime min.insync.replicas:2 retention.ms:31536000000]",
	}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s: %s\nwant %s", name, got[name], w)
		}
	}
	if len(got) != 15 {
		t.Errorf("%d topics, want 11 and 4 for dead letters", len(got))
	}
}

func TestMissingTopicsAreCreatedOnceAndAreAsTheyShouldBe(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, client *kafka.Client, prefix string) {
		topics := topic.All(topic.Settings{Prefix: prefix, Partitions: 2})
		for _, want := range []topic.State{topic.Created, topic.Exists} {
			reports, err := topic.Ensure(t.Context(), client, topics)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range reports {
				if r.Topic != topics[i].Name || r.State != want || r.Partitions != 2 || r.Replication != 1 || r.Problems != nil || r.Notes != nil {
					t.Errorf("want %s: %+v", want, r)
				}
			}
		}
		limits, err := topic.MaxMessageBytes(t.Context(), client, prefix+"usage.events", prefix+"usage.events.dlq")
		if err != nil {
			t.Fatal(err)
		}
		if limits[prefix+"usage.events"] != 1<<20 || limits[prefix+"usage.events.dlq"] != 1<<20+64<<10 {
			t.Errorf("limits: %v", limits)
		}
	})
}

// A broker that was restarted has closed the connections that a client has open, which the client finds out when it uses them.
func TestSettingsAreReadOverAConnectionThatWasClosed(t *testing.T) {
	t.Parallel()
	proxy, err := engine.NewProxy(enginetest.SharedKafka(t).Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	transport := &kafka.Transport{DialTimeout: enginetest.Patience, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, proxy.Addr())
	}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &kafka.Client{Addr: kafka.TCP(proxy.Addr()), Transport: transport, Timeout: enginetest.Patience}
	name := enginetest.NewTopicOn(t, enginetest.SharedKafka(t), 1)
	for range 3 {
		if limits, err := topic.MaxMessageBytes(t.Context(), client, name); err != nil || limits[name] == 0 {
			t.Errorf("%v, %v", limits, err)
		}
		proxy.Cut()
	}
}

func TestATopicThatExistsIsReportedAndNotChanged(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, client *kafka.Client, prefix string) {
		made, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
			{Topic: prefix + "usage.events", NumPartitions: 3, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{
				{ConfigName: "cleanup.policy", ConfigValue: "compact"},
				{ConfigName: "max.message.bytes", ConfigValue: "5000000"},
				{ConfigName: "retention.ms", ConfigValue: "1000"},
			}},
			{Topic: prefix + "usage.events.dlq", NumPartitions: 8, ReplicationFactor: 1},
			{Topic: prefix + "company.config", NumPartitions: 8, ReplicationFactor: 1},
		}})
		if err != nil || errors.Join(made.Errors[prefix+"usage.events"], made.Errors[prefix+"usage.events.dlq"], made.Errors[prefix+"company.config"]) != nil {
			t.Fatal(err, made)
		}
		check := func(reports []topic.Report) {
			t.Helper()
			all := map[string]topic.Report{}
			for _, r := range reports {
				all[strings.TrimPrefix(r.Topic, prefix)] = r
			}
			for name, words := range map[string][]string{
				"usage.events":     {"share a key", "3 partitions", "retention.ms is 1000", "CreateTime"},
				"usage.events.dlq": {"should be 5065536"},
				"company.config":   {"should be compact"},
			} {
				r := all[name]
				said := strings.Join(slices.Concat(r.Problems, r.Notes), "\n")
				for _, word := range words {
					if r.State != topic.Wrong || !strings.Contains(said, word) {
						t.Errorf("%s is %s, nothing about %q: %s", name, r.State, word, said)
					}
				}
			}
			if r := all["usage.events"]; r.Partitions != 3 {
				t.Errorf("usage.events has %d partitions now", r.Partitions)
			}
		}
		topics := topic.All(topic.Settings{Prefix: prefix})
		for range 2 {
			reports, err := topic.Ensure(t.Context(), client, topics)
			if err != nil {
				t.Fatal(err)
			}
			check(reports)
		}
	})
}

func TestInspectingCreatesNothing(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, client *kafka.Client, prefix string) {
		topics := topic.All(topic.Settings{Prefix: prefix})
		for range 2 {
			reports, err := topic.Inspect(t.Context(), client, topics)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range reports {
				if r.State != topic.Missing || r.Partitions != 0 {
					t.Errorf("%+v", r)
				}
			}
		}
		if _, err := topic.MaxMessageBytes(t.Context(), client, prefix+"usage.events"); !errors.Is(err, kafka.UnknownTopicOrPartition) {
			t.Errorf("size of a topic that is not there: %v", err)
		}
	})
}
