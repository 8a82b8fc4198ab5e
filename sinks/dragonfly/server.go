package dragonfly

import (
	"context"
	"fmt"
	"maps"
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
	policy  string    // what says that it may evict keys; empty: it may not
	evicted int64     // keys evicted since it was started, or its statistics were reset
	now     time.Time // by its clock, to the second
}

// identify asks who answers on a connection.
func identify(ctx context.Context, c redis.Cmdable) (server, error) {
	for {
		pipe := c.Pipeline()
		before := pipe.Time(ctx)
		// One section a command: that is what old and new servers have in common.
		sections := []*redis.StringCmd{pipe.Info(ctx, "server"), pipe.Info(ctx, "replication"), pipe.Info(ctx, "stats"), pipe.Info(ctx, "memory")}
		after := pipe.Time(ctx)
		if _, err := pipe.Exec(ctx); err != nil {
			return server{}, fmt.Errorf("ask the counter store who it is: %w", err)
		}
		said := map[string]string{}
		for _, section := range sections {
			maps.Copy(said, infoFields(section.Val()))
		}
		if before.Val().Unix() != after.Val().Unix() {
			continue // the start time below would be a second off
		}
		s := server{now: after.Val(), role: said["role"], master: said["role"] == "master", oneStream: said["dragonfly_version"] == "", policy: evictionPolicy(said)}
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
