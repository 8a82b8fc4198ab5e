package dragonfly

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Counters are what a user has used on a day.
type Counters struct {
	APICalls, DataPoints int64
}

// Read reads what users have used on the UTC day that holds a time, in one request, and whether the counters of the
// topic are being rebuilt. Wrong says, by place, whose counters can't be read although the server has answered.
func (s *Store) Read(ctx context.Context, users []string, day time.Time) (counters []Counters, wrong map[int]error, rebuilding bool, err error) {
	pipe := s.client.Pipeline()
	asked := make([]*redis.SliceCmd, len(users))
	for i, user := range users {
		asked[i] = pipe.HMGet(ctx, QuotaKey(user, day), "api_calls", "data_points")
	}
	// On the same connection, so of the same server.
	sentinel := pipe.HGetAll(ctx, SentinelKey(0))
	_, _ = pipe.Exec(ctx) // each command has its own error
	fields, err := sentinel.Result()
	if err == nil {
		rebuilding, err = s.rebuilding(ctx, fields)
	}
	if err != nil {
		return nil, nil, false, fmt.Errorf("read the counters of %d users and a sentinel of %s: %w", len(users), s.cfg.Topic, err)
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
	return counters, wrong, rebuilding, nil
}

// Counters reads what a user has used on the UTC day that holds a time. A user who has used nothing has zeros.
func (s *Store) Counters(ctx context.Context, user string, day time.Time) (Counters, error) {
	c, err := countersOf(s.client.HMGet(ctx, QuotaKey(user, day), "api_calls", "data_points"))
	if err != nil {
		return Counters{}, fmt.Errorf("read the counters of user %s: %w", user, err)
	}
	return c, nil
}

// Rebuilding reports whether counters of today may be short, because their events are being recounted after a loss, or
// will be as soon as a process that counts notices.
func (s *Store) Rebuilding(ctx context.Context) (bool, error) {
	fields, err := s.client.HGetAll(ctx, SentinelKey(0)).Result()
	busy := false
	if err == nil {
		busy, err = s.rebuilding(ctx, fields)
	}
	if err != nil {
		return false, fmt.Errorf("read a sentinel of %s: %w", s.cfg.Topic, err)
	}
	return busy, nil
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

// rebuilding judges a sentinel: it is missing, a partition has no progress in its epoch, or is behind where it was, or
// another server holds it than the one that its progress was noted on; or the server may evict keys, or has done so since
// the epoch began.
func (s *Store) rebuilding(ctx context.Context, fields map[string]string) (bool, error) {
	now, err := s.sight(ctx)
	if err != nil {
		return false, err
	}
	topic := topicField(s.cfg.Topic)
	epoch := parseEpoch(fields[topic])
	if epoch.Number == 0 || now.policy != "" || now.lost(epoch) {
		return true, nil
	}
	counted, server := 0, ""
	for name, text := range fields {
		if !strings.HasPrefix(name, topic+".") {
			continue
		}
		p := parseProgress(text)
		switch {
		case p.Epoch != epoch.Number:
			continue // it counts as missing below
		case p.Until > p.Offset, server != "" && server != p.server:
			return true, nil
		}
		counted++
		server = p.server
	}
	return counted < epoch.Partitions || server != now.id, nil
}

// connected looks at the server on a new connection of the pool for questions: it may be another one.
func (s *Store) connected(ctx context.Context, c *redis.Conn) error {
	now, err := identify(ctx, c)
	if err == nil {
		return s.noteServer(ctx, c, &now)
	}
	if answer(err) != "" {
		return nil // it is loading, or refuses us: the command says so better
	}
	return err
}
