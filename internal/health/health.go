// Package health tracks the state of the service's parts: whether each is ready for work, and whether each gets on
// with it.
//
//	h := health.New(5*time.Minute, log, "http", "kafka", "clickhouse", "usage")
//	h.Set("kafka", health.Ready, "")
//	h.Set("clickhouse", health.Failing, "connection refused; retrying")
//	h.Load("usage", 8, 12_000) // 8 partitions, 12,000 events behind
//	h.Progress("usage")
//
// Readiness asks whether every part is ready. It may come and go, and its reason is what an operator reads first.
// Liveness asks whether the process should be replaced, and says no only where a part has partitions and a lag and
// has done nothing for longer than the stall timeout: a restart mends that, while it never mends a store that is down.
package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"tenantflow/internal/logs"
)

// A State says how a part is.
type State string

// The states of a part. Only Ready counts as ready.
const (
	Starting State = "starting" // not asked for work yet
	Ready    State = "ready"
	Failing  State = "failing"  // something is in the way, and the part retries
	Stopped  State = "stopped"  // it gave up, or one of its partitions did, and waits for an operator
	Stopping State = "stopping" // the process is going away
)

// A Tracker holds the state of the named parts. Its methods may be called from any goroutine.
type Tracker struct {
	stall time.Duration
	log   *slog.Logger

	mu       sync.Mutex
	parts    map[string]*part
	stopping string // why the process is going away; empty: it is not
}

type part struct {
	state  State
	reason string
	since  time.Time
	note   string

	troubles *logs.Troubles

	partitions int
	lag        int64
	progress   time.Time // the last time it did something, or had nothing to do
}

// New makes a tracker of the given parts, all Starting. Parts that are named later, by any of the methods, are added
// then; those named here keep the service from being ready until each has reported. A part stalls when it does
// nothing for longer than stall although it has work.
func New(stall time.Duration, log *slog.Logger, parts ...string) *Tracker {
	t := &Tracker{stall: stall, log: log, parts: map[string]*part{}}
	for _, name := range parts {
		t.get(name)
	}
	return t
}

// get gives the named part, which it adds if need be. The caller holds the lock (or no other goroutine has the tracker yet).
func (t *Tracker) get(name string) *part {
	p := t.parts[name]
	if p == nil {
		now := time.Now()
		p = &part{state: Starting, reason: "not started yet", since: now, progress: now, troubles: logs.NewTroubles(t.log.With(slog.String("part", name)))}
		t.parts[name] = p
	}
	return p
}

// Set says how a part is and why, in words for a person; a ready part needs no reason. Saying the same again changes
// nothing, so a retry loop may call it every time. Changes of state are logged, and other reasons of a part that is not ready.
func (t *Tracker) Set(name string, state State, reason string) {
	t.mu.Lock()
	p := t.get(name)
	before := p.state
	if before != state {
		p.since = time.Now()
	}
	p.state, p.reason = state, reason
	t.mu.Unlock()
	t.logState(name, p, before, state, reason)
}

// MorePartitions is where a reason that is one partition's goes on with how many more there are. The log takes reasons that are equal up to
// there for the same.
const MorePartitions = " (and "

// What the log says of a part that is not ready.
const (
	notReady = "part is not ready"
	stopped  = "part is stopped; it goes on when a person has acted"
)

// logState logs a state, where it is news.
//
//nolint:contextcheck,nolintlint // a state is logged whatever has ended; callers are spared this
func (t *Tracker) logState(name string, p *part, before, state State, reason string) {
	ctx := context.Background()
	// How many more partitions wait for the same changes all the time.
	alike, _, _ := strings.Cut(reason, MorePartitions)
	switch state {
	case Failing:
		p.troubles.Over(ctx, stopped, name)
		p.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: notReady, Of: name, Err: errors.New(reason), Alike: alike})
	case Stopped:
		p.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: stopped, Of: name, Err: errors.New(reason), Alike: alike})
	case Ready:
		if before == Starting {
			t.log.Info("part changed state", slog.String("part", name), slog.String("state", string(state)))
		}
		p.troubles.Over(ctx, notReady, name)
		p.troubles.Over(ctx, stopped, name)
	case Starting, Stopping:
		if before != state && before != Failing {
			t.log.Info("part changed state", slog.String("part", name), slog.String("state", string(state)), slog.String("reason", reason))
		}
	}
}

// Still says that what is in the way of a part is still there, which the log repeats now and then.
func (t *Tracker) Still(name string) {
	t.mu.Lock()
	p := t.get(name)
	state, reason := p.state, p.reason
	t.mu.Unlock()
	if state == Failing {
		t.logState(name, p, state, state, reason)
	}
}

// Note says what an operator should know of a part without changing its state: trouble that concerns one company must not take the
// service from all others. Empty: nothing.
func (t *Tracker) Note(name, note string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.get(name).note = note
}

// Shutdown makes the service not ready, whatever its parts say, because of reason. It can't be taken back.
func (t *Tracker) Shutdown(reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopping == "" {
		t.stopping = reason
	}
}

// Load says how many partitions a part has and how many events it is behind, over all of them. Without partitions or
// lag there is nothing to do, which is as good as progress.
func (t *Tracker) Load(name string, partitions int, lag int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.get(name)
	if p.partitions == 0 || p.lag == 0 {
		p.progress = time.Now()
	}
	p.partitions, p.lag = partitions, lag
}

// Progress says that a part has just done something: stored a batch, or tried to and got an answer, be it a refusal.
// A part whose store refuses it every few seconds is not stuck, and a restart would not help it.
func (t *Tracker) Progress(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.get(name).progress = time.Now()
}

// A PartReport is the state of one part.
type PartReport struct {
	Part       string    `json:"part"`
	State      State     `json:"state"`
	Reason     string    `json:"reason,omitempty"`
	Note       string    `json:"note,omitempty"` // what does not keep it from its work, but should be looked at
	Since      time.Time `json:"since"`          // when it came into this state
	Partitions int       `json:"partitions,omitempty"`
	Lag        int64     `json:"lag,omitempty"` // events
}

// Readiness is the answer to whether the service is ready.
type Readiness struct {
	Ready   bool         `json:"ready"`
	Failing []PartReport `json:"failing"` // what is in the way; empty when ready
	Parts   []PartReport `json:"parts"`   // every part, by name
}

// Readiness reports whether every part is ready, and which are not.
func (t *Tracker) Readiness() Readiness {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := Readiness{Failing: []PartReport{}, Parts: []PartReport{}}
	if t.stopping != "" {
		r.Failing = append(r.Failing, PartReport{Part: "service", State: Stopping, Reason: t.stopping, Since: time.Now().UTC()})
	}
	for _, name := range t.names() {
		p := t.parts[name]
		report := PartReport{Part: name, State: p.state, Reason: p.reason, Note: p.note, Since: p.since.UTC(), Partitions: p.partitions, Lag: p.lag}
		r.Parts = append(r.Parts, report)
		if p.state != Ready {
			r.Failing = append(r.Failing, report)
		}
	}
	r.Ready = len(r.Failing) == 0
	return r
}

// A StalledPart is a part that has work and does not get on with it.
type StalledPart struct {
	Part       string    `json:"part"`
	Reason     string    `json:"reason"`
	Partitions int       `json:"partitions"`
	Lag        int64     `json:"lag"`           // events
	Progress   time.Time `json:"last_progress"` // when it last did something
}

// Liveness is the answer to whether the process should go on.
type Liveness struct {
	Alive   bool          `json:"alive"`
	Stalled []StalledPart `json:"stalled"` // empty when alive
}

// Liveness reports whether every part gets on with its work.
func (t *Tracker) Liveness() Liveness {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := Liveness{Stalled: []StalledPart{}}
	now := time.Now()
	for _, name := range t.names() {
		p := t.parts[name]
		idle, stalled := t.stalled(p, now)
		if !stalled {
			continue
		}
		l.Stalled = append(l.Stalled, StalledPart{
			Part:       name,
			Reason:     fmt.Sprintf("%d partitions, %d events behind, and nothing done for %s (limit %s)", p.partitions, p.lag, idle.Round(time.Second), t.stall),
			Partitions: p.partitions,
			Lag:        p.lag,
			Progress:   p.progress.UTC(),
		})
	}
	l.Alive = len(l.Stalled) == 0
	return l
}

// stalled says whether a part has work and has done nothing for too long, and for how long. The caller holds the lock.
func (t *Tracker) stalled(p *part, now time.Time) (time.Duration, bool) {
	idle := now.Sub(p.progress)
	// A stopped part waits for a person on purpose; readiness and its metric say so, and a restart would stop again.
	working := p.partitions > 0 && p.lag > 0 && p.state != Stopped
	return idle, working && idle > t.stall
}

func (t *Tracker) names() []string {
	names := make([]string, 0, len(t.parts))
	for name := range t.parts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
