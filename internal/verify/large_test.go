package verify_test

import (
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
)

// A record that is too large to be read is known by its sizes and hashes, in the log as in its dead letter.
func TestVerify_LargeRecordMatchesItsLetter(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	g, err := model.New(model.Config{Seed: 4, Count: 50, Start: time.Now().Add(-6 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	in.publish(t, g, 0)
	w := enginetest.Writer(in.client)
	w.Topic, w.Compression, w.BatchBytes = in.topic, kafka.Zstd, 64<<20
	defer func() { _ = w.Close() }()
	err = w.WriteMessages(t.Context(), kafka.Message{Key: []byte("acme"), Value: make([]byte, 20<<20)}, // 16 KiB of a key are not kept
		kafka.Message{Key: make([]byte, 9<<20), Value: make([]byte, 1)})
	if err != nil {
		t.Fatal(err)
	}
	stop := in.consume(t, 2000)
	in.awaitConsumed(t)
	stop()
	in.awaitQuiet(t)
	r := in.verify(t, false)
	want(t, r, nil)
	if p := r.Partitions[0]; p.DeadLetters != 2 || p.Rows != 50 {
		t.Errorf("%+v", p)
	}
	if n := r.DeadLetters.Read; n != 2 {
		t.Errorf("%d dead letters were read", n)
	}
}
