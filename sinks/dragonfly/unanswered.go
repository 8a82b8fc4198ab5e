package dragonfly

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/retry"
)

// An unansweredError is a request that ran out of time. The client's own words ("i/o timeout", "connection pool timeout") say neither
// whom it asked nor how long it waited.
type unansweredError struct {
	addr   string
	within time.Duration
	err    error
}

func (e *unansweredError) Error() string {
	why := ""
	if errors.Is(e.err, redis.ErrPoolTimeout) {
		why = " (all connections wait for one)"
	}
	return fmt.Sprintf("no answer within %s from Dragonfly at %s%s", e.within, e.addr, why)
}

func (e *unansweredError) Unwrap() error { return e.err }

// Timeout says the same to callers that look at errors of connections.
func (e *unansweredError) Timeout() bool { return true }

// A patience is a go-redis hook that says of requests that ran out of time whom they asked, and how long.
type patience struct{ addr string }

func (p patience) DialHook(next redis.DialHook) redis.DialHook { return next }

func (p patience) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		began := time.Now()
		return p.explain(next(ctx, cmd), began)
	}
}

func (p patience) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		began := time.Now()
		err := next(ctx, cmds)
		if err == nil {
			return nil
		}
		for _, cmd := range cmds { // callers look at these too
			if e := cmd.Err(); e != nil {
				cmd.SetErr(p.explain(e, began))
			}
		}
		return p.explain(err, began)
	}
}

func (p patience) explain(err error, began time.Time) error {
	var slow net.Error
	var said redis.Error
	if err == nil || errors.As(err, &said) || !errors.Is(err, redis.ErrPoolTimeout) && !(errors.As(err, &slow) && slow.Timeout()) {
		return err
	}
	return &unansweredError{p.addr, retry.Waited(began), err}
}
