package dragonfly

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Read reads what users have used on the UTC day that holds a time, in one request, and then tells as Rebuilding does.
// Wrong says, by place, whose counters can't be read although the server has answered.
func (s *Store) Read(ctx context.Context, users []string, day time.Time) (counters []Counters, wrong map[int]error, isRebuilding bool, err error) {
	pipe := s.client.Pipeline()
	asked := make([]*redis.SliceCmd, len(users))
	for i, user := range users {
		asked[i] = pipe.HMGet(ctx, QuotaKey(user, day), "api_calls", "data_points")
	}
	// Behind the counters: a rebuild is announced first and takes them away then.
	epoch := pipe.HGet(ctx, progressKey(s.cfg.Topic), epochField)
	_, _ = pipe.Exec(ctx) // each command has its own error
	now, err := epoch.Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, nil, false, fmt.Errorf("read the counters of %d users and the epoch of %s: %w", len(users), s.cfg.Topic, err)
	}
	last := s.looked.Load()
	if now == "" || last == nil || last.epoch != now || last.rebuilding || time.Since(last.at) > lookEvery {
		if isRebuilding, err = s.Rebuilding(ctx); err != nil {
			return nil, nil, false, err
		}
		s.looked.Store(&looked{now, isRebuilding, time.Now()})
	}
	counters = make([]Counters, len(users))
	for i, cmd := range asked {
		if counters[i], err = countersOf(cmd); err != nil {
			if wrong == nil {
				wrong = map[int]error{}
			}
			wrong[i] = fmt.Errorf("read the counters of user %s: %w", users[i], err)
		}
	}
	return counters, wrong, isRebuilding, nil
}

// lookEvery is how long it takes at most until a partition that has gone back within its epoch is seen. The loss of
// everything, and a new epoch, are seen at once.
const lookEvery = 100 * time.Millisecond

// looked is what a look at all partitions' progress has shown.
type looked struct {
	epoch      string
	rebuilding bool
	at         time.Time
}

func countersOf(cmd *redis.SliceCmd) (Counters, error) {
	values, err := cmd.Result()
	if err != nil {
		return Counters{}, err
	}
	var c Counters
	for i, to := range []*int64{&c.APICalls, &c.DataPoints} {
		if text, ok := values[i].(string); ok {
			var one error
			*to, one = strconv.ParseInt(text, 10, 64)
			err = errors.Join(err, one)
		}
	}
	return c, err
}

// rebuilding judges the progress of a topic.
func rebuilding(fields map[string]string) bool {
	if fields[epochField] == "" {
		return true // lost, and nobody has noticed yet
	}
	for name, text := range fields {
		if name == epochField {
			continue
		}
		// Unreadable progress is dealt with by who counts.
		if p, err := parseProgress(text); err != nil || p.New || p.Until > p.Done {
			return true
		}
	}
	return false
}
