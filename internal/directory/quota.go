package directory

import (
	"context"
	"log/slog"
	"time"
)

// withQuota returns the subscription with a quota block that may be shown, or with none. It never fails: a tier and its
// limits are worth telling without it.
func (d *Directory) withQuota(ctx context.Context, s *Subscription) *Subscription {
	now := time.Now().UTC()
	if s.Quota.fresh(now) {
		return s
	}
	counted := *s
	counted.Quota = QuotaBlock{}
	if d.config.Counters == nil {
		return &counted
	}
	limited, cancel := context.WithTimeout(ctx, d.config.CacheTimeout)
	defer cancel()
	calls, points, err := d.config.Counters(limited, s.UserID, now)
	if err != nil {
		d.metrics.errors.WithLabelValues(byCounters).Inc()
		d.log.LogAttrs(ctx, slog.LevelDebug, "a subscription is shown without its quota: the counters can't be read",
			slog.String("user", s.UserID), slog.Any("error", err))
		return &counted
	}
	counted.Quota = QuotaBlock{Date: now.Format(time.DateOnly), APICalls: calls, DataPoints: points,
		DailyLimit: s.Limits.DailyAPICalls, AsOf: now}
	// Whoever asks next, here or elsewhere, finds the block. It makes the entry neither newer nor live longer.
	if e := d.users.get(s.UserID); e != nil && e.value == s {
		with := &entry[Subscription]{value: &counted, company: e.company, user: e.user, expires: e.expires}
		with.seen.Store(e.seen.Load())
		d.users.replace(s.UserID, e, with)
	}
	_ = d.askCache(ctx, func(ctx context.Context) error {
		_, err := d.config.Cache.PutSubscriptions(ctx, []*Subscription{&counted})
		return err
	})
	return &counted
}
