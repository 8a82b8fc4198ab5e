package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	kafkago "github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"tenantflow/internal/kafka"
	"tenantflow/internal/model"
	"tenantflow/sinks/dragonfly"
)

// How freshness is measured. Rate, time and distance of probes are those of the latency of rows; it takes longer until
// broker and service have warmed up to requests.
const (
	freshWarmUp = 20 * time.Second // a broker that has just been started compiles its code for so long
	freshUsers  = 50               // who take turns to be the user of a probe
	freshLook   = time.Millisecond // from one look into Redis to the next: the error of the measurement
	askRate     = 2000             // HTTP requests a second
	askConns    = 16               // connections they go over
)

// quotaFresh measures, under a steady load, the time from publishing an event to its user's count having risen, and what
// asking for quotas takes meanwhile, or reserving.
func (w *world) quotaFresh(ctx context.Context, reserving bool) (fresh, asked Measurement, err error) {
	fresh.Name, asked.Name = QuotaFresh, QuotaHTTP
	if reserving {
		asked.Name = Reserve
	}
	if err := w.forget(ctx); err != nil {
		return fresh, asked, err
	}
	d := dataset{prefix: asked.Name + ".", partitions: w.Partitions}
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
	p := &freshProber{world: w, reserving: reserving, users: filepath.Join(w.Dir, "users"), sent: make([]int64, freshUsers)}
	users := strings.Join(slices.Sorted(maps.Keys(d.members.company)), "\n")
	if err := os.WriteFile(p.users, []byte(users), 0o600); err != nil {
		return fresh, asked, err
	}
	d.members.tier[probeCompany] = "pro"
	for n := range freshUsers {
		d.members.company[probeUser(n)] = probeCompany
	}
	if err := w.know(ctx, d.members); err != nil {
		return fresh, asked, err
	}
	prefix := strings.TrimSuffix(w.group(asked.Name), usageGroup)
	r, err := w.countingService("quota,api")(ctx, d, "", prefix)
	if err != nil {
		return fresh, asked, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	if err := w.awaitGroup(ctx, r, prefix+".quota", 1); err != nil {
		return fresh, asked, err
	}
	p.addr = r.metrics
	p.writer = &kafkago.Writer{
		Addr: w.client.Addr, Transport: w.client.Transport, Topic: d.topic(), Balancer: kafka.Partitioner{},
		RequiredAcks: kafkago.RequireAll, BatchTimeout: time.Millisecond, BatchSize: 1,
	}
	defer func() { err = errors.Join(err, p.writer.Close()) }()
	// A service that has run for a while knows its users.
	if err := (Asker{Addr: p.addr, Users: p.users, Connections: askConns}).Run(ctx); err != nil {
		return fresh, asked, err
	}
	before, err := w.times(r.pid())
	if err != nil {
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
	writer *kafkago.Writer
	addr   string // of the service's HTTP interface
	users  string // file with those to ask about

	reserving bool // instead of asking for quotas

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
		return p.ask(measured)
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

// ask has a process ask for quotas, from now on for as long as the load lasts, and takes over what the requests took that
// were due after the warm-up.
func (p *freshProber) ask(measured time.Time) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out := filepath.Join(p.Dir, "answered.json")
	//nolint:noctx // it is ended below
	cmd := exec.Command(self, "bench", "asker", "--addr", p.addr, "--users", p.users, "--rate", strconv.Itoa(askRate),
		"--connections", strconv.Itoa(askConns), "--from", measured.Format(time.RFC3339Nano),
		"--until", measured.Add(steadyTime).Format(time.RFC3339Nano), "--out", out, "--reserve="+strconv.FormatBool(p.reserving))
	asker, err := p.run(cmd, "")
	if err != nil {
		return err
	}
	select {
	case <-asker.process.Exited():
		if err := asker.process.Err(); err != nil {
			return fmt.Errorf("ask for quotas: %w\n%s", err, asker.logTail())
		}
	case <-time.After(freshWarmUp + steadyTime + 10*time.Second):
		return errors.Join(errors.New("who asks for quotas does not end"), asker.process.Kill())
	}
	text, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	var took []int64
	if err := json.Unmarshal(text, &took); err != nil {
		return err
	}
	for _, us := range took {
		p.answered = append(p.answered, time.Duration(us)*time.Microsecond)
	}
	return nil
}
