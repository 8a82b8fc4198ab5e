package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"tenantflow/sinks/dragonfly"
)

// groupWorld reads for many users at once. A user's calls are the number behind the u of the user's id.
type groupWorld struct {
	*world
	gate chan struct{} // a group is read when something can be taken from it

	groups [][]string // what was read together; of world.mu
	days   []time.Time
}

var errWrong = errors.New("WRONGTYPE")

func (w *groupWorld) Read(ctx context.Context, users []string, day time.Time) ([]dragonfly.Counters, map[int]error, bool, error) {
	w.mu.Lock()
	w.groups, w.days = append(w.groups, users), append(w.days, day)
	w.mu.Unlock()
	select {
	case <-w.gate:
	case <-ctx.Done():
		return nil, nil, false, ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	counters, wrong := make([]dragonfly.Counters, len(users)), map[int]error{}
	for i, user := range users {
		n, err := strconv.ParseInt(user[1:], 10, 64)
		if err != nil {
			wrong[i] = errWrong
		}
		counters[i].APICalls = n
	}
	return counters, wrong, w.rebuilding, w.countErr
}

func (w *groupWorld) read() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.groups)
}

func (g *gatherer) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next == nil {
		return 0
	}
	return len(g.next.users)
}

func TestRequestsThatComeWhileOthersAreReadAreReadTogether(t *testing.T) {
	t.Parallel()
	w := &groupWorld{world: newWorld(), gate: make(chan struct{})}
	g := &gatherer{from: w}
	day := at("2026-11-23T00:00:00Z")
	var asking sync.WaitGroup
	ask := func(ctx context.Context, user string, day time.Time, calls int64, failure error) {
		asking.Go(func() {
			c, _, err := g.read(ctx, user, day)
			if !errors.Is(err, failure) || err == nil && c.APICalls != calls {
				t.Errorf("%s: %+v, %v", user, c, err)
			}
		})
	}
	for n := int64(1); n <= maxReads; n++ {
		ask(t.Context(), "u"+strconv.FormatInt(n, 10), day, n, nil)
	}
	eventually(t, func() bool { return w.read() == maxReads })
	for n := int64(10); n < 50; n++ {
		ask(t.Context(), "u"+strconv.FormatInt(n, 10), day, n, nil)
	}
	ask(t.Context(), "broken", day, 0, errWrong)
	eventually(t, func() bool { return g.waiting() == 41 })
	// One that stops waiting does not end the others.
	gone, leave := context.WithCancel(t.Context())
	ask(gone, "u51", day, 0, context.Canceled)
	eventually(t, func() bool { return g.waiting() == 42 })
	leave()
	// Midnight: those of the new day are no group with those of the old.
	ask(t.Context(), "u99", day.AddDate(0, 0, 1), 99, nil)
	eventually(t, func() bool { return w.read() == maxReads+1 && g.waiting() == 1 })
	close(w.gate)
	asking.Wait()
	if n := w.read(); n != maxReads+2 || len(w.groups[maxReads]) != 42 || len(w.groups[maxReads+1]) != 1 || !w.days[maxReads+1].Equal(day.AddDate(0, 0, 1)) {
		t.Errorf("%d groups: %q", n, w.groups)
	}
	eventually(t, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.running == 0
	})
}

func TestAGroupThatCannotBeReadIsA503ForEachOfIt(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	w := &groupWorld{world: f.world, gate: make(chan struct{})}
	w.users["u7"] = f.world.users["u-free"]
	close(w.gate)
	stores := w.stores()
	stores.Quotas = w
	f.Attach(stores)
	if a := f.ask("/v1/users/u7/quota"); a.status != http.StatusOK || a.json["current_usage"] != 7.0 || a.json["rebuilding"] != nil {
		t.Errorf("got %d %s", a.status, a.body)
	}
	w.rebuilding = true
	if a := f.ask("/v1/users/u7/quota"); a.json["rebuilding"] != true {
		t.Errorf("got %d %s", a.status, a.body)
	}
	w.countErr = errors.New("connection refused")
	if a := f.ask("/v1/users/u7/quota"); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", a.status, a.body)
	}
	w.countErr = nil
	if a := f.ask("/v1/users/u-free/quota"); a.status != http.StatusServiceUnavailable { // no number behind its u
		t.Errorf("got %d %s", a.status, a.body)
	}
}
