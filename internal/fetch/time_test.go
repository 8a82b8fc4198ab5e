package fetch_test

import (
	"context"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/fetch"
)

func TestTheTimeIsTheBrokersWhereTheTopicSaysSo(t *testing.T) {
	t.Parallel()
	broker := enginetest.SharedApacheKafka(t)
	old := time.Now().Add(-72 * time.Hour).Truncate(time.Millisecond)
	for _, c := range []struct {
		kind   string
		broker bool
	}{{"CreateTime", false}, {"LogAppendTime", true}} {
		topic := enginetest.NewTopicOn(t, broker, 1, kafka.ConfigEntry{ConfigName: "message.timestamp.type", ConfigValue: c.kind})
		transport := &kafka.Transport{DialTimeout: enginetest.Patience}
		t.Cleanup(transport.CloseIdleConnections)
		client := &kafka.Client{Addr: kafka.TCP(broker.Addr()), Transport: transport}
		w := enginetest.Writer(client)
		w.Topic, w.BatchTimeout = topic, time.Millisecond
		t.Cleanup(func() { _ = w.Close() })
		ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
		defer cancel()
		before := time.Now().Add(-time.Second)
		if err := w.WriteMessages(ctx, kafka.Message{Value: []byte("x"), Time: old}, kafka.Message{Value: []byte("y"), Time: old}); err != nil {
			t.Fatal(err)
		}
		r := fetch.New(client, topic, 0)
		defer r.Close()
		var times []time.Time
		for offset := int64(0); len(times) < 2; {
			got, err := r.Fetch(ctx, offset, 100*time.Millisecond, func(rec *events.Record) error {
				times = append(times, rec.Time)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			offset = got.Next
		}
		for _, at := range times {
			if c.broker && at.Before(before) || !c.broker && !at.Equal(old) {
				t.Errorf("%s: %s, published at %s with %s", c.kind, at, before, old)
			}
		}
	}
}
