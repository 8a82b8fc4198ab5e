package kafka_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
)

func resultOf(topic string, n, size int) kafka.Result {
	return kafka.Result{Topic: topic, Key: "k", Event: &events.Envelope{ID: fmt.Sprint(n), Source: "/s", Type: "t", Time: time.Unix(0, 0), Data: fmt.Appendf(nil, "%q", strings.Repeat("x", size))}}
}

// What a topic takes is the topic's to say: the client has no limit below it, and keeps the order.
func TestResults_LargeOnesAreWrittenWhereTheyFit(t *testing.T) {
	t.Parallel()
	broker := enginetest.SharedKafka(t)
	topic := enginetest.NewTopicOn(t, broker, 1, kafkago.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: "4000000"})
	client := enginetest.KafkaClient(t, broker.Addr())
	results := kafka.NewResults(client)
	defer func() { _ = results.Close() }()
	var all []kafka.Result
	for n, size := range []int{10, 3 << 20, 10, 10, 950 << 10, 10} {
		all = append(all, resultOf(topic, n, size))
	}
	if err := results.Publish(t.Context(), all, func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	read := ""
	if err := kafka.ReadLog(t.Context(), client, topic, 0, kafka.Range{To: 6}, func(r *events.Record) error {
		e, err := events.ParseEnvelope(r)
		if err == nil {
			read += e.ID
		}
		return err
	}); err != nil || read != "012345" {
		t.Errorf("read %s, %v", read, err)
	}
}

func TestResults_TooLargeIsSaid(t *testing.T) {
	t.Parallel()
	broker := enginetest.SharedKafka(t)
	topic := enginetest.NewTopicOn(t, broker, 1, kafkago.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: "2000"})
	results := kafka.NewResults(enginetest.KafkaClient(t, broker.Addr()))
	defer func() { _ = results.Close() }()
	for _, size := range []int{5000, 65 << 20} { // the broker says so, or the client
		var large *kafka.TooLargeError
		if err := results.PublishFitting(t.Context(), []kafka.Result{resultOf(topic, 1, size)}, func(error) {}); !errors.As(err, &large) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
