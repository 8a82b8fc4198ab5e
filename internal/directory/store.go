package directory

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// errNoCache says that Dragonfly was not asked.
var errNoCache = errors.New("the cache is not asked")

// cacheRest is how long Dragonfly is left alone after an error: a dead one must not cost every look-up its timeout.
const cacheRest = time.Second

// askCache makes a request to Dragonfly. No error of it matters to the caller of a look-up: Postgres has it all. So
// errors are counted and logged here.
func (d *Directory) askCache(ctx context.Context, request func(ctx context.Context) error) error {
	down := d.cacheDownUntil.Load()
	if d.config.Cache == nil || down > d.now() {
		return errNoCache
	}
	err := d.ask(ctx, byDragonfly, d.config.CacheTimeout, request)
	switch {
	case err == nil:
		if down != 0 && d.cacheDownUntil.CompareAndSwap(down, 0) {
			d.log.LogAttrs(ctx, slog.LevelInfo, "the cache of users and companies answers again")
		}
	case ctx.Err() != nil: // the caller has gone; that says nothing about Dragonfly
	default:
		if d.cacheDownUntil.Swap(d.now()+int64(cacheRest)) == 0 {
			d.log.LogAttrs(ctx, slog.LevelWarn, "the cache of users and companies does not answer; Postgres is asked instead", slog.Any("error", err))
		}
	}
	return err
}

// askPostgres makes a request to Postgres.
func (d *Directory) askPostgres(ctx context.Context, request func(ctx context.Context) error) error {
	return d.ask(ctx, byPostgres, d.config.LoadTimeout, request)
}

func (d *Directory) ask(ctx context.Context, store string, timeout time.Duration, request func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now()
	err := request(ctx)
	d.metrics.loads.WithLabelValues(store).Inc()
	d.metrics.loadSeconds.WithLabelValues(store).Observe(time.Since(began).Seconds())
	if err != nil && !errors.Is(err, ErrUnknown) {
		d.metrics.errors.WithLabelValues(store).Inc()
	}
	return err
}
