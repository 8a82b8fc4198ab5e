package operations

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func percentile(of []time.Duration, p int) time.Duration {
	slices.Sort(of)
	return of[min(len(of)-1, len(of)*p/100)]
}

func TestGatherer_SaysHowOldItIsAndWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var answer atomic.Pointer[func(context.Context) (int, error)]
		answers := func(f func(context.Context) (int, error)) { answer.Store(&f) }
		g := &gatherer[int]{from: "Postgres", every: 10 * time.Second, timeout: 4 * time.Second, take: func(ctx context.Context) (int, error) { return (*answer.Load())(ctx) }}
		if p := g.show(time.Now()); p.AgeSeconds != nil || !p.Stale || p.Problem != "" {
			t.Errorf("before the first look: %+v", p)
		}
		answers(func(context.Context) (int, error) { return 7, nil })
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { g.run(ctx); close(ended) }()
		synctest.Wait()
		time.Sleep(3 * time.Second) //nolint:forbidigo // of a bubble's clock
		if p := g.show(time.Now()); p.Data != 7 || *p.AgeSeconds != 3 || p.Stale || p.Problem != "" {
			t.Errorf("after a look: %+v", p)
		}
		answers(func(context.Context) (int, error) { return 0, errors.New("connection refused") })
		time.Sleep(10 * time.Second) //nolint:forbidigo // of a bubble's clock
		if p := g.show(time.Now()); p.Data != 7 || *p.AgeSeconds != 13 || !p.Stale || p.Problem != "connection refused" {
			t.Errorf("after an error: %+v", p)
		}
		answers(func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, errors.New("cut off") })
		time.Sleep(12 * time.Second) //nolint:forbidigo // of a bubble's clock
		if p := g.show(time.Now()); p.Data != 7 || p.Problem != "Postgres did not answer within 4s" {
			t.Errorf("without an answer: %+v", p)
		}
		// A driver that does not even mind its deadline.
		release := make(chan struct{})
		answers(func(context.Context) (int, error) { <-release; return 8, nil })
		time.Sleep(25 * time.Second) //nolint:forbidigo // of a bubble's clock
		if p := g.show(time.Now()); p.Data != 7 || !p.Stale || !strings.HasPrefix(p.Problem, "Postgres has not answered for ") {
			t.Errorf("while it hangs: %+v", p)
		}
		close(release)
		synctest.Wait()
		if p := g.show(time.Now()); p.Data != 8 || p.Stale || p.Problem != "" {
			t.Errorf("when it is over: %+v", p)
		}
		stop()
		<-ended
	})
}
