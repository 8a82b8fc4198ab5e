package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tenantflow/internal/engine"
)

// A contender moves the events of a dataset into the table usage_tracking of a database.
type contender struct {
	name    string
	members int // of its consumer group

	// start sets it going. group is to be the name of its consumer group.
	start func(ctx context.Context, d dataset, database, group string) (*running, error)
}

// A running contender.
type running struct {
	process *engine.Process // nil: it works within ClickHouse
	metrics string          // HOST:PORT of its metrics page; empty: none
	stop    func() error
	logTail func() string
}

func (r *running) pid() int {
	if r.process == nil {
		return 0
	}
	return r.process.Pid()
}

// alive returns an error if the process has ended without being stopped.
func (r *running) alive() error {
	if r.process == nil {
		return nil
	}
	select {
	case <-r.process.Exited():
		return fmt.Errorf("it ended by itself: %w\n%s", errors.Join(r.process.Err(), errors.New("no longer running")), r.logTail())
	default:
		return nil
	}
}

// backlog has a contender read a whole dataset into empty tables. The clock runs from the moment at which the broker
// says that the contender's group has its partitions to the moment at which the table holds all rows; so it is the same
// clock for a service and for the engine, and neither process start nor joining the group counts.
func (w *world) backlog(ctx context.Context, c contender, d dataset) (_ Run, err error) {
	database, err := w.database(ctx)
	if err != nil {
		return Run{}, err
	}
	defer func() { err = errors.Join(err, w.retire(context.WithoutCancel(ctx), database)) }()
	group := w.group(c.name)
	r, err := c.start(ctx, d, database, group)
	if err != nil {
		return Run{}, fmt.Errorf("start %s: %w", c.name, err)
	}
	defer func() { err = errors.Join(err, r.stop()) }()

	if err := w.awaitGroup(ctx, r, group, c.members); err != nil {
		return Run{}, fmt.Errorf("start %s: %w", c.name, err)
	}
	began := time.Now()
	before, err := w.times(r.pid())
	if err != nil {
		return Run{}, err
	}
	var heapBefore heap
	if r.metrics != "" {
		if heapBefore, err = readHeap(ctx, r.metrics); err != nil {
			return Run{}, err
		}
	}
	rows, err := w.awaitRows(ctx, r, database, d)
	if err != nil {
		return Run{}, fmt.Errorf("%s, at %d rows: %w", c.name, rows, err)
	}
	took := time.Since(began)
	if rows != d.rows {
		return Run{}, fmt.Errorf("%s: %d rows of %d events, want %d", c.name, rows, d.events, d.rows)
	}
	return w.finish(ctx, r, finished{database: database, rows: rows, took: took, before: before, heapBefore: heapBefore})
}

// awaitRows waits until the table holds all rows of a dataset, and returns how many it held last.
func (w *world) awaitRows(ctx context.Context, r *running, database string, d dataset) (rows int, err error) {
	err = w.await(ctx, "the rows", 15*time.Minute, 50*time.Millisecond, func() (bool, error) {
		if err := r.alive(); err != nil {
			return false, err
		}
		var err error
		rows, err = w.number(ctx, "SELECT count() FROM "+database+".usage_tracking")
		return rows >= d.rows, err
	})
	return rows, err
}

// finished is what is known of a run when its last row is in the table.
type finished struct {
	database   string // empty: it writes no rows
	rows       int
	took       time.Duration
	before     times
	heapBefore heap
}

// finish reads the meters.
func (w *world) finish(ctx context.Context, r *running, f finished) (Run, error) {
	after, err := w.times(r.pid())
	if err != nil {
		return Run{}, err
	}
	out := Run{Seconds: f.took.Seconds(), RowsPerSecond: float64(f.rows) / f.took.Seconds(), CPU: perRow(f.before, after, f.rows)}
	if r.process != nil {
		if out.PeakRSS, err = memory(r.pid(), "VmHWM"); err != nil {
			return out, err
		}
	}
	if r.metrics != "" {
		h, err := readHeap(ctx, r.metrics)
		if err != nil {
			return out, err
		}
		out.Allocations = (h.objects - f.heapBefore.objects) / float64(f.rows) * 1000
		out.AllocatedMB = (h.bytes - f.heapBefore.bytes) / 1e6
		out.Collections = h.collections - f.heapBefore.collections
	}
	if out.KafkaRSS, err = memory(w.kafka.Pid(), "VmRSS"); err != nil {
		return out, err
	}
	if w.redis != nil {
		if out.RedisRSS, err = memory(w.redis.Pid(), "VmRSS"); err != nil {
			return out, err
		}
	}
	if f.database == "" {
		return out, nil
	}
	if out.ClickHouseRSS, err = memory(w.clickhouse.Pid(), "VmRSS"); err != nil {
		return out, err
	}
	// Parts are numbered in the order of the inserts: the largest number is how many there were.
	parts, err := w.number(ctx, "SELECT max(max_block_number) FROM system.parts WHERE database = '"+f.database+"' AND table = 'usage_tracking'")
	if parts > 0 {
		out.Inserts = float64(f.rows) / float64(parts)
	}
	return out, err
}

// awaitGroup waits until a consumer group has its members and they have their partitions. It asks by franz-go, because
// kafka-go can't read what ClickHouse's client says about itself.
func (w *world) awaitGroup(ctx context.Context, r *running, group string, members int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Addr()))
	if err != nil {
		return err
	}
	defer client.Close()
	req := kmsg.NewDescribeGroupsRequest()
	req.Groups = []string{group}
	var last error
	err = w.await(ctx, "it to join its group", 90*time.Second, 5*time.Millisecond, func() (bool, error) {
		if err := r.alive(); err != nil {
			return false, err
		}
		res, err := req.RequestWith(ctx, client)
		if err != nil || len(res.Groups) != 1 {
			last = err        // the coordinator is not there yet
			return false, nil //nolint:nilerr // asked again
		}
		g := res.Groups[0]
		last = fmt.Errorf("the group %s is in state %q with %d members", group, g.State, len(g.Members))
		return g.State == "Stable" && len(g.Members) >= members, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// freePort finds a port that is not in use.
func freePort(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
