package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/internal/engine"
)

// An event is one of a company.
type event struct {
	company, kind string
	data          map[string]any
}

func companyID(n int) string { return "bench-" + strconv.Itoa(n) }

// registered registers a company with its first user.
func registered(n int) event {
	id := companyID(n)
	return event{company: id, kind: "company.registered.v1", data: map[string]any{
		"name": "Company " + strconv.Itoa(n), "billing_email": "billing@" + id + ".example", "initial_user": map[string]any{"user_id": id + "-u", "email": "first@" + id + ".example"},
	}}
}

// message makes the record of an event, with an identity of its own.
func (b *tenantBench) message(topic string, e event) (kafka.Message, error) {
	e.data["company_id"] = e.company
	value, err := json.Marshal(e.data)
	if err != nil {
		return kafka.Message{}, err
	}
	b.published++
	return kafka.Message{Topic: b.prefix + topic, Key: []byte(e.company), Value: value, Headers: []kafka.Header{
		{Key: "content-type", Value: []byte("application/json")}, {Key: "ce_specversion", Value: []byte("1.0")},
		{Key: "ce_id", Value: []byte(strconv.Itoa(b.published))}, {Key: "ce_source", Value: []byte("/bench/tenants")},
		{Key: "ce_type", Value: []byte(e.kind)}, {Key: "ce_time", Value: []byte(time.Now().UTC().Format(time.RFC3339Nano))},
	}}, nil
}

// end is how many records a topic has.
func (b *tenantBench) end(ctx context.Context, topic string) (int, error) {
	name := b.prefix + topic
	var ends []kafka.OffsetRequest
	for p := range b.Partitions {
		ends = append(ends, kafka.LastOffsetOf(p))
	}
	res, err := b.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{name: ends}})
	if err != nil {
		return 0, err
	}
	sum := 0
	for _, p := range res.Topics[name] {
		if p.Error != nil {
			return 0, p.Error
		}
		sum += int(p.LastOffset)
	}
	if len(res.Topics[name]) != b.Partitions {
		return 0, fmt.Errorf("%s has %d partitions, want %d", name, len(res.Topics[name]), b.Partitions)
	}
	return sum, nil
}

// one publishes an event and waits for its result.
func (b *tenantBench) one(ctx context.Context, topic, results string, e event) (time.Duration, error) {
	m, err := b.message(topic, e)
	if err != nil {
		return 0, err
	}
	before, err := b.end(ctx, results)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := b.writer.WriteMessages(ctx, m); err != nil {
		return 0, err
	}
	err = b.await(ctx, "the result of "+e.kind, time.Minute, time.Millisecond, func() (bool, error) {
		after, err := b.end(ctx, results)
		if err == nil && after == before {
			err = b.running.alive()
		}
		return after > before, err
	})
	return time.Since(began), err
}

// marks are how many results were there at which times.
type marks struct {
	total int
	at    []time.Duration
	count []int
}

// rate is how many a second came between two shares of them.
func (m marks) rate(from, to float64) float64 {
	when := func(share float64) (time.Duration, int) {
		for i, n := range m.count {
			if float64(n) >= share*float64(m.total) {
				return m.at[i], n
			}
		}
		return m.at[len(m.at)-1], m.count[len(m.count)-1]
	}
	began, first := when(from)
	ended, last := when(to)
	return float64(last-first) / (ended - began).Seconds()
}

// all publishes events, each of which has one result, and watches the results come. The clock begins before the first one
// is published.
func (b *tenantBench) all(ctx context.Context, topic, results string, backlog []event) (marks, error) {
	messages := make([]kafka.Message, len(backlog))
	for i, e := range backlog {
		var err error
		if messages[i], err = b.message(topic, e); err != nil {
			return marks{}, err
		}
	}
	before, err := b.end(ctx, results)
	if err != nil {
		return marks{}, err
	}
	m := marks{total: len(backlog), at: []time.Duration{0}, count: []int{0}}
	began := time.Now()
	if err := b.writer.WriteMessages(ctx, messages...); err != nil {
		return m, err
	}
	err = b.await(ctx, fmt.Sprintf("%d results", len(backlog)), 15*time.Minute, 50*time.Millisecond, func() (bool, error) {
		n, err := b.end(ctx, results)
		m.at, m.count = append(m.at, time.Since(began)), append(m.count, n-before)
		if err == nil {
			err = b.running.alive()
		}
		return n-before >= len(backlog), err
	})
	return m, err
}

// migrate brings all companies' tables to a further version with the command that an operator runs, kills it half way, and
// runs it again.
func (b *tenantBench) migrate(ctx context.Context, c *TenantCost) error {
	if _, err := b.conn.Exec(ctx, `INSERT INTO public.tenant_migrations (version, name, up_sql, checksum)
		SELECT max(version) + 1, 'bench.sql', 'ALTER TABLE users ADD COLUMN note text; CREATE INDEX users_by_note ON users (note)', '-' FROM public.tenant_migrations`); err != nil {
		return fmt.Errorf("add a version of the tables: %w", err)
	}
	migrated := func() (n int, err error) {
		err = b.conn.QueryRow(ctx, "SELECT count(*) FROM public.tenant_schema_versions WHERE version = (SELECT max(version) FROM public.tenant_migrations)").Scan(&n)
		return n, err
	}
	begin := func() (*running, error) {
		cmd := exec.Command(b.Binary, "tenant", "migrate") //nolint:noctx // it is waited for or killed below
		cmd.Env = append(b.environ(), "TENANTFLOW_POSTGRES_DSN="+b.postgres.DSN())
		return b.run(cmd, "")
	}
	began := time.Now()
	first, err := begin()
	if err != nil {
		return err
	}
	if err := b.await(ctx, "half of the migration", 10*time.Minute, 10*time.Millisecond, func() (bool, error) {
		n, err := migrated()
		return n >= b.Companies/2 || ended(first.process), err
	}); err != nil {
		return err
	}
	if err := first.process.Kill(); err != nil {
		return err
	}
	if c.MigratedFirst, err = migrated(); err != nil {
		return err
	}
	again, err := begin()
	if err != nil {
		return err
	}
	if err := b.await(ctx, "the rest of the migration", 10*time.Minute, 10*time.Millisecond, func() (bool, error) { return ended(again.process), nil }); err != nil {
		return err
	}
	c.Migration = time.Since(began).Seconds()
	if err := again.process.Err(); err != nil {
		return fmt.Errorf("migrate companies: %w\n%s", err, again.logTail())
	}
	n, err := migrated()
	if err == nil && n != b.Companies {
		err = fmt.Errorf("%d of %d companies were migrated", n, b.Companies)
	}
	b.say("%s: %d companies migrated in %.1f s, killed after %d", Tenants, n, c.Migration, c.MigratedFirst)
	return err
}

func ended(p *engine.Process) bool {
	select {
	case <-p.Exited():
		return true
	default:
		return false
	}
}

// ownMemory is the private memory of a process, in MB.
func ownMemory(pid int) (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	defer f.Close()
	sum := 0.0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		if name != "Private_Clean" && name != "Private_Dirty" {
			continue
		}
		kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
		if err != nil {
			return 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
		}
		sum += kib * 1024 / 1e6
	}
	return sum, nil
}
