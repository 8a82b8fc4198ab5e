package logs

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Reminder is how often a trouble that lasts is said again.
	Reminder = time.Minute
	// Rest is how long after a line about a trouble its return is not worth another one: what fails and works in turns is one
	// trouble.
	Rest = 10 * time.Second
	// mostRecent is how many texts a message has lines for within Rest. With more than that, the texts have something in them that
	// differs each time; the rest are counted.
	mostRecent = 5
	// mostKept bounds the texts that an episode has lines for, but for its reminders.
	mostKept = 200
)

// A Trouble is something that is in the way and is tried again.
type Trouble struct {
	Level   slog.Level // of its lines; 0 is Info
	Message string     // what the process does about it; one for each call site
	Of      string     // who has it: a partition, a part, a task
	Err     error
	Alike   string      // two with the same text here are the same trouble; empty: the error's text
	Attrs   []slog.Attr // what else the line should say
}

// Troubles log what is in the way. A trouble begins when the first one has it and is over when the last one is rid of it. The methods may
// be called from any goroutine, and by every try.
type Troubles struct {
	log  *slog.Logger
	any  atomic.Int64 // how many have a trouble; most of the time none has, and Over costs no more than this
	mu   sync.Mutex
	open map[string]*episode // by message
}

// An episode is a message from when it is said first until the last one is rid of the trouble.
type episode struct {
	began   time.Time // zero: it is over
	tries   int       // that failed since then
	has     map[string]struct{}
	most    int // how many had it at the same time
	logged  bool
	texts   map[string]time.Time // when each was said last, the last episode's too
	reminds time.Time            // when the next reminder is due
	unsaid  int                  // failures since the last line that no line was about
}

// NewTroubles returns a log of troubles without any.
func NewTroubles(log *slog.Logger) *Troubles {
	return &Troubles{log: log, open: map[string]*episode{}}
}

// Say notes that a try has failed, and logs it if that is news.
func (t *Troubles) Say(ctx context.Context, w Trouble) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	e := t.open[w.Message]
	if e == nil {
		e = &episode{has: map[string]struct{}{}, texts: map[string]time.Time{}}
		t.open[w.Message] = e
	}
	if e.began.IsZero() {
		e.began, e.reminds, e.tries, e.most, e.logged = now, now.Add(Reminder), 0, 0, false
	}
	e.tries++
	if _, has := e.has[w.Of]; !has {
		e.has[w.Of] = struct{}{}
		t.any.Add(1)
	}
	e.most = max(e.most, len(e.has))
	attrs := make([]slog.Attr, 0, len(w.Attrs)+6)
	if w.Alike == "" {
		w.Alike = w.Err.Error()
	}
	switch text := Alike(w.Alike); {
	case e.news(text, now):
		e.texts[text] = now
		attrs = append(attrs, w.Attrs...)
	case e.reminds.Before(now):
		e.texts[text] = now
		attrs = append(append(attrs, w.Attrs...), slog.Int("tries", e.tries), slog.Int("places", len(e.has)))
	default:
		e.unsaid++
		return
	}
	if since := now.Sub(e.began); since >= time.Second {
		attrs = append(attrs, slog.Duration("since", since.Round(time.Second)))
	}
	if e.unsaid > 0 {
		attrs = append(attrs, slog.Int("not_logged", e.unsaid))
	}
	e.logged, e.unsaid, e.reminds = true, 0, now.Add(Reminder)
	t.log.LogAttrs(ctx, w.Level, w.Message, append(attrs, slog.Any("error", w.Err))...) //nolint:sloglint // the message is the caller's constant
}

// news reports whether a text has not been said in this episode, nor at the end of the one before. It forgets what was said long ago.
func (e *episode) news(text string, now time.Time) bool {
	if said, ok := e.texts[text]; ok {
		return said.Before(e.began) && now.Sub(said) >= Rest
	}
	if len(e.texts) >= mostKept {
		return false
	}
	recent := 0
	for other, said := range e.texts {
		switch age := now.Sub(said); {
		case age < Rest:
			recent++
		case said.Before(e.began):
			delete(e.texts, other)
		}
	}
	return recent < mostRecent
}

// Over notes that one of those that have a trouble is rid of it, and logs it if that was the last. Without the trouble it costs next to nothing.
func (t *Troubles) Over(ctx context.Context, message, of string) {
	if t.any.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.open[message]
	if e == nil {
		return
	}
	if _, had := e.has[of]; !had {
		return
	}
	delete(e.has, of)
	t.any.Add(-1)
	if len(e.has) > 0 {
		return
	}
	if e.logged {
		t.log.LogAttrs(ctx, slog.LevelInfo, message+": over", slog.Duration("took", time.Since(e.began).Round(time.Millisecond)), //nolint:sloglint // the message is the caller's constant
			slog.Int("tries", e.tries), slog.Int("places", e.most))
	}
	e.began = time.Time{}
}

// Forget takes a place out of every trouble without a word: it is not this process's any more, or the process ends.
func (t *Troubles) Forget(of string) {
	if t.any.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.open {
		if _, had := e.has[of]; had {
			delete(e.has, of)
			t.any.Add(-1)
			if len(e.has) == 0 {
				e.began = time.Time{}
			}
		}
	}
}
