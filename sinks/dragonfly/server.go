package dragonfly

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/redis/go-redis/v9"
)

// A server is the process that answers on a connection.
type server struct {
	// id is another one after a restart, a promotion or a change of role.
	id string

	// oneStream says that its data is at any time a prefix of one order of writes, as in Redis. Each thread of Dragonfly
	// replicates by its own flow, so a promoted replica may hold progress without the counts it stands for.
	oneStream bool

	master  bool
	role    string
	evicted int64     // keys evicted since it was started
	now     time.Time // by its clock, to the second
}

// identify asks who answers on a connection.
func identify(ctx context.Context, c redis.Cmdable) (server, error) {
	for {
		pipe := c.Pipeline()
		before := pipe.Time(ctx)
		// One section a command: that is what old and new servers have in common.
		sections := []*redis.StringCmd{pipe.Info(ctx, "server"), pipe.Info(ctx, "replication"), pipe.Info(ctx, "stats")}
		after := pipe.Time(ctx)
		if _, err := pipe.Exec(ctx); err != nil {
			return server{}, fmt.Errorf("ask the counter store who it is: %w", err)
		}
		said := map[string]string{}
		for _, section := range sections {
			for line := range strings.Lines(section.Val()) {
				if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
					said[name] = value
				}
			}
		}
		if before.Val().Unix() != after.Val().Unix() {
			continue // the start time below would be a second off
		}
		s := server{now: after.Val(), role: said["role"], master: said["role"] == "master", oneStream: said["dragonfly_version"] == ""}
		s.evicted, _ = strconv.ParseInt(said["evicted_keys"], 10, 64) // a server that evicts nothing need not say so
		id := said["run_id"] + " " + s.role
		if !s.oneStream { // it has no run_id
			uptime, err := strconv.ParseInt(said["uptime_in_seconds"], 10, 64)
			if err != nil {
				return server{}, fmt.Errorf("ask the counter store for how long it has been running: %w", err)
			}
			id += " " + said["process_id"] + " " + said["master_replid"] + " " + strconv.FormatInt(s.now.Unix()-uptime, 10)
		}
		s.id = strconv.FormatUint(xxhash.Sum64String(id), 36)
		return s, nil
	}
}

// An UnfitError says that the server must not be counted on at the moment: it evicts keys, or is a replica. Counting
// waits until a person has changed that.
type UnfitError struct{ message string }

func (e *UnfitError) Error() string { return e.message }

// fitFor is how long a look at the eviction policy holds.
const fitFor = time.Second

// fit makes sure that nothing is evicted: an evicted counter would begin again at zero, and nothing would show it. The
// policy can be changed while the server runs, so it is looked at once a second, for all sessions together.
func (s *Store) fit(ctx context.Context) error {
	s.fitness.Lock()
	defer s.fitness.Unlock()
	if time.Since(s.fitAt) < fitFor {
		return s.unfit
	}
	m, err := s.Memory(ctx)
	if err != nil {
		return err
	}
	s.fitAt, s.unfit = time.Now(), nil
	if m.Evicts != "" {
		s.unfit = &UnfitError{fmt.Sprintf("the server evicts keys (%s): a counter that is evicted begins again at zero. Counting waits. "+
			"Set maxmemory-policy noeviction (Redis), or start Dragonfly without --cache_mode; the day is recounted then", m.Evicts)}
	}
	return s.unfit
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
