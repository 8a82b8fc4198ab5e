package logs

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// TallyInterval is how often a flood of like lines is summed up.
const TallyInterval = 5 * time.Second

// A Tally logs things of which there may be a hundred thousand a second. The first of a kind is logged at once; those of the next
// [TallyInterval] are counted, which allocates nothing, and then logged as one line: and so on until there are no more.
// The methods may be called from any goroutine.
type Tally[Kind comparable, Thing any] struct {
	one  func(Kind, Thing)
	many func(k Kind, n int, first Thing)

	mu     sync.Mutex
	open   map[Kind]*window[Thing]
	timer  *time.Timer // nil: no window is open
	closed bool
}

// A window is an interval of one kind.
type window[Thing any] struct {
	began time.Time
	n     int   // not logged yet
	first Thing // of them
}

// NewTally returns a tally that calls one to log a thing, and many to log that there were n of a kind, of which first was the first. They
// are called one at a time.
func NewTally[Kind comparable, Thing any](one func(Kind, Thing), many func(k Kind, n int, first Thing)) *Tally[Kind, Thing] {
	return &Tally[Kind, Thing]{one: one, many: many, open: map[Kind]*window[Thing]{}}
}

// Add logs a thing, or counts it.
func (t *Tally[Kind, Thing]) Add(k Kind, thing Thing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.open[k]; w != nil {
		if w.n++; w.n == 1 {
			w.first = thing
		}
		return
	}
	t.one(k, thing)
	if t.closed {
		return
	}
	t.open[k] = &window[Thing]{began: time.Now()}
	if t.timer == nil {
		t.timer = time.AfterFunc(TallyInterval, t.sumUp)
	}
}

// sumUp logs what was counted in windows that are over, and begins the next ones.
func (t *Tally[Kind, Thing]) sumUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.timer = nil
	now, next := time.Now(), TallyInterval
	for k, w := range t.open {
		if left := TallyInterval - now.Sub(w.began); left > 0 {
			next = min(next, left)
			continue
		}
		if w.n == 0 {
			delete(t.open, k)
			continue
		}
		t.log(k, w)
		*w = window[Thing]{began: now}
	}
	if len(t.open) > 0 {
		t.timer = time.AfterFunc(next, t.sumUp)
	}
}

func (t *Tally[Kind, Thing]) log(k Kind, w *window[Thing]) {
	switch w.n {
	case 0:
	case 1:
		t.one(k, w.first)
	default:
		t.many(k, w.n, w.first)
	}
}

// Close logs what was counted. What is added later is logged at once.
func (t *Tally[Kind, Thing]) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.timer != nil {
		t.timer.Stop()
	}
	for k, w := range t.open {
		t.log(k, w)
	}
	clear(t.open)
}

// Lines log what every partition may have to say at the same time. The first of like lines is whole; of the others in the next
// [TallyInterval] there is the number, and at debug level each of them.
type Lines struct {
	log   *slog.Logger
	tally *Tally[kind, line]
}

type kind struct{ message, why string }

type line struct {
	ctx   context.Context //nolint:containedctx // carries values for the handler only
	level slog.Level
	attrs []slog.Attr
}

// NewLines returns lines for a logger.
func NewLines(log *slog.Logger) *Lines {
	return &Lines{log: log, tally: NewTally(
		func(k kind, l line) {
			log.LogAttrs(l.ctx, l.level, k.message, l.attrs...) //nolint:sloglint // the message is the caller's constant
		},
		func(k kind, n int, l line) {
			log.LogAttrs(l.ctx, l.level, k.message, append([]slog.Attr{slog.Int("times", n), slog.Duration("in", TallyInterval)}, l.attrs...)...) //nolint:sloglint // the same
		})}
}

// Log writes a line. Lines are alike if their message and their attributes "reason", "error" and "kind" are, numbers left out.
func (l *Lines) Log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	if l.log.Enabled(ctx, slog.LevelDebug) {
		l.log.LogAttrs(ctx, level, message, attrs...) //nolint:sloglint // the same
		return
	}
	why := ""
	for i := range attrs {
		switch attrs[i].Key {
		case "reason", "error", "kind":
			why += attrs[i].Value.String() + "\n"
		}
	}
	l.tally.Add(kind{message, Alike(why)}, line{ctx, level, attrs})
}

// Close logs what was counted.
func (l *Lines) Close() { l.tally.Close() }
