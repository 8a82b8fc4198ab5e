package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// A reply is the answer to GET /v1/users/{user_id}/quota.
type reply struct {
	path string
	code int
	body string // as it came

	Exceeded bool   `json:"exceeded"`
	Usage    int64  `json:"current_usage"`
	Limit    int64  `json:"daily_limit"`
	Date     string `json:"date"`
}

// replyTimeout bounds one request.
const replyTimeout = 2 * time.Second

// ask asks the service for a user's quota.
func (d *demo) ask(ctx context.Context, user string) (reply, error) {
	r := reply{path: "/v1/users/" + user + "/quota"}
	address, err := d.service.address()
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, replyTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+r.path, nil)
	if err != nil {
		return r, fmt.Errorf("ask for the quota of %s: %w", user, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return r, fmt.Errorf("ask for the quota of %s: %w", user, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err != nil {
		return r, fmt.Errorf("ask for the quota of %s: %w", user, err)
	}
	r.code, r.body = res.StatusCode, strings.TrimSpace(string(body))
	if r.code == http.StatusOK {
		if err := json.Unmarshal(body, &r); err != nil {
			return r, fmt.Errorf("ask for the quota of %s: %w in %s", user, err, body)
		}
	}
	return r, nil
}

// askOnTheWay asks for a quota while the service works: a count never falls, though the service is killed, and is never
// above what is predicted. Around a start there is no answer.
func (d *demo) askOnTheWay(ctx context.Context) {
	got := &d.result.counted
	users := d.quotas.watched()
	user := users[got.asked%len(users)]
	got.asked++
	r, err := d.ask(ctx, user)
	if err != nil || r.code == http.StatusServiceUnavailable {
		return
	}
	got.answered++
	at := userDay{user, r.Date}
	if r.code != http.StatusOK || r.Limit != d.quotas.limitOf(user) || r.Usage < d.seen[at] || r.Usage > d.quotas.counters[at].calls {
		got.wrong = append(got.wrong, fmt.Sprintf("%s: %d %s, after a count of %d, with %d in all predicted", r.path, r.code, r.body, d.seen[at], d.quotas.counters[at].calls))
	}
	d.seen[at] = max(d.seen[at], r.Usage)
}

// askAtTheEnd asks for the quota of a user near the limit and of one over it, when everything is counted.
func (d *demo) askAtTheEnd(ctx context.Context) error {
	for user, to := range map[string]*reply{d.quotas.near: &d.result.counted.near, d.quotas.over: &d.result.counted.over} {
		if user == "" {
			continue
		}
		var err error
		if *to, err = d.ask(ctx, user); err != nil {
			return err
		}
		limit := d.quotas.limitOf(user)
		want := d.quotas.counters[userDay{user, to.Date}].calls // nothing on a day that has just started
		if to.code != http.StatusOK || to.Usage != want || to.Limit != limit || to.Exceeded != (want >= limit) {
			d.result.counted.wrong = append(d.result.counted.wrong, fmt.Sprintf("%s: %d %s, with %d of %d predicted", to.path, to.code, to.body, want, limit))
		}
	}
	return nil
}
