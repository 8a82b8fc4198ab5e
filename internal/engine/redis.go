package engine

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Redis is a Redis server in Dragonfly's place: the same protocol, as long as one stays on commands that both have. Or it is a
// Dragonfly: see StartDragonfly.
type Redis struct{ *instance }

// StartRedis runs a Redis server, installing it when it is missing, and returns when it answers PING. It evicts
// nothing (maxmemory-policy noeviction).
func StartRedis(ctx context.Context, o Options) (*Redis, error) {
	server, err := redisServer(ctx, o.log())
	if err != nil {
		return nil, fmt.Errorf("start redis: %w", err)
	}
	var persist []string
	switch o.Persistence {
	case AppendOnly, "":
		persist = []string{"--save", "", "--appendonly", "yes", "--appendfsync", "always"}
	case Snapshot:
		persist = []string{"--save", "3600 1", "--appendonly", "no"}
	case Forgetful:
		persist = []string{"--save", "", "--appendonly", "no"}
	default:
		return nil, fmt.Errorf("start redis: unknown persistence %q", o.Persistence)
	}
	e, err := open("redis", o)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(e.dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		e.Release()
		return nil, fmt.Errorf("start redis: %w", err)
	}
	r := &Redis{e}
	e.command = func() (*exec.Cmd, error) {
		args := []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(e.Port()), "--dir", data, "--daemonize", "no",
			"--maxmemory-policy", "noeviction", "--enable-debug-command", "local"}
		return exec.Command(server, append(args, persist...)...), nil
	}
	e.probe = r.ping
	if err := e.begin(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// ping asks without a client library, whose pools retry and log for themselves. While data is loaded the answer is an
// error.
func (r *Redis) ping(ctx context.Context) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.Addr())
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	if answer != "+PONG\r\n" {
		return fmt.Errorf("answer to PING: %q", answer)
	}
	return nil
}

// URL is the server's address in go-redis's form.
func (r *Redis) URL() string { return "redis://" + r.Addr() + "/0" }
