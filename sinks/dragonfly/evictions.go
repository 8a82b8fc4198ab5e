package dragonfly

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// An UnfitError says that the server must not be counted on at the moment: it evicts keys, or is a replica. Counting
// waits until a person has changed that.
type UnfitError struct{ message string }

func (e *UnfitError) Error() string { return e.message }

// fit is an *UnfitError where the server may evict keys.
func (s *server) fit() error {
	if s.policy == "" {
		return nil
	}
	return &UnfitError{fmt.Sprintf("the server evicts keys (%s): a counter that is evicted begins again at zero. Counting waits. "+
		"Set maxmemory-policy noeviction (Redis), or start Dragonfly without --cache_mode; the day is recounted then", s.policy)}
}

// lost reports whether the server may have evicted keys since an epoch began: it says another number than the epoch knows.
// A lower one means that its statistics were reset, which may hide evictions. On a server that was started since, all
// evictions count. An epoch that is begun because of this knows the number, so one loss is one rebuild.
func (s *server) lost(e Epoch) bool {
	known := int64(0)
	if e.Server == s.id {
		known = e.Evicted
	}
	return s.evicted != known
}

// evictionPolicy returns what of the section "memory" says that the server evicts. CONFIG GET maxmemory-policy is empty on
// Dragonfly.
func evictionPolicy(memory map[string]string) string {
	if policy := memory["maxmemory_policy"]; policy != "" && policy != "noeviction" {
		return "maxmemory_policy:" + policy
	}
	if mode := memory["cache_mode"]; mode == "cache" { // Dragonfly
		return "cache_mode:" + mode
	}
	return ""
}

// sightFor is how long a look at the server holds for callers that do not look themselves.
const sightFor = time.Second

// A sighting is what a server said of itself.
type sighting struct {
	server
	at time.Time
}

// sight returns what the server says of itself, asked at most a second ago, for all who count and read together.
func (s *Store) sight(ctx context.Context) (*server, error) {
	fresh := func() *server {
		if last := s.seen.Load(); last != nil && time.Since(last.at) < sightFor {
			return &last.server
		}
		return nil
	}
	if now := fresh(); now != nil {
		return now, nil
	}
	s.looking.Lock()
	defer s.looking.Unlock()
	if now := fresh(); now != nil {
		return now, nil
	}
	now, err := identify(ctx, s.client)
	if err != nil {
		return nil, err
	}
	if err := s.noteServer(ctx, s.client, &now); err != nil {
		return nil, err
	}
	return &now, nil
}

// noteServer notes what a server said of itself. One that evicts puts the counters in doubt, and that is written where neither a restart of
// the server, nor statistics that are reset, nor the end of this process takes it away.
func (s *Store) noteServer(ctx context.Context, c redis.Cmdable, now *server) error {
	if now.policy != "" && now.master {
		if err := s.doubt(ctx, c); err != nil {
			return fmt.Errorf("mark the counters of %s as lost, because the server evicts keys: %w", s.cfg.Topic, err)
		}
	}
	s.seen.Store(&sighting{*now, time.Now()})
	return nil
}

// doubt takes the epoch out of a sentinel: readers see that, and the next process that counts begins another. It takes out the one that was
// there before the policy was seen: one that begins while this is on its way was begun after the policy was put right.
func (s *Store) doubt(ctx context.Context, c redis.Cmdable) error {
	topic := topicField(s.cfg.Topic)
	epoch, err := c.HGet(ctx, SentinelKey(0), topic).Result()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err != nil {
		return err
	}
	if now, err := identify(ctx, c); err != nil || now.policy == "" {
		return err
	}
	return s.scripts.doubt.Run(ctx, c, []string{SentinelKey(0)}, topic, epoch).Err()
}

// fit is an *UnfitError while the server must not be counted on.
func (s *Store) fit(ctx context.Context) error {
	now, err := s.sight(ctx)
	if err != nil {
		return err
	}
	return now.fit()
}

// check is fit for a server that is connected to for the first time.
func (s *Store) check(ctx context.Context) error {
	err := s.fit(ctx)
	var unfit *UnfitError
	if errors.As(err, &unfit) {
		return &ConfigError{unfit.message}
	}
	return err
}
