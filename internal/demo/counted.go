package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/events"
	"tenantflow/internal/model"
)

// lookAtQuotas reads every key of the counter store, and every event about quotas.
func (d *demo) lookAtQuotas(ctx context.Context) (err error) {
	options, err := redis.ParseURL(d.stack.Redis.URL())
	if err != nil {
		return fmt.Errorf("connect to Redis: %w", err)
	}
	client := redis.NewClient(options)
	defer func() { err = errors.Join(err, client.Close()) }()
	got := &d.result.counted
	if err := got.readKeys(ctx, client); err != nil {
		return err
	}
	if err := got.readEvents(ctx, d); err != nil {
		return err
	}
	got.at = time.Now()
	return nil
}

// readKeys reads the counters, and whether everything has an expiry. A page of keys costs one more round trip.
func (c *counted) readKeys(ctx context.Context, client *redis.Client) error {
	const page = 5000
	c.counters = map[userDay]counter{}
	seen := map[string]bool{} // a scan may give a key twice
	for cursor := uint64(0); ; {
		keys, next, err := client.Scan(ctx, cursor, "*", page).Result()
		if err != nil {
			return fmt.Errorf("list the keys in Redis: %w", err)
		}
		pipe := client.Pipeline()
		lives := map[string]*redis.DurationCmd{}
		hashes := map[userDay]*redis.SliceCmd{}
		for _, key := range keys {
			if seen[key] {
				continue
			}
			seen[key] = true
			lives[key] = pipe.PTTL(ctx, key)
			if at, ok := parseQuotaKey(key); ok {
				hashes[at] = pipe.HMGet(ctx, key, "api_calls", "data_points", "marks")
			}
		}
		if len(lives) > 0 {
			if _, err := pipe.Exec(ctx); err != nil {
				return fmt.Errorf("read %d keys in Redis: %w", len(lives), err)
			}
		}
		for key, life := range lives {
			if life.Val() == -1 { // without an expiry
				c.immortal = append(c.immortal, key)
			}
		}
		for at, values := range hashes {
			if err := c.take(at, values.Val()); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			c.keys = int64(len(seen))
			return nil
		}
	}
}

// parseQuotaKey takes quota:{<user>}:<day> apart.
func parseQuotaKey(key string) (userDay, bool) {
	rest, ok := strings.CutPrefix(key, "quota:{")
	user, day, found := strings.Cut(rest, "}:")
	return userDay{user, day}, ok && found
}

// take notes api_calls, data_points and marks of a counter. A mark of more than percent and limit is due.
func (c *counted) take(at userDay, values []any) error {
	var numbers [2]int64
	for i := range numbers {
		text, ok := values[i].(string)
		if !ok {
			return nil // it has expired since it was listed
		}
		var err error
		if numbers[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return fmt.Errorf("read the quota of %s on %s: %w", at.user, at.day, err)
		}
	}
	c.counters[at] = counter{calls: numbers[0], points: numbers[1]}
	marks, _ := values[2].(string)
	for mark := range strings.FieldsSeq(marks) {
		if strings.Count(mark, ":") > 1 {
			c.due = append(c.due, at)
			break
		}
	}
	return nil
}

// readEvents reads the events about quotas. One that was published twice is one.
func (c *counted) readEvents(ctx context.Context, d *demo) error {
	c.events = map[string]threshold{}
	return model.ReadTopic(ctx, d.client, events.TopicQuota, func(r *events.Record) error {
		e, err := events.ParseEnvelope(r)
		if err != nil {
			return fmt.Errorf("read an event about a quota: %w", err)
		}
		var data struct {
			User    string `json:"user_id"`
			Percent int    `json:"threshold_percentage"`
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return fmt.Errorf("read the data of %s %s: %w", e.Type, e.ID, err)
		}
		if exceeded := data.Percent == 100; exceeded != (e.Type == events.TypeQuotaExceeded) {
			return fmt.Errorf("event %s says %d %%, and is a %s", e.ID, data.Percent, e.Type)
		}
		c.events[e.ID] = threshold{data.User, data.Percent}
		return nil
	})
}
