package dragonfly

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Share is what one log has counted of a user's day.
type Share struct {
	Epoch         int64
	Watermark     int64 // the user's events before it are counted
	Calls, Points int64
}

// A UserDay is all that is stored of a user's UTC day, to be compared with the log.
type UserDay struct {
	User string
	Day  time.Time
	Counters
	Unreadable string // what of it can't be read; empty: nothing

	shares map[string]Share // by field
}

// Share is what a partition has counted; incarnation is that of its log.
func (u *UserDay) Share(topic string, partition int, incarnation int64) (Share, bool) {
	s, found := u.shares[shareField(topic, partition, incarnation)]
	return s, found
}

// Sum adds up all shares, of other logs, too. It is equal to the counters, unless something else has changed them.
func (u *UserDay) Sum() Counters {
	var c Counters
	for _, s := range u.shares {
		c.APICalls += s.Calls
		c.DataPoints += s.Points
	}
	return c
}

// UserDays calls each for the counters of all users on the UTC days from one on. Counters that exist from beginning to end are
// among them, each with its state at some moment in between, and a few may come twice.
func (s *Store) UserDays(ctx context.Context, from time.Time, each func(*UserDay) error) error {
	const page = 500
	for cursor := uint64(0); ; {
		keys, next, err := s.client.Scan(ctx, cursor, "quota:{*", page).Result()
		if err != nil {
			return fmt.Errorf("list the counters: %w", err)
		}
		if err := s.userDays(ctx, keys, from, each); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func (s *Store) userDays(ctx context.Context, keys []string, from time.Time, each func(*UserDay) error) error {
	pipe := s.client.Pipeline()
	var found []*UserDay
	var answers []*redis.MapStringStringCmd
	for _, key := range keys {
		user, date, _ := strings.Cut(strings.TrimPrefix(key, "quota:{"), "}:")
		day, err := time.Parse(dayLayout, date)
		if err != nil || day.Before(from) {
			continue // another program's, or not asked for
		}
		found, answers = append(found, &UserDay{User: user, Day: day}), append(answers, pipe.HGetAll(ctx, key))
	}
	if len(found) == 0 {
		return nil
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, u := range found {
		fields, err := answers[i].Result()
		switch {
		case err != nil && !strings.Contains(answer(err), "WRONGTYPE"):
			return fmt.Errorf("read the counters of user %s: %w", u.User, err)
		case err != nil:
			u.Unreadable = "it is no hash"
		case len(fields) == 0:
			continue // gone since it was listed
		}
		u.read(fields)
		if err := each(u); err != nil {
			return err
		}
	}
	return nil
}

// read takes the fields of a hash apart.
func (u *UserDay) read(fields map[string]string) {
	u.shares = make(map[string]Share, len(fields))
	for field, text := range fields {
		var err error
		switch {
		case field == "api_calls":
			u.APICalls, err = strconv.ParseInt(text, 10, 64)
		case field == "data_points":
			u.DataPoints, err = strconv.ParseInt(text, 10, 64)
		case strings.Contains(field, "."):
			var s Share
			if s, err = parseShare(text); err == nil {
				u.shares[field] = s
			}
		}
		if err != nil {
			u.Unreadable = fmt.Sprintf("its field %s holds %q", field, text)
		}
	}
}

// parseShare reads what count.lua wrote.
func parseShare(text string) (Share, error) {
	var s Share
	part := strings.Fields(text)
	if len(part) != 4 {
		return s, fmt.Errorf("%q has no four parts", text)
	}
	for i, to := range []*int64{&s.Epoch, &s.Watermark, &s.Calls, &s.Points} {
		var err error
		if *to, err = strconv.ParseInt(part[i], 10, 64); err != nil {
			return s, err
		}
	}
	return s, nil
}

// Resum makes a user's counters of a day what the shares of the logs add up to, and reports whether they were not. It may be
// done while the user is counted.
func (s *Store) Resum(ctx context.Context, user string, day time.Time) (bool, error) {
	n, err := s.scripts.resum.Run(ctx, s.client, []string{QuotaKey(user, day)}).Int()
	if err != nil {
		return false, fmt.Errorf("add up the shares of user %s: %w", user, err)
	}
	return n == 1, nil
}
