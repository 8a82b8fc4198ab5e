package archive_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/archive"
	"tenantflow/internal/engine/enginetest"
)

// childEnv carries a crash as JSON: then the test binary is not a test but an archiver, which kills itself.
const childEnv = "ARCHIVE_CRASH_CHILD"

// A crash is where a child kills itself.
type crash struct {
	Broker, Topic, Root string
	SegmentBytes        int64

	Step archive.Step
	Nth  int32 // the time it comes by; from 1
}

func (c crash) run() error {
	_, err := archive.Run(context.Background(), archive.Config{
		Client: &kafkago.Client{Addr: kafkago.TCP(c.Broker), Transport: &kafkago.Transport{DialTimeout: enginetest.Patience}},
		Topic:  c.Topic, Root: c.Root, SegmentBytes: c.SegmentBytes,
		OnStep: enginetest.KillAt(c.Step, c.Nth),
	})
	return err
}

// crashAt runs a child. It reports whether the child has killed itself, or finished before.
func (l *topicLog) crashAt(t *testing.T, step archive.Step, nth int32) bool {
	t.Helper()
	cfg := l.config()
	return enginetest.StartChild(t, childEnv, crash{l.broker.Addr(), l.topic, l.root, cfg.SegmentBytes, step, nth}).UntilKilled(t, string(step), nil)
}

// steps are all borders.
var steps = []archive.Step{
	archive.SegmentOpened, archive.SegmentWritten, archive.SegmentSynced, archive.SegmentRenamed, archive.SegmentDone,
	archive.ManifestWritten, archive.ManifestSynced, archive.ManifestRenamed, archive.ManifestDone, archive.Removed,
}

func TestArchive_AKillAtAnyStepChangesNothing(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 2)
	// Two runs, so that the second one replaces files.
	l.grow(t, 30)
	first := *l
	first.root = t.TempDir()
	first.archive(t)
	started := files(t, first.dir())
	l.grow(t, 60)
	first.archive(t)
	want, records := files(t, first.dir()), l.logged(t)

	for _, step := range steps {
		for _, nth := range []int32{1, 2} {
			t.Run(fmt.Sprintf("%s/%d", step, nth), func(t *testing.T) {
				t.Parallel()
				l := *l
				l.root = t.TempDir()
				l.put(t, started)
				if !l.crashAt(t, step, nth) {
					t.Fatal("the child never came there")
				}
				// What is there is whole at any moment.
				l.verified(t)
				if got := l.archived(t); len(got) < 30 {
					t.Fatalf("%d records are left", len(got))
				}
				l.archive(t)
				same(t, "archive", l.archived(t), records)
				sameFiles(t, files(t, l.dir()), want)
			})
		}
	}
}

// From nothing, and killed again and again.
func TestArchive_KillsOneAfterTheOtherChangeNothing(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 2)
	l.grow(t, 80)
	undisturbed := *l
	undisturbed.root = t.TempDir()
	undisturbed.archive(t)
	kills := 0
	for i := range 3 * len(steps) {
		if l.crashAt(t, steps[i%len(steps)], int32(1+i/len(steps))) {
			kills++
		}
	}
	if kills < len(steps)-2 { // nothing is replaced, and the last one may be done before
		t.Errorf("only %d children were killed", kills)
	}
	l.archive(t)
	same(t, "archive", l.archived(t), l.logged(t))
	sameFiles(t, files(t, l.dir()), files(t, undisturbed.dir()))
}

// put makes the archive's directory of files.
func (l *topicLog) put(t testing.TB, all map[string][]byte) {
	t.Helper()
	if err := os.MkdirAll(l.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range all {
		if err := os.WriteFile(l.dir()+"/"+name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
