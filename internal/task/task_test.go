package task_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/task"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// openStore opens a store as another process would.
func openStore(t testing.TB, dsn, owner string, lease time.Duration) *task.Store {
	t.Helper()
	s, err := task.Open(t.Context(), task.Config{DSN: dsn, Owner: owner, Lease: lease})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func create(t testing.TB, s *task.Store, topic string, spec any) *task.Task {
	t.Helper()
	one, err := s.Create(t.Context(), task.New{Kind: task.Replay, Topic: topic, Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	return one
}

func claim(t testing.TB, s *task.Store, id string) *task.Lease {
	t.Helper()
	var lease *task.Lease
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool {
		var err error
		lease, err = s.Claim(t.Context(), id)
		return err == nil
	}); err != nil {
		t.Fatalf("the task %s could not be claimed", id)
	}
	return lease
}

func chunk(position int, counts task.Counts, publish string) *task.Chunk {
	c := &task.Chunk{Position: json.RawMessage(fmt.Sprintf(`{"at":%d}`, position)), Counts: counts}
	if publish != "" {
		c.Publish = json.RawMessage(publish)
	}
	return c
}

func TestTasks_OneIsActiveOnATopic(t *testing.T) {
	t.Parallel()
	s := openStore(t, postgrestest.New(t), "a", 0)
	first := create(t, s, "usage.events", map[string]int{"n": 1})
	create(t, s, "company.events", map[string]int{})

	refused := func(err error) {
		t.Helper()
		var active *task.ActiveError
		if !errors.As(err, &active) || active.ID != first.ID {
			t.Errorf("got %v, want an ActiveError that names %s", err, first.ID)
		}
	}
	_, err := s.Create(t.Context(), task.New{Kind: task.Redrive, Topic: "usage.events", Spec: struct{}{}})
	refused(err)

	stopped, err := s.Stop(t.Context(), first.ID)
	if err != nil || stopped.State != task.Stopped {
		t.Fatalf("stop: %+v, %v", stopped, err)
	}
	second := create(t, s, "usage.events", map[string]int{})
	first.ID, second.ID = second.ID, first.ID
	_, err = s.Resume(t.Context(), second.ID)
	refused(err)
	if _, err = s.Stop(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Resume(t.Context(), second.ID); err != nil || got.State != task.Running {
		t.Errorf("resume: %+v, %v", got, err)
	}
	var state *task.StateError
	if _, err := s.Resume(t.Context(), second.ID); !errors.As(err, &state) || state.State != task.Running {
		t.Errorf("resume of a running task: %v", err)
	}
	if _, err := s.Show(t.Context(), "none"); !errors.Is(err, task.ErrNotFound) {
		t.Errorf("show of none: %v", err)
	}
	all, err := s.List(t.Context(), 10)
	if err != nil || len(all) != 3 || all[2].ID != first.ID {
		t.Errorf("list: %+v, %v", all, err)
	}
}

func TestTasks_CreatedAtOnceAreOne(t *testing.T) {
	t.Parallel()
	s := openStore(t, postgrestest.New(t), "a", 0)
	var made atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, err := s.Create(t.Context(), task.New{Kind: task.Replay, Topic: "usage.events", Spec: struct{}{}})
			var active *task.ActiveError
			switch {
			case err == nil:
				made.Add(1)
			case !errors.As(err, &active):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("%d tasks were made, want 1", made.Load())
	}
}

func TestTask_AProcessThatLostItsLeaseCantMoveIt(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	const lease = 300 * time.Millisecond
	a, b := openStore(t, dsn, "a", lease), openStore(t, dsn, "b", time.Minute)
	id := create(t, a, "usage.events", struct{}{}).ID
	old := claim(t, a, id)
	if err := old.Propose(t.Context(), chunk(5, task.Counts{"published": 5}, `{"n":1}`)); err != nil {
		t.Fatal(err)
	}
	taken := claim(t, b, id) // once the lease has run out, by Postgres' clock
	if taken.Task.Pending == nil || string(taken.Task.Pending.Publish) != `{"n": 1}` || taken.Task.Pending.Counts["published"] != 5 {
		t.Fatalf("the new owner finds pending %+v", taken.Task.Pending)
	}
	ctx := t.Context()
	for what, try := range map[string]func() error{
		"renew":   func() error { _, err := old.Renew(ctx, ""); return err },
		"propose": func() error { return old.Propose(ctx, chunk(9, task.Counts{"published": 9}, `{}`)) },
		"advance": func() error { _, err := old.Advance(ctx, chunk(9, task.Counts{"published": 9}, "")); return err },
		"finish":  func() error { return old.Finish(ctx, task.Done, "") },
	} {
		if err := try(); !errors.Is(err, task.ErrLost) {
			t.Errorf("%s by the old owner: %v, want ErrLost", what, err)
		}
	}
	if err := old.Release(ctx); err != nil {
		t.Error(err)
	}
	if _, err := a.Claim(ctx, id); !errors.Is(err, task.ErrBusy) {
		t.Errorf("the old owner's release has ended the new lease: %v", err)
	}
	if _, err := taken.Advance(ctx, taken.Task.Pending); err != nil {
		t.Fatal(err)
	}
	got, err := a.Show(ctx, id)
	if err != nil || got.Counts["published"] != 5 || got.Pending != nil || got.Owner != "b" {
		t.Errorf("the task is %+v, %v", got, err)
	}
}

// numbers is a kind whose task publishes the numbers below spec.To in chunks of 10; odd ones are there already.
type numbers struct {
	mu        sync.Mutex
	published []int
	fail      func(at int) error // before a chunk is published
}

type numbersWork struct {
	*numbers
	lease *task.Lease
	to    int
}

func (n *numbers) Open(_ context.Context, l *task.Lease) (task.Work, error) {
	var spec struct{ To int }
	err := json.Unmarshal(l.Task.Spec, &spec)
	return &numbersWork{numbers: n, lease: l, to: spec.To}, err
}

func spec(to int) any { return map[string]int{"to": to} }

func (w *numbersWork) at() (at struct{ At int }) {
	_ = json.Unmarshal(w.lease.Task.Position, &at)
	return at
}

func (w *numbersWork) Progress() (int64, int64) { return int64(w.at().At), int64(w.to) }

func (w *numbersWork) Decide(context.Context) (*task.Chunk, error) {
	at := w.at().At
	if at >= w.to {
		return nil, nil
	}
	return chunk(at+10, task.Counts{"published": 5, "already_there": 5}, fmt.Sprint(at)), nil
}

func (w *numbersWork) Publish(_ context.Context, c *task.Chunk) (task.Counts, error) {
	var at int
	if err := json.Unmarshal(c.Publish, &at); err != nil {
		return nil, err
	}
	if w.fail != nil {
		if err := w.fail(at); err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.published = append(w.published, at)
	return nil, nil
}

func (w *numbersWork) Close() {}

func (n *numbers) runner(s *task.Store, change func(*task.RunnerConfig)) *task.Runner {
	cfg := task.RunnerConfig{Kinds: map[string]task.Kind{task.Replay: n}, Poll: 50 * time.Millisecond, Linger: 200 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	return task.NewRunner(s, cfg)
}

func TestTask_TransientErrorsAreWaitedOut(t *testing.T) {
	t.Parallel()
	s := openStore(t, postgrestest.New(t), "a", 0)
	n := &numbers{}
	failures := 0
	n.fail = func(at int) error {
		if at == 20 && failures < 3 {
			failures++
			return errors.New("the broker is away")
		}
		return nil
	}
	var waited []string
	r := n.runner(s, func(c *task.RunnerConfig) {
		c.Progress = func(p task.Progress) {
			if p.Waiting != "" {
				waited = append(waited, p.Waiting)
			}
		}
	})
	got, err := r.Run(t.Context(), create(t, s, "t", spec(50)).ID)
	if err != nil || got.State != task.Done || got.Counts["published"] != 25 || got.Counts["already_there"] != 25 || got.FinishedAt == nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	if !slices.Equal(n.published, []int{0, 10, 20, 30, 40}) || len(waited) == 0 || waited[0] != "the broker is away" {
		t.Errorf("published %v, waited for %q", n.published, waited)
	}
}

func TestTask_AFatalErrorFailsItAndResumeGoesOn(t *testing.T) {
	t.Parallel()
	s := openStore(t, postgrestest.New(t), "a", 0)
	n := &numbers{fail: func(at int) error {
		if at == 20 {
			return task.Fatalf("the archive is damaged")
		}
		return nil
	}}
	id := create(t, s, "t", spec(50)).ID
	got, err := n.runner(s, nil).Run(t.Context(), id)
	if err != nil || got.State != task.Failed || got.Message != "the archive is damaged" || got.Counts["published"] != 10 {
		t.Fatalf("got %+v, %v", got, err)
	}
	n.fail = nil
	if _, err := s.Resume(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if got, err = n.runner(s, nil).Run(t.Context(), id); err != nil || got.State != task.Done || got.Counts["published"] != 25 {
		t.Fatalf("resumed: %+v, %v", got, err)
	}
}

func TestTask_AStopSaysWhatStays(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	s, other := openStore(t, dsn, "a", time.Minute), openStore(t, dsn, "b", 0)
	id := create(t, s, "t", spec(50)).ID
	n := &numbers{fail: func(at int) error {
		if at == 20 {
			return errors.New("the brake is on") // for as long as it takes
		}
		return nil
	}}
	ended := make(chan *task.Task, 1)
	go func() {
		got, err := n.runner(s, nil).Run(t.Context(), id)
		if err != nil {
			t.Error(err)
		}
		ended <- got
	}()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool {
		now, err := other.Show(ctx, id)
		return err == nil && now.Counts["published"] == 10 && now.Message == "the brake is on"
	}); err != nil {
		t.Fatal("the task never said what it waits for")
	}
	asked, err := other.Stop(ctx, id)
	if err != nil || asked.State != task.Stopping {
		t.Fatalf("stop: %+v, %v", asked, err)
	}
	got := <-ended
	const want = "stopped with 10 events published: they stay, and `tenantflow task resume %s` goes on behind them; up to 5 more were being published when its process ended"
	if got.State != task.Stopped || got.Message != fmt.Sprintf(want, id) {
		t.Errorf("got %s: %s", got.State, got.Message)
	}
	n.fail = nil
	if _, err := other.Resume(ctx, id); err != nil {
		t.Fatal(err)
	}
	if got, err = n.runner(s, nil).Run(ctx, id); err != nil || got.Counts["published"] != 25 {
		t.Errorf("resumed: %+v, %v", got, err)
	}
}

func TestTask_TheEndOfARunStopsItAndOfServeGivesItBack(t *testing.T) {
	t.Parallel()
	s := openStore(t, postgrestest.New(t), "a", time.Minute)
	for _, serve := range []bool{false, true} {
		id := create(t, s, fmt.Sprint(serve), spec(1000)).ID
		ctx, cancel := context.WithCancel(t.Context())
		n := &numbers{fail: func(at int) error {
			if at == 20 {
				cancel()
			}
			return nil
		}}
		// On a busy machine, too, what is being published has its time.
		r := n.runner(s, func(c *task.RunnerConfig) { c.Linger = enginetest.Patience })
		if serve {
			r.Serve(ctx)
			now, err := s.Show(t.Context(), id)
			if err != nil || now.State != task.Running {
				t.Errorf("after Serve: %+v, %v", now, err)
			}
			if _, err := s.Claim(t.Context(), id); err != nil {
				t.Errorf("the lease was not given back: %v", err)
			}
			continue
		}
		got, err := r.Run(ctx, id)
		// What is being published when the run ends gets its place, and nothing is begun behind it.
		if n := got.Counts["published"]; err != nil || got.State != task.Stopped || n != 15 {
			t.Errorf("after Run: %+v, %v", got, err)
		}
	}
}

func TestTask_TwoProcessesShareOne(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	const lease = 500 * time.Millisecond
	a, b := openStore(t, dsn, "a", lease), openStore(t, dsn, "b", time.Minute) // it has as long to write how the task ended
	id := create(t, a, "t", spec(300)).ID
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	n := &numbers{}
	// The first loses its connections in the midst: its lease runs out, and the second takes over.
	n.fail = func(at int) error {
		if at == 100 {
			a.Close()
		}
		return nil
	}
	var first sync.WaitGroup
	dying, die := context.WithCancel(ctx)
	first.Go(func() { n.runner(a, nil).Serve(dying) })
	if err := enginetest.Eventually(ctx, func() bool {
		now, err := b.Show(ctx, id)
		return err == nil && now.Counts["published"] > 0
	}); err != nil {
		t.Fatal("nothing was done")
	}
	got, err := n.runner(b, nil).Run(ctx, id)
	die()
	first.Wait()
	if err != nil || got.State != task.Done || got.Counts["published"] != 150 || got.Counts["already_there"] != 150 {
		t.Fatalf("got %+v, %v", got, err)
	}
	all := slices.Compact(slices.Sorted(slices.Values(n.published)))
	if len(all) != 30 {
		t.Errorf("%d chunks were published, want 30", len(all))
	}
}
