package archive_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/events"
	"tenantflow/internal/archive"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(childEnv); config != "" {
		os.Exit(enginetest.RunChild(config, crash.run))
	}
	enginetest.Main(m)
}

func onBothBrokers(t *testing.T, test func(t *testing.T, broker *engine.Kafka)) {
	t.Helper()
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, enginetest.SharedKafka(t))
	})
	t.Run("apache", func(t *testing.T) {
		t.Parallel()
		test(t, enginetest.SharedApacheKafka(t))
	})
}

// A topicLog is a topic of the test's own, and a directory for its archive.
type topicLog struct {
	broker     *engine.Kafka
	topic      string
	partitions int
	client     *kafkago.Client
	root       string
	made       int // records
}

func newLog(t testing.TB, broker *engine.Kafka, partitions int) *topicLog {
	t.Helper()
	l := &topicLog{broker: broker, partitions: partitions, root: t.TempDir()}
	l.topic = enginetest.NewTopicOn(t, broker, partitions, kafkago.ConfigEntry{ConfigName: "message.timestamp.type", ConfigValue: "LogAppendTime"})
	l.client = enginetest.KafkaClient(t, broker.Addr())
	return l
}

func (l *topicLog) producer(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(l.broker.Addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(l.topic),
		kgo.MetadataMinAge(50 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func (l *topicLog) produce(t testing.TB, records ...*kgo.Record) {
	t.Helper()
	client := l.producer(t)
	defer client.Close()
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// grow adds n records of some hundred bytes, which are the same in every run, to the partitions in turn.
func (l *topicLog) grow(t testing.TB, n int) {
	t.Helper()
	random := rand.New(rand.NewPCG(7, uint64(l.made)))
	var records []*kgo.Record
	for range n {
		value := make([]byte, 50+random.IntN(200))
		for i := range value {
			value[i] = "abcdefgh"[random.IntN(8)]
		}
		records = append(records, &kgo.Record{Partition: int32(l.made % l.partitions), Key: fmt.Appendf(nil, "company-%d", random.IntN(20)), Value: value,
			Headers: []kgo.RecordHeader{{Key: "ce_id", Value: fmt.Appendf(nil, "%d", l.made)}, {Key: "ce_type", Value: []byte(events.TypeUsageRecorded)}}})
		l.made++
	}
	l.produce(t, records...)
}

// deleteBefore has the log of a partition begin at an offset.
func (l *topicLog) deleteBefore(t testing.TB, partition int, offset int64) {
	t.Helper()
	if err := l.broker.DeleteRecords(t.Context(), l.topic, partition, offset); err != nil {
		t.Fatal(err)
	}
}

// recreate deletes the topic and makes it again, empty.
func (l *topicLog) recreate(t testing.TB) {
	t.Helper()
	enginetest.RecreateTopic(t, l.broker, l.client, l.topic, l.partitions, kafkago.ConfigEntry{ConfigName: "message.timestamp.type", ConfigValue: "LogAppendTime"})
	l.made = 0
}

// config has segments of some ten records, in blocks of about three.
func (l *topicLog) config() archive.Config {
	return archive.Config{Client: l.client, Topic: l.topic, Root: l.root, SegmentBytes: 2000}
}

func (l *topicLog) archive(t testing.TB, change ...func(*archive.Config)) *archive.Report {
	t.Helper()
	cfg := l.config()
	for _, c := range change {
		c(&cfg)
	}
	r, err := archive.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// dir is the archive's directory.
func (l *topicLog) dir() string { return filepath.Join(l.root, l.topic) }

func (l *topicLog) open(t testing.TB) *archive.Archive {
	t.Helper()
	a, err := archive.Open(l.root, l.topic)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// text shows all of a record, nil and empty bytes apart.
func text(r *events.Record) string {
	s := fmt.Sprintf("%s/%d@%d %d key %#v value %#v", r.Topic, r.Partition, r.Offset, r.Time.UnixMilli(), r.Key, r.Value)
	for _, h := range r.Headers {
		s += fmt.Sprintf(" %q %#v", h.Key, h.Value)
	}
	return s
}

var whole = kafka.Range{From: 0, To: 1 << 60}

// logged are the records that the topic holds.
func (l *topicLog) logged(t testing.TB) []string {
	t.Helper()
	var all []string
	for p := range l.partitions {
		if err := kafka.ReadLog(t.Context(), l.client, l.topic, p, whole, func(r *events.Record) error {
			all = append(all, text(r))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// archived are the records that the archive holds.
func (l *topicLog) archived(t testing.TB) []string {
	t.Helper()
	a := l.open(t)
	if err := a.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	var all []string
	for p := range l.partitions {
		if err := a.Read(t.Context(), p, whole, func(r *events.Record) error {
			all = append(all, text(r))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// same fails the test where two lists of records differ.
func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			show := func(l []string) string {
				if i < len(l) {
					return l[i]
				}
				return "nothing"
			}
			t.Fatalf("%s: %d records instead of %d; record %d is\n%s\nand should be\n%s", what, len(got), len(want), i, show(got), show(want))
		}
	}
}

// files are the files of a directory, by name, but for the lock.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, e := range entries {
		if e.Name() == "lock" {
			continue
		}
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// sameFiles fails the test where two directories differ.
func sameFiles(t testing.TB, got, want map[string][]byte) {
	t.Helper()
	for name, b := range got {
		if other, ok := want[name]; !ok {
			t.Errorf("%s is there and should not be", name)
		} else if !bytes.Equal(b, other) {
			t.Errorf("%s has other content", name)
		}
	}
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
}

// verified fails the test where Verify finds something.
func (l *topicLog) verified(t testing.TB) *archive.Verification {
	t.Helper()
	v, err := archive.Verify(t.Context(), l.root, l.topic, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Problems) > 0 {
		t.Fatalf("problems: %v", v.Problems)
	}
	return v
}
