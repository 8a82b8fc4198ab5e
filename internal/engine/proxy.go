package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
)

// A Proxy stands in front of an engine and breaks its connections in the ways that networks do, at points that a test
// can name. It forwards TCP and parses no protocol; a request is what a client has sent on a connection since the
// engine's last answer on it, of which the first 64 KiB are shown to matchers.
//
//	proxy, err := engine.NewProxy(clickhouse.Addr())
//	...
//	lost := proxy.SwallowResponse(func(request []byte) bool { return bytes.Contains(request, []byte("INSERT")) })
//	...                 // the client sees only a broken connection
//	<-lost.Caught()     // by now the engine has done the work and answered
type Proxy struct {
	listener net.Listener
	target   string
	ctx      context.Context // ends with Close
	end      context.CancelFunc
	done     sync.WaitGroup

	mu     sync.Mutex
	refuse bool
	links  map[*link]struct{}
	traps  []*Trap
}

// A Trap waits for one request and does something to it.
type Trap struct {
	proxy   *Proxy
	match   func(request []byte) bool
	hold    bool // else: swallow the response
	caught  chan struct{}
	release chan struct{}
	once    sync.Once
}

// Caught is closed when the trap has done its part: when the request is held, or when the response was swallowed and
// the client's connection cut.
func (t *Trap) Caught() <-chan struct{} { return t.caught }

// Release lets a held request go on to the engine, even if its client has given up and gone, and disarms a trap that
// has caught nothing. It may be called more than once.
func (t *Trap) Release() {
	t.once.Do(func() { close(t.release) })
	t.proxy.disarm(t)
}

const shownRequest = 64 << 10

// NewProxy listens on a free port of 127.0.0.1 and forwards to target, HOST:PORT.
func NewProxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the proxy of %s: %w", target, err)
	}
	p := &Proxy{listener: l, target: target, links: map[*link]struct{}{}}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.done.Go(p.accept)
	return p, nil
}

// Addr is where clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close cuts all connections, accepts no more, and waits until nothing of the proxy runs.
func (p *Proxy) Close() error {
	p.end()
	err := p.listener.Close()
	p.cut(true)
	p.done.Wait()
	return err
}

// Cut breaks all connections now. A request that is held stays held. New connections are served.
func (p *Proxy) Cut() { p.cut(false) }

// Refuse, when on, breaks all connections and every new one as soon as it is made, until it is off again.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	p.refuse = on
	p.mu.Unlock()
	if on {
		p.Cut()
	}
}

// SwallowResponse arms a trap for the next request that matches: it goes to the engine whole, and when the engine
// begins to answer, the answer is dropped and the client's connection cut. So the work is done and the client can't
// know. The matcher may be called again as more of a request comes in; nil matches everything.
func (p *Proxy) SwallowResponse(match func(request []byte) bool) *Trap { return p.arm(match, false) }

// HoldRequest arms a trap for the next request that matches: nothing of it reaches the engine from the chunk on that
// made it match, until the trap's Release. If the client gives up meanwhile the request goes to the engine all the
// same, late, as far as it was sent.
func (p *Proxy) HoldRequest(match func(request []byte) bool) *Trap { return p.arm(match, true) }

func (p *Proxy) arm(match func([]byte) bool, hold bool) *Trap {
	if match == nil {
		match = func([]byte) bool { return true }
	}
	t := &Trap{proxy: p, match: match, hold: hold, caught: make(chan struct{}), release: make(chan struct{})}
	p.mu.Lock()
	p.traps = append(p.traps, t)
	p.mu.Unlock()
	return t
}

func (p *Proxy) disarm(t *Trap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.traps {
		if other == t {
			p.traps = append(p.traps[:i:i], p.traps[i+1:]...)
			return
		}
	}
}

// spring returns the armed trap that the request falls into, if any. A trap catches once.
func (p *Proxy) spring(request []byte) *Trap {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, t := range p.traps {
		if t.match(request) {
			p.traps = append(p.traps[:i:i], p.traps[i+1:]...)
			return t
		}
	}
	return nil
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.done.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	refuse := p.refuse || p.ctx.Err() != nil
	p.mu.Unlock()
	if refuse {
		reset(client)
		return
	}
	server, err := new(net.Dialer).DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		reset(client) // the engine is down, and so are we
		return
	}
	defer server.Close()
	l := &link{proxy: p, client: client, server: server}
	p.mu.Lock()
	if p.refuse || p.ctx.Err() != nil {
		p.mu.Unlock()
		reset(client)
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	var up sync.WaitGroup
	up.Go(l.requests)
	l.responses()
	up.Wait()
}

func (p *Proxy) cut(heldToo bool) {
	p.mu.Lock()
	links := slices.Collect(maps.Keys(p.links))
	p.mu.Unlock()
	// Not under the lock: a link that forwards a request holds its own lock and wants this one, to look for a trap.
	for _, l := range links {
		l.cut(heldToo)
	}
}

// A link is one client's connection and the one to the engine that belongs to it.
type link struct {
	proxy          *Proxy
	client, server net.Conn

	mu      sync.Mutex
	request []byte // the beginning of what the client sent since the last answer
	swallow *Trap  // springs at the next byte of the engine
	held    bool   // the engine's side must stay open for a request that is yet to be sent
}

// requests forwards what the client sends.
func (l *link) requests() {
	buf := make([]byte, 32<<10)
	for {
		n, err := l.client.Read(buf)
		if n > 0 && !l.forward(buf[:n]) {
			return
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				// The client may still read: close this direction only.
				_ = l.server.(*net.TCPConn).CloseWrite()
			} else {
				l.server.Close()
			}
			return
		}
	}
}

// forward sends one chunk of a request on, unless a trap catches it.
func (l *link) forward(chunk []byte) bool {
	l.mu.Lock()
	if room := shownRequest - len(l.request); room > 0 {
		l.request = append(l.request, chunk[:min(room, len(chunk))]...)
	}
	trap := l.proxy.spring(l.request)
	if trap != nil && trap.hold {
		l.held = true
		l.mu.Unlock()
		return l.hold(trap, chunk)
	}
	if trap != nil {
		l.swallow = trap
	}
	l.mu.Unlock()
	_, err := l.server.Write(chunk)
	return err == nil
}

// hold keeps the chunk and all that the client sends after it until the trap is released or the client is gone and
// the trap is released; then it goes to the engine.
func (l *link) hold(trap *Trap, chunk []byte) bool {
	kept := append([]byte(nil), chunk...)
	close(trap.caught)

	// Reading goes on meanwhile, else a client that sends more than the kernel buffers would block, not time out.
	type read struct {
		chunk []byte
		err   error
	}
	reads := make(chan read)
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			buf := make([]byte, 32<<10)
			n, err := l.client.Read(buf)
			select {
			case reads <- read{buf[:n], err}:
			case <-stop:
				return
			}
			if err != nil {
				return
			}
		}
	})
	var clientErr error
	for released := false; !released; {
		select {
		case r := <-reads:
			kept = append(kept, r.chunk...)
			if r.err != nil {
				clientErr = r.err
				reads = nil
			}
		case <-trap.release:
			released = true
		case <-l.proxy.ctx.Done():
			close(stop)
			reader.Wait() // Close resets the client's connection
			return false
		}
	}
	l.mu.Lock()
	l.held = false
	l.mu.Unlock()
	_, err := l.server.Write(kept)
	// The reader may hold a chunk that came just now; take what it has, or wait for the client to send or leave.
	for clientErr == nil && err == nil {
		r := <-reads
		clientErr = r.err
		if len(r.chunk) > 0 {
			_, err = l.server.Write(r.chunk)
		}
	}
	close(stop)
	if err != nil {
		l.client.Close()
	}
	reader.Wait()
	// The connection has been read to its end here. The engine is not told that the client is gone: it could give up
	// the very request that was to come late. Its connection ends with the proxy.
	return false
}

// responses forwards what the engine sends.
func (l *link) responses() {
	buf := make([]byte, 32<<10)
	for {
		n, err := l.server.Read(buf)
		if n > 0 {
			l.mu.Lock()
			trap := l.swallow
			l.swallow = nil
			l.request = l.request[:0]
			l.mu.Unlock()
			if trap != nil {
				reset(l.client)
				close(trap.caught)
				_, _ = io.Copy(io.Discard, l.server)
				return
			}
			if _, werr := l.client.Write(buf[:n]); werr != nil {
				// The client is gone. The engine's connection stays open: it may be at work on a late request.
				_, _ = io.Copy(io.Discard, l.server)
				return
			}
		}
		if err != nil {
			reset(l.client)
			return
		}
	}
}

func (l *link) cut(heldToo bool) {
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	reset(l.client)
	if !held || heldToo {
		reset(l.server)
	}
}

// reset closes a connection so that the other side sees an error, not an orderly end.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}
