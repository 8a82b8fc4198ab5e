package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// An Asker asks a service for quotas, or reserves, at a steady rate, in a process of its own: it stands for other machines, so its
// latencies must not hold what the load costs the process that makes it.
type Asker struct {
	Addr        string    // of the service
	Users       string    // file with the users to ask about, one a line
	Rate        int       // requests a second; 0: it asks about every user once and ends
	Connections int       // they go over
	Reserve     bool      // it reserves a call for a second instead of asking; with Rate
	From, Until time.Time // requests that are due then count; before From it asks as well
	Out         string    // file for the microseconds that each took, a JSON array
}

// Run asks at the rate until it is over, whether or not the requests before are answered, as long as a connection is free.
// The time of each counts from when it was due: what waits for a connection has waited for the service.
func (a Asker) Run(ctx context.Context) (err error) {
	text, err := os.ReadFile(a.Users)
	if err != nil {
		return fmt.Errorf("read whom to ask about: %w", err)
	}
	var requests [][]byte
	users := strings.Fields(string(text))
	for _, user := range users {
		requests = append(requests, fmt.Appendf(nil, "GET /v1/users/%s/quota HTTP/1.1\r\nHost: %s\r\n\r\n", user, a.Addr))
	}
	connections := make([]*connection, a.Connections)
	for i := range connections {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", a.Addr)
		if err != nil {
			return fmt.Errorf("connect to the service: %w", err)
		}
		defer c.Close()
		connections[i] = &connection{Conn: c, read: bufio.NewReader(c)}
	}
	var next atomic.Int64
	all := func(work func(c *connection, took *[]int64) error) ([]int64, error) {
		next.Store(-1)
		each := make([][]int64, len(connections))
		var group errgroup.Group
		for i, c := range connections {
			group.Go(func() error { return work(c, &each[i]) })
		}
		err := group.Wait()
		var took []int64
		for _, t := range each {
			took = append(took, t...)
		}
		return took, err
	}
	if a.Rate == 0 {
		_, err = all(func(c *connection, _ *[]int64) error {
			for n := int(next.Add(1)); n < len(requests); n = int(next.Add(1)) {
				if err := c.ask(requests[n]); err != nil {
					return err
				}
			}
			return nil
		})
		return err
	}
	began := time.Now()
	took, err := all(func(c *connection, took *[]int64) error {
		*took = make([]int64, 0, int(a.Until.Sub(a.From).Seconds()+1)*a.Rate) // nothing is collected while it measures
		wait := time.NewTimer(0)
		defer wait.Stop()
		for {
			n := next.Add(1)
			due := began.Add(time.Duration(n) * time.Second / time.Duration(a.Rate))
			if due.After(a.Until) {
				return nil
			}
			wait.Reset(time.Until(due))
			select {
			case <-wait.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			place := int(n) * 7919 % len(requests) // a prime: all have their turn, none twice in a row
			request := requests[place]
			if a.Reserve {
				request = a.reservation(users[place], n)
			}
			if err := c.ask(request); err != nil {
				return err
			}
			if !due.Before(a.From) {
				*took = append(*took, time.Since(due).Microseconds())
			}
		}
	})
	if err != nil {
		return err
	}
	out, err := json.Marshal(took)
	if err != nil {
		return err
	}
	return os.WriteFile(a.Out, out, 0o644)
}

// reservation is a request under an id that no other has.
func (a *Asker) reservation(user string, n int64) []byte {
	body := fmt.Sprintf(`{"reservation_id":"bench-%d","ttl_seconds":1}`, n)
	return fmt.Appendf(nil, "POST /v1/users/%s/reservations HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", user, a.Addr, len(body), body)
}

// A connection asks one thing after the other. It is less work than net/http's client, which would share the processors
// with the service.
type connection struct {
	net.Conn
	read *bufio.Reader
}

// ask sends a request and reads its answer, which must have a Content-Length and be a 200, a 201, or the 429 of a user at the limit.
func (c *connection) ask(request []byte) error {
	if _, err := c.Write(request); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	length := -1
	for first := true; ; first = false {
		line, err := c.read.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read the answer to %q: %w", request, err)
		}
		line = bytes.TrimSpace(line)
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) && !bytes.HasPrefix(line, []byte("HTTP/1.1 201")) && (request[0] != 'P' || !bytes.HasPrefix(line, []byte("HTTP/1.1 429"))) {
			return fmt.Errorf("the answer to %q is %q", request, line)
		}
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(": ")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return fmt.Errorf("read the answer to %q: %w", request, err)
			}
		}
	}
	if length < 0 {
		return errors.New("the answer to " + string(request) + " does not say how long it is")
	}
	if _, err := io.CopyN(io.Discard, c.read, int64(length)); err != nil {
		return fmt.Errorf("read the answer to %q: %w", request, err)
	}
	return nil
}
