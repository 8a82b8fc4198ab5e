package kafkatest

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
)

// OnBothBrokers runs a test on the shared embedded broker and on the shared Apache Kafka.
func OnBothBrokers(t *testing.T, test func(t *testing.T, broker *engine.Kafka)) {
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

// Await waits for a channel to be closed, or to hold something.
func Await[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		t.Fatalf("%s: not within %s", what, enginetest.Patience)
		panic("unreachable")
	}
}

// A Transcript is a log that can be looked into.
type Transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write adds to it.
func (l *Transcript) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// String is what was logged so far.
func (l *Transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Logger logs to it.
func (l *Transcript) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// Has reports whether something was logged so far.
func (l *Transcript) Has(text string) bool { return strings.Contains(l.String(), text) }
