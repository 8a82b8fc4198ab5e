package postgres

import (
	"context"
	_ "embed"
	"sync"
	"time"
)

//go:embed queries/blockers.sql
var blockersSQL string

// A lockWatch finds out, while a transaction waits for a lock, which sessions hold it: afterwards Postgres does not know it any more.
type lockWatch struct {
	timer  *time.Timer
	cancel context.CancelFunc

	mu sync.Mutex
	by string
}

// watchLocks watches a connection whose transaction begins. Only one that takes as long as half a lock's timeout is looked at.
func (t *Tenants) watchLocks(ctx context.Context, pid uint32) *lockWatch {
	ctx, cancel := context.WithCancel(ctx)
	w := &lockWatch{cancel: cancel}
	w.timer = time.AfterFunc(lockTimeout/2, func() {
		var by string
		// Without an answer it is not known who blocks, which is no fault of the event.
		if err := t.store.pool.QueryRow(ctx, blockersSQL, int64(pid)).Scan(&by); err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.by = by
		}
	})
	return w
}

// blockers names the sessions that were found; empty: none were.
func (w *lockWatch) blockers() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.by
}

func (w *lockWatch) stop() {
	w.timer.Stop()
	w.cancel()
}
