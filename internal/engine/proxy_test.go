package engine_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
)

// behindProxy is a server, a client that reaches it directly and one that goes through a proxy and never retries.
func behindProxy(t *testing.T) (proxy *engine.Proxy, direct, through *redis.Client) {
	t.Helper()
	r := enginetest.Redis(t)
	proxy = enginetest.Proxy(t, r.Addr())
	direct = redis.NewClient(enginetest.RedisOptions(t, r.URL()))
	o := enginetest.RedisOptions(t, "redis://"+proxy.Addr())
	o.MaxRetries = -1
	through = redis.NewClient(o)
	t.Cleanup(func() { direct.Close(); through.Close() })
	return proxy, direct, through
}

func incr(request []byte) bool { return bytes.Contains(bytes.ToLower(request), []byte("incr")) }

func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(enginetest.Patience):
		t.Fatalf("%s did not happen within %s", what, enginetest.Patience)
	}
}

func TestASwallowedResponseLeavesTheWorkDone(t *testing.T) {
	t.Parallel()
	proxy, direct, through := behindProxy(t)
	trap := proxy.SwallowResponse(incr)
	if err := through.Ping(t.Context()).Err(); err != nil {
		t.Fatalf("a request that does not match: %v", err)
	}
	if err := through.WithTimeout(3*time.Second).Incr(t.Context(), "n").Err(); err == nil {
		t.Error("the client got an answer that was to be swallowed")
	}
	within(t, "the swallowing", trap.Caught())
	if n, _ := direct.Get(t.Context(), "n").Int(); n != 1 {
		t.Errorf("n is %d, want the 1 of the request that was not answered", n)
	}
	if n, err := through.Incr(t.Context(), "n").Result(); n != 2 || err != nil {
		t.Errorf("the next request is answered %d, %v, want 2: a trap catches once", n, err)
	}
}

func TestAHeldRequestArrivesLateEvenWhenItsClientIsGone(t *testing.T) {
	t.Parallel()
	proxy, direct, through := behindProxy(t)
	trap := proxy.HoldRequest(incr)
	if err := through.WithTimeout(3*time.Second).Incr(t.Context(), "n").Err(); err == nil {
		t.Fatal("the held request was answered")
	}
	within(t, "the holding", trap.Caught())
	through.Close()
	proxy.Cut()
	if n, err := direct.Get(t.Context(), "n").Int(); !errors.Is(err, redis.Nil) {
		t.Fatalf("the held request has arrived: n is %d, %v", n, err)
	}
	trap.Release()
	enginetest.Await(t, "the released request to arrive", func() bool { n, _ := direct.Get(t.Context(), "n").Int(); return n == 1 })
}

func TestAHeldRequestIsAnsweredWhenItIsReleasedInTime(t *testing.T) {
	t.Parallel()
	r := enginetest.Redis(t)
	proxy := enginetest.Proxy(t, r.Addr())
	o := enginetest.RedisOptions(t, "redis://"+proxy.Addr())
	o.MaxRetries = -1
	c := redis.NewClient(o)
	defer c.Close()
	trap := proxy.HoldRequest(incr)
	answered := make(chan error, 1)
	go func() { answered <- c.Set(t.Context(), "incr", strings.Repeat("x", 1<<20), 0).Err() }()
	within(t, "the holding", trap.Caught())
	trap.Release()
	if err := <-answered; err != nil {
		t.Errorf("a large request, held and released: %v", err)
	}
	if n, err := c.Incr(t.Context(), "n").Result(); n != 1 || err != nil {
		t.Errorf("the next request on the connection is answered %d, %v", n, err)
	}
}

func TestCutAndRefusedConnectionsComeBack(t *testing.T) {
	t.Parallel()
	proxy, _, through := behindProxy(t)
	ping := func() error { return through.Ping(t.Context()).Err() }
	if err := ping(); err != nil {
		t.Fatal(err)
	}
	proxy.Refuse(true)
	for range 3 {
		if ping() == nil {
			t.Error("answered through a proxy that refuses")
		}
	}
	proxy.Refuse(false)
	enginetest.Await(t, "an answer after the proxy lets in again", func() bool { return ping() == nil })
}
