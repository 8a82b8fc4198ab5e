package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"tenantflow/internal/model"
	"tenantflow/sinks/dragonfly"
)

// How freshness is measured. Rate, time and distance of probes are those of the latency of rows; it takes longer until
// broker and service have warmed up to requests.
const (
	freshWarmUp = 10 * time.Second
	freshUsers  = 50               // who take turns to be the user of a probe
	freshLook   = time.Millisecond // from one look into Redis to the next: the error of the measurement
	askRate     = 2000             // HTTP requests a second
	askConns    = 16               // connections they go over
)

// quotaFresh measures, under a steady load, the time from publishing an event to its user's count having risen, and what
// asking for quotas takes meanwhile.
func (w *world) quotaFresh(ctx context.Context) (fresh, asked Measurement, err error) {
	fresh.Name, asked.Name = QuotaFresh, QuotaHTTP
	if err := w.forget(ctx); err != nil {
		return fresh, asked, err
	}
	d := dataset{prefix: QuotaFresh + ".", partitions: w.Partitions}
	if err := w.topics(ctx, d.prefix, d.partitions); err != nil {
		return fresh, asked, err
	}
	// The users of the load, known beforehand: the same events are made twice.
	g, err := steadyEvents(freshWarmUp + steadyTime)
	if err != nil {
		return fresh, asked, err
	}
	var m model.Message
	for g.Next(&m) {
	}
	want := g.Expected()
	if d.counters, d.members, err = counters(&want); err != nil {
		return fresh, asked, err
	}
	// This process is the load and the clock. What it collects would be taken for the service's time.
	defer debug.SetGCPercent(debug.SetGCPercent(1000))
	p := &freshProber{world: w, users: slices.Sorted(maps.Keys(d.members.company)), sent: make([]int64, freshUsers)}
	d.members.tier[probeCompany] = "pro"
	for n := range freshUsers {
		d.members.company[probeUser(n)] = probeCompany
	}
	if err := w.know(ctx, d.members); err != nil {
		return fresh, asked, err
	}
	prefix := strings.TrimSuffix(w.group(QuotaFresh), usageGroup)
	r, err := w.countingService("quota,api")(ctx, d, "", prefix)
	if err != nil {
		return fresh, asked, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	if err := w.awaitGroup(ctx, r, prefix+".quota", 1); err != nil {
		return fresh, asked, err
	}
	p.addr = r.metrics
	p.writer = &kafka.Writer{
		Addr: w.client.Addr, Transport: w.client.Transport, Topic: d.topic(), Balancer: kafka.Murmur2Balancer{},
		RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond, BatchSize: 1,
	}
	defer func() { err = errors.Join(err, p.writer.Close()) }()
	before, err := w.times(r.pid())
	if err != nil {
		return fresh, asked, err
	}
	if err := p.askOnce(ctx); err != nil {
		return fresh, asked, err
	}
	if g, err = steadyEvents(freshWarmUp + steadyTime); err != nil {
		return fresh, asked, err
	}
	began := time.Now()
	if err := w.steadily(ctx, d, g, p.work); err != nil {
		return fresh, asked, errors.Join(err, r.alive())
	}
	fresh.Rows = g.Config().Count
	run, err := w.finish(ctx, r, finished{rows: fresh.Rows, took: time.Since(began), before: before})
	if err != nil {
		return fresh, asked, err
	}
	fresh.add(run)
	fresh.Latency, asked.Latency = latencyOf(p.took), latencyOf(p.answered)
	asked.PeakRSS = fresh.PeakRSS
	return fresh, asked, r.alive()
}

func probeUser(n int) string { return "probe-" + strconv.Itoa(n) }

// A freshProber publishes events and looks for their counts, and asks for quotas.
type freshProber struct {
	*world
	writer *kafka.Writer
	addr   string   // of the service's HTTP interface
	users  []string // to ask about

	mu      sync.Mutex
	sent    []int64 // events published of each probe's user
	waiting []freshProbe
	took    []time.Duration

	answered []time.Duration
}

type freshProbe struct {
	user    int
	count   int64 // of the user that shows it
	sent    time.Time
	reading *redis.StringCmd
}

// work probes and asks until ctx ends, and returns when all probes are found and all answers there.
func (p *freshProber) work(ctx context.Context) error {
	outlive := context.WithoutCancel(ctx)
	var all errgroup.Group
	published := make(chan struct{})
	measured := time.Now().Add(freshWarmUp)
	all.Go(func() error {
		defer close(published)
		return p.publish(ctx, measured)
	})
	all.Go(func() error {
		return p.await(outlive, "the last probes", time.Minute+freshWarmUp+steadyTime, freshLook, func() (bool, error) {
			missing, err := p.look(outlive, measured)
			select {
			case <-published:
				return missing == 0, err
			default:
				return false, err
			}
		})
	})
	all.Go(func() error {
		// What the warm-up has left unanswered at its end is nobody's: the clock begins with requests that are due then.
		warming, cancel := context.WithDeadline(ctx, measured)
		defer cancel()
		if _, err := p.ask(warming); err != nil {
			return err
		}
		var err error
		p.answered, err = p.ask(ctx)
		return err
	})
	return all.Wait()
}

// publish sends a probe now and then.
func (p *freshProber) publish(ctx context.Context, measured time.Time) error {
	outlive := context.WithoutCancel(ctx)
	tick := time.NewTicker(steadyProbes)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		user := n % freshUsers
		now := time.Now()
		message := probeEvent(probeUser(user), "probe-"+strconv.Itoa(n), now)
		p.mu.Lock()
		p.sent[user]++
		p.waiting = append(p.waiting, freshProbe{user: user, count: p.sent[user], sent: now})
		p.mu.Unlock()
		if err := p.writer.WriteMessages(outlive, message); err != nil {
			return fmt.Errorf("publish a probe: %w", err)
		}
	}
}

// look asks for the counts that are waited for. Those of the warm-up are found, too, and not kept.
func (p *freshProber) look(ctx context.Context, measured time.Time) (missing int, err error) {
	p.mu.Lock()
	waiting := slices.Clone(p.waiting)
	p.mu.Unlock()
	if len(waiting) == 0 {
		return 0, nil
	}
	pipe := p.counts.Pipeline()
	for i, probe := range waiting {
		waiting[i].reading = pipe.HGet(ctx, dragonfly.QuotaKey(probeUser(probe.user), probe.sent), "api_calls")
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("read the counts of probes: %w", err)
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	late := p.waiting[len(waiting):] // published meanwhile
	p.waiting = nil
	for _, probe := range waiting {
		if n, _ := probe.reading.Int64(); n < probe.count {
			p.waiting = append(p.waiting, probe)
		} else if probe.sent.After(measured) {
			p.took = append(p.took, now.Sub(probe.sent))
		}
	}
	p.waiting = append(p.waiting, late...)
	return len(p.waiting), nil
}

// askOnce asks about every user once, so that the service knows them: a service that has run for a while does.
func (p *freshProber) askOnce(ctx context.Context) error {
	var next atomic.Int64
	return p.connections(ctx, func(_ int, ask func(n int) error) error {
		for n := int(next.Add(1)); n < len(p.users) && ctx.Err() == nil; n = int(next.Add(1)) {
			if err := ask(n); err != nil {
				return err
			}
		}
		return nil
	})
}

// connections has the same done on each of a few connections, which ask about the user of a number.
func (p *freshProber) connections(ctx context.Context, do func(conn int, ask func(n int) error) error) error {
	var all errgroup.Group
	for conn := range askConns {
		all.Go(func() error {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.addr)
			if err != nil {
				return err
			}
			defer c.Close()
			read := bufio.NewReader(c)
			return do(conn, func(n int) error {
				user := p.users[n*7919%len(p.users)] // a prime: all have their turn, none twice in a row
				if err := get(c, read, p.addr, "/v1/users/"+user+"/quota"); err != nil {
					return fmt.Errorf("ask for the quota of %s: %w", user, err)
				}
				return nil
			})
		})
	}
	return all.Wait()
}

// ask sends requests at a steady rate, whether or not the ones before are answered, as long as a connection is free. The
// time of each counts from when it was due: what waits for a connection has waited for the service.
func (p *freshProber) ask(ctx context.Context) ([]time.Duration, error) {
	began := time.Now()
	var next atomic.Int64
	took := make([][]time.Duration, askConns)
	err := p.connections(ctx, func(conn int, ask func(n int) error) error {
		wait := time.NewTimer(0)
		defer wait.Stop()
		for {
			n := next.Add(1)
			due := began.Add(time.Duration(n) * time.Second / askRate)
			wait.Reset(time.Until(due))
			select {
			case <-wait.C:
			case <-ctx.Done():
				return nil
			}
			if err := ask(int(n)); err != nil {
				return err
			}
			took[conn] = append(took[conn], time.Since(due))
		}
	})
	return slices.Concat(took...), err
}

// get makes one request on an open connection. It is less work than net/http's client, which would share the processors
// with the service.
func get(c net.Conn, read *bufio.Reader, host, path string) error {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host); err != nil {
		return err
	}
	res, err := http.ReadResponse(read, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, body)
	}
	return nil
}
