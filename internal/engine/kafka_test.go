package engine_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
)

// onBothBrokers runs a test on the brokers that all tests share. Topics and groups must be the test's own.
func onBothBrokers(t *testing.T, test func(t *testing.T, k *engine.Kafka)) {
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, enginetest.SharedKafka(t))
	})
	t.Run("apache", func(t *testing.T) {
		t.Parallel()
		test(t, enginetest.SharedApacheKafka(t))
	})
}

// onOwnBrokers runs a test on brokers that it may kill.
func onOwnBrokers(t *testing.T, test func(t *testing.T, k *engine.Kafka)) {
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, enginetest.Kafka(t))
	})
	t.Run("apache", func(t *testing.T) {
		t.Parallel()
		test(t, enginetest.ApacheKafka(t))
	})
}

func client(t *testing.T, k *engine.Kafka) *kafka.Client {
	t.Helper()
	transport := &kafka.Transport{DialTimeout: enginetest.Patience}
	t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(k.Addr()), Transport: transport, Timeout: enginetest.Patience}
}

func produce(t *testing.T, k *engine.Kafka, topic, value string) (int64, error) {
	t.Helper()
	resp, err := client(t, k).Produce(t.Context(), &kafka.ProduceRequest{Topic: topic, RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Time: time.Now(), Key: kafka.NewBytes([]byte("k")), Value: kafka.NewBytes([]byte(value))})})
	if err != nil {
		return 0, err
	}
	return resp.BaseOffset, resp.Error
}

// valuesOf reads all values of the topic's partition 0.
func valuesOf(t *testing.T, k *engine.Kafka, topic string) string {
	t.Helper()
	conn, err := kafka.DialLeader(t.Context(), "tcp", k.Addr(), topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(enginetest.Patience))
	first, last, err := conn.ReadOffsets()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Seek(first, kafka.SeekAbsolute); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for n := first; n < last; n++ {
		m, err := conn.ReadMessage(2 << 20)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(m.Value)
		b.WriteByte(' ')
	}
	return b.String()
}

func TestKafkaKeepsItsDataOverStopAndKill(t *testing.T) {
	t.Parallel()
	onOwnBrokers(t, func(t *testing.T, k *engine.Kafka) {
		enginetest.CreateTopic(t, k, "kept", 1)
		keepsItsData(t, k,
			func(v string) {
				if _, err := produce(t, k, "kept", v); err != nil {
					t.Fatal(err)
				}
			},
			func() string { return valuesOf(t, k, "kept") })
	})
}

func TestATopicIsNotCreatedByBeingMentioned(t *testing.T) {
	t.Parallel()
	onBothBrokers(t, func(t *testing.T, k *engine.Kafka) {
		conn, err := kafka.Dial("tcp", k.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// The request of this call asks for topics to be created.
		if _, err := conn.ReadPartitions("nobody-made-it"); !errors.Is(err, kafka.UnknownTopicOrPartition) {
			t.Errorf("asking for a topic that nobody created: %v", err)
		}
	})
}

func TestClientsOfABrokerBehindAProxyGoThroughIt(t *testing.T) {
	t.Parallel()
	k, proxy := enginetest.ApacheKafkaBehindProxy(t)
	enginetest.CreateTopic(t, k, "t", 1)
	transport := &kafka.Transport{DialTimeout: enginetest.Patience}
	defer transport.CloseIdleConnections()
	patient := enginetest.Writer(&kafka.Client{Addr: kafka.TCP(proxy.Addr()), Transport: transport})
	patient.Topic = "t"
	defer patient.Close()
	if err := patient.WriteMessages(t.Context(), kafka.Message{Value: []byte("first")}); err != nil {
		t.Fatal(err)
	}
	w := &kafka.Writer{Addr: patient.Addr, Topic: "t", RequiredAcks: kafka.RequireAll, MaxAttempts: 1, Transport: transport}
	defer w.Close()
	// The answer to the write is lost: the client does not know, the record is there.
	lost := proxy.SwallowResponse(func(request []byte) bool { return bytes.Contains(request, []byte("second")) })
	if err := w.WriteMessages(t.Context(), kafka.Message{Value: []byte("second")}); err == nil {
		t.Error("the write was answered")
	}
	within(t, "the swallowing", lost.Caught())
	if got := valuesOf(t, k, "t"); got != "first second " {
		t.Errorf("the topic holds %q", got)
	}
}
