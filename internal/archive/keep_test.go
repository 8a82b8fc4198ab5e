package archive_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/archive"
	"tenantflow/internal/engine/enginetest"
)

// A keeper is a process that keeps an archive up.
type keeper struct {
	registry *prometheus.Registry
	log      transcript
	stop     func()
}

// A transcript is a log that can be looked into.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *transcript) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *topicLog) keep(t *testing.T, change ...func(*archive.Config)) *keeper {
	t.Helper()
	k := &keeper{registry: prometheus.NewRegistry()}
	cfg := l.config()
	for _, c := range change {
		c(&cfg)
	}
	cfg.Logger = slog.New(slog.NewTextHandler(&k.log, nil))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- archive.Keep(ctx, archive.Keeping{Config: cfg, Interval: 50 * time.Millisecond, Metrics: archive.NewMetrics(k.registry)})
	}()
	k.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("keeping ended: %v", err)
		}
	})
	t.Cleanup(k.stop)
	return k
}

// metric is the value of a metric of the topic; -1: it is not there.
func (k *keeper) metric(t *testing.T, name, topic string) float64 {
	t.Helper()
	families, err := k.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "tenantflow_archive_"+name && m.GetLabel()[0].GetValue() == topic {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

func TestKeep_ArchivesWhatComes(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 2)
	l.grow(t, 20)
	began := float64(time.Now().Unix())
	k := l.keep(t)
	total := func(n float64) func() bool { return func() bool { return k.metric(t, "records_total", l.topic) == n } }
	enginetest.Await(t, "the first records are archived", total(20))
	l.grow(t, 30)
	enginetest.Await(t, "the next ones are archived", total(50))
	for name, ok := range map[string]func(float64) bool{
		"last_success_timestamp_seconds": func(v float64) bool { return v >= began },
		"up_to_timestamp_seconds":        func(v float64) bool { return v >= began },
		"interval_seconds":               func(v float64) bool { return v == 0.05 },
		"failures_total":                 func(v float64) bool { return v == 0 },
		"retention_seconds":              func(v float64) bool { return v == 7*24*3600 }, // the brokers' default
	} {
		enginetest.Await(t, name, func() bool { return ok(k.metric(t, name, l.topic)) })
	}
	k.stop()
	same(t, "archive", l.archived(t), l.logged(t))
}

func TestKeep_OneOfTwoWorksAndTheOtherTakesOver(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 1)
	l.grow(t, 10)
	l.archive(t)
	l.grow(t, 10)
	inside, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	a := l.keep(t, func(c *archive.Config) {
		c.OnStep = func(s archive.Step) {
			if s == archive.SegmentOpened {
				once.Do(func() { close(inside); <-leave })
			}
		}
	})
	<-inside
	b := l.keep(t)
	enginetest.Await(t, "the second one shows what is archived", func() bool { return b.metric(t, "up_to_timestamp_seconds", l.topic) > 0 })
	if n := b.metric(t, "last_success_timestamp_seconds", l.topic); n != 0 {
		t.Errorf("the second one says it succeeded at %v", n)
	}
	close(leave)
	enginetest.Await(t, "the first one has archived", func() bool { return a.metric(t, "records_total", l.topic) == 10 })
	a.stop()
	l.grow(t, 5)
	enginetest.Await(t, "the second one goes on", func() bool { return b.metric(t, "last_success_timestamp_seconds", l.topic) > 0 })
	b.stop()
	if n := a.metric(t, "failures_total", l.topic) + b.metric(t, "failures_total", l.topic); n != 0 {
		t.Errorf("%v failures were counted", n)
	}
}

func TestKeep_CountsFailuresAndGoesOn(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 1)
	l.grow(t, 10)
	l.archive(t)
	l.grow(t, 10)
	l.deleteBefore(t, 0, 15)
	k := l.keep(t)
	enginetest.Await(t, "failures are counted", func() bool { return k.metric(t, "failures_total", l.topic) >= 2 })
	if said := k.log.String(); !strings.Contains(said, "offsets 10 to 14") || !strings.Contains(said, "--accept-gap") {
		t.Errorf("the log says: %s", said)
	}
	if n := k.metric(t, "last_success_timestamp_seconds", l.topic); n != 0 {
		t.Errorf("it succeeded at %v", n)
	}
	// What an operator accepts elsewhere is enough.
	enginetest.Await(t, "the gap is accepted", func() bool {
		cfg := l.config()
		cfg.AcceptGap = true
		_, err := archive.Run(t.Context(), cfg)
		return err == nil
	})
	enginetest.Await(t, "it goes on", func() bool { return k.metric(t, "last_success_timestamp_seconds", l.topic) > 0 })
}
