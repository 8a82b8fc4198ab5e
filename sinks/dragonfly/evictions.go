package dragonfly

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ErrEvicted says that the server has evicted keys: counters may be gone, and only a rebuild of the day can tell. It comes without an
// eviction policy as well, when that was set and taken back between two looks.
var ErrEvicted = errors.New("the counter store has evicted keys: counters may be gone")

// Evictions is what a server says about taking keys away by itself.
type Evictions struct {
	// Policy is what says that it may; empty: it may not.
	Policy string
	// Evicted is how many keys it has taken since its statistics began: with its start, or a reset of them.
	Evicted int64
}

// An EvictionWatch looks for evictions, again and again. It is for one goroutine. The zero value knows nothing of the past: its first
// look takes the server as it is, and Seen, from an earlier watch, tells it what was known.
type EvictionWatch struct {
	Seen   Evictions
	looked bool
}

// WatchEvictions goes on where an earlier watch of the same server has ended: at the number of keys that were evicted by then.
func WatchEvictions(evicted int64) *EvictionWatch {
	return &EvictionWatch{Seen: Evictions{Evicted: evicted}, looked: true}
}

// Look asks the server over a connection of the caller's, in one request, so that the answer is of the very server that the
// connection's other commands reach. The error is
//
//   - a *ConfigError (Fatal by Classify) while the server may evict: stop counting, and look again until a person has set it right;
//   - ErrEvicted, once, when keys were evicted since the last look and it may no longer evict: rebuild the day;
//   - anything else: the server did not answer.
//
// What was evicted under a policy is told by ErrEvicted when the policy is right again.
func (w *EvictionWatch) Look(ctx context.Context, conn redis.Cmdable) error {
	now, err := readEvictions(ctx, conn)
	if err != nil {
		return err
	}
	before := w.Seen.Evicted
	if !w.looked {
		before = now.Evicted
	}
	if now.Policy != "" {
		w.Seen, w.looked = Evictions{now.Policy, before}, true // what was evicted is still to be told
		return evictsError(now.Policy)
	}
	w.Seen, w.looked = now, true
	// Fewer: it was restarted, or its statistics were reset, and what it counts was evicted since then.
	if now.Evicted > before || now.Evicted < before && now.Evicted > 0 {
		return fmt.Errorf("%w: %d since its statistics began, %d at the last look", ErrEvicted, now.Evicted, before)
	}
	return nil
}

// evictsError says that the server is not fit for counting.
func evictsError(policy string) error {
	return &ConfigError{fmt.Sprintf("the server evicts keys (%s): a counter that is evicted begins again at zero. "+
		"Set maxmemory-policy noeviction (Redis), or start Dragonfly without --cache_mode", policy)}
}

// readEvictions asks with INFO: CONFIG GET maxmemory-policy is empty on Dragonfly.
func readEvictions(ctx context.Context, conn redis.Cmdable) (Evictions, error) {
	pipe := conn.Pipeline()
	memory, stats := pipe.Info(ctx, "memory"), pipe.Info(ctx, "stats")
	if _, err := pipe.Exec(ctx); err != nil {
		return Evictions{}, fmt.Errorf("ask the counter store about evictions: %w", err)
	}
	e := Evictions{Policy: evictionPolicy(infoFields(memory.Val()))}
	var err error
	if e.Evicted, err = strconv.ParseInt(infoFields(stats.Val())["evicted_keys"], 10, 64); err != nil {
		return Evictions{}, fmt.Errorf("ask the counter store about evictions: evicted_keys: %w", err)
	}
	return e, nil
}

// evictionPolicy returns what of the section "memory" says that the server evicts.
func evictionPolicy(memory map[string]string) string {
	if policy := memory["maxmemory_policy"]; policy != "" && policy != "noeviction" {
		return "maxmemory_policy:" + policy
	}
	if mode := memory["cache_mode"]; mode == "cache" { // Dragonfly
		return "cache_mode:" + mode
	}
	return ""
}

// infoFields takes a section of INFO apart.
func infoFields(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			fields[name] = value
		}
	}
	return fields
}
