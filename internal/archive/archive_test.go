package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/archive"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
)

func TestArchive_HoldsEveryRecordAsItIs(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		l := newLog(t, broker, 3)
		header := func(key string, value []byte) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: value} }
		l.produce(t,
			&kgo.Record{Value: []byte("no key")},
			&kgo.Record{Key: []byte{}, Value: []byte("an empty key")},
			&kgo.Record{Key: []byte("a tombstone")},
			&kgo.Record{Key: []byte("no bytes"), Value: []byte{}},
			&kgo.Record{Key: []byte{0, 0xff}, Value: []byte("\xfe\xff not UTF-8"), Headers: []kgo.RecordHeader{header("a", nil), header("a", []byte{}), header("", []byte("x")), header("a", []byte("y"))}},
			&kgo.Record{Key: []byte("large"), Value: bytes.Repeat([]byte("0123456789abcdef"), 50_000)},
			&kgo.Record{Partition: 1, Key: []byte("one"), Value: []byte("alone")},
		)
		// Transactions: an aborted one, and markers between the records and at the end.
		for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryAbort} {
			client := l.producer(t, kgo.TransactionalID(fmt.Sprintf("%s-%d", l.topic, i)))
			if err := client.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := client.ProduceSync(t.Context(), &kgo.Record{Key: []byte("t"), Value: fmt.Appendf(nil, "transaction %d", i)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := client.EndTransaction(t.Context(), end); err != nil {
				t.Fatal(err)
			}
		}
		l.grow(t, 100)
		var want []string
		// Apache Kafka answers that a transaction has ended before the log says so, and until then nothing behind it can be read.
		enginetest.Await(t, "the transactions to have ended", func() bool { want = l.logged(t); return len(want) >= 7+2+100 })
		if len(want) != 7+2+100 {
			t.Fatalf("%d records in the log", len(want))
		}
		r := l.archive(t)
		same(t, "archive", l.archived(t), want)
		if r.Records != int64(len(want)) || time.Since(r.UpTo) > enginetest.Patience {
			t.Errorf("the report says %d records up to %s", r.Records, r.UpTo)
		}
		ends, err := kafka.Ends(t.Context(), l.client, l.topic)
		if err != nil {
			t.Fatal(err)
		}
		v := l.verified(t)
		for p, end := range ends {
			if v.Partitions[p].To != end.To {
				t.Errorf("partition %d is archived up to %d, and the log ends at %d", p, v.Partitions[p].To, end.To)
			}
		}
		if broker.Kind() == engine.Apache && v.ClusterID == "" {
			t.Error("the cluster's id is not in the manifest")
		}
		if again := l.archive(t); again.Records != 0 || again.Bytes != 0 {
			t.Errorf("a second run has read %d records and written %d bytes", again.Records, again.Bytes)
		}
	})
}

func TestArchive_DependsOnTheLogAlone(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		l := newLog(t, broker, 3)
		for _, n := range []int{1, 2, 40, 0, 100, 1, 300} {
			l.grow(t, n)
			l.archive(t)
		}
		many := files(t, l.dir())
		same(t, "archive", l.archived(t), l.logged(t))
		root := l.root
		l.root = t.TempDir()
		l.archive(t)
		sameFiles(t, many, files(t, l.dir()))
		if len(many) < 10 {
			t.Errorf("only %d files", len(many))
		}
		l.root = root
		l.verified(t)
	})
}

func TestArchive_AnOpenTransactionIsNotArchivedYet(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 1)
	l.grow(t, 5)
	client := l.producer(t, kgo.TransactionalID(l.topic))
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Value: []byte("open")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	l.grow(t, 3)
	if r := l.archive(t); r.Partitions[0].To != 5 || r.Records != 5 {
		t.Fatalf("with an open transaction: %+v", r)
	}
	if err := client.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	l.archive(t)
	same(t, "archive", l.archived(t), l.logged(t))
}

func TestArchive_FromAndToAreTimes(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 2)
	var borders []time.Time
	for range 3 {
		l.grow(t, 20)
		borders = append(borders, l.after(t))
	}
	r := l.archive(t, func(c *archive.Config) { c.From, c.To = borders[0], borders[1] })
	if want := l.logged(t); r.Records != 20 || r.Partitions[0].From != 10 || r.Partitions[0].To != 20 {
		t.Fatalf("%+v", r)
	} else {
		same(t, "the middle", l.archived(t), append(append([]string{}, want[10:20]...), want[40:50]...))
	}
	for _, c := range []struct {
		from time.Time
		says string
	}{{borders[0].Add(-time.Hour), "can't be continued to the front"}, {borders[2], "would be missing"}} {
		cfg := l.config()
		cfg.From = c.from
		_, err := archive.Run(t.Context(), cfg)
		if refused := (*archive.RefusedError)(nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("from %s: %v", c.from, err)
		}
	}
	if r := l.archive(t, func(c *archive.Config) { c.From = borders[0] }); r.Records != 20 {
		t.Errorf("the rest are %d records", r.Records)
	}
}

// after is a time after all records and before those to come, in whole milliseconds.
func (l *topicLog) after(t testing.TB) time.Time {
	t.Helper()
	at := time.Now().Truncate(time.Millisecond).Add(2 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool { return time.Now().After(at.Add(2 * time.Millisecond)) }); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestArchive_RefusesATopicThatWasRecreated(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for name, grown := range map[string]int{"shorter": 10, "as long": 40, "longer": 100, "empty": 0} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				l := newLog(t, broker, 2)
				l.grow(t, 40)
				l.archive(t)
				before := files(t, l.dir())
				l.recreate(t)
				l.made = 1_000_000 // other records
				l.grow(t, grown)
				var err error
				enginetest.Await(t, "the new topic to have leaders", func() bool {
					_, err = archive.Run(t.Context(), l.config())
					return !errors.Is(err, kafkago.NotLeaderForPartition)
				})
				if refused := (*archive.RefusedError)(nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), "deleted and created again") {
					t.Errorf("got %v", err)
				}
				sameFiles(t, files(t, l.dir()), before)
			})
		}
	})
}

func TestArchive_NamesAGapAndGoesOnWhenItIsAccepted(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		l := newLog(t, broker, 2)
		l.grow(t, 60)
		l.archive(t)
		l.grow(t, 60)
		all := l.logged(t)
		before := files(t, l.dir())
		l.deleteBefore(t, 0, 45)
		_, err := archive.Run(t.Context(), l.config())
		if refused := (*archive.RefusedError)(nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), l.topic+"/0: offsets 30 to 44") || !strings.Contains(err.Error(), "--accept-gap") {
			t.Fatalf("got %v", err)
		}
		sameFiles(t, files(t, l.dir()), before)

		accept := func(c *archive.Config) { c.AcceptGap = true }
		if r := l.archive(t, accept); r.Partitions[0].Missing != 15 || r.Partitions[1].Missing != 0 {
			t.Errorf("the report says %+v", r.Partitions)
		}
		want := append(append([]string{}, all[:30]...), all[45:]...)
		same(t, "archive", l.archived(t), want)
		if v := l.verified(t); len(v.Notes) != 1 || !strings.Contains(v.Notes[0], "offsets 30 to 44 are not in the archive") {
			t.Errorf("notes: %q", v.Notes)
		}
		// It goes on behind the gap, and no file holds records of both sides.
		l.grow(t, 20)
		l.archive(t)
		same(t, "archive", l.archived(t), append(append([]string{}, all[:30]...), l.logged(t)...))
		l.verified(t)
	})
}

func TestArchive_RetentionWhileItIsWrittenIsAnError(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 1)
	random := rand.New(rand.NewPCG(1, 1))
	for range 10 { // more than one fetch brings
		value := make([]byte, 500_000)
		for i := range value {
			value[i] = byte(random.Uint32())
		}
		l.produce(t, &kgo.Record{Value: value})
	}
	cut := false
	cfg := l.config()
	cfg.OnStep = func(s archive.Step) {
		if s == archive.SegmentDone && !cut {
			cut = true
			l.deleteBefore(t, 0, 8)
		}
	}
	_, err := archive.Run(t.Context(), cfg)
	if refused := (*archive.RefusedError)(nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), "while the archive was written") {
		t.Fatalf("got %v", err)
	}
	l.verified(t)
}

func TestArchive_HasOneWriter(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 1)
	l.grow(t, 10)
	inside, leave := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	cfg := l.config()
	cfg.OnStep = func(s archive.Step) {
		if s == archive.SegmentOpened {
			close(inside)
			<-leave
		}
	}
	go func() {
		_, err := archive.Run(context.WithoutCancel(t.Context()), cfg)
		first <- err
	}()
	<-inside
	_, err := archive.Run(t.Context(), l.config())
	var locked *archive.LockedError
	if !errors.As(err, &locked) || !strings.Contains(err.Error(), "process ") {
		t.Errorf("the second one: %v", err)
	}
	close(leave)
	if err := <-first; err != nil {
		t.Error(err)
	}
	l.archive(t)
	same(t, "archive", l.archived(t), l.logged(t))
}

func TestArchive_CanBeReadWhileItIsContinued(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 1)
	l.grow(t, 25)
	l.archive(t)
	want := l.logged(t)
	a := l.open(t)
	var got []string
	err := a.Read(t.Context(), 0, a.Bounds()[0], func(r *events.Record) error {
		if got = append(got, text(r)); len(got) == 3 { // the last file is not open yet
			l.grow(t, 60)
			l.archive(t)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "what was open", got, want)
}

func TestArchive_OfAnotherTopicIsRefused(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 1)
	l.grow(t, 5)
	l.archive(t)
	if _, err := archive.Open(l.root, "other.events"); err == nil || !strings.Contains(err.Error(), "no archive of topic other.events, but of "+l.topic) {
		t.Errorf("an archive that is not there: %v", err)
	}
	if _, err := archive.Open(t.TempDir(), l.topic); err == nil || !strings.Contains(err.Error(), "holds no archive") {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := archive.Open(l.root, "../"+filepath.Base(l.root)); err == nil || !strings.Contains(err.Error(), "not the name of a topic") {
		t.Errorf("a path: %v", err)
	}
}

func TestArchive_ThatCantBeWrittenIsAnError(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 1)
	l.root = "/proc/no-such-directory"
	if _, err := archive.Run(t.Context(), l.config()); err == nil {
		t.Error("it was written")
	}
}
