package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/jobs"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/sinks/postgres"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// A fixture is an installation with a schedule whose clock stands where the test sets it.
type fixture struct {
	dsn, prefix string
	log         *kafkatest.Log
	conn        *pgx.Conn
	mu          sync.Mutex // of conn
}

func newFixture(t *testing.T, now string) *fixture {
	t.Helper()
	broker := enginetest.SharedKafka(t)
	f := &fixture{dsn: postgrestest.New(t), prefix: enginetest.NewTopicOn(t, broker, 1) + "."}
	topic := f.prefix + events.TopicMaintenance
	enginetest.CreateTopic(t, broker, topic, 1)
	enginetest.CreateTopic(t, broker, events.DeadLetterTopic(topic), 1)
	f.log = &kafkatest.Log{Brokers: broker.Addr(), Topic: topic, Group: topic + ".group", Partitions: 1}
	f.log.RenewClient(t)
	conn, err := pgx.Connect(t.Context(), f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	f.conn = conn
	f.exec(t, "CREATE TABLE public.test_clock (at timestamptz)")
	f.exec(t, "INSERT INTO public.test_clock VALUES ($1)", at(now))
	f.exec(t, "CREATE OR REPLACE FUNCTION public.job_clock() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT c.at FROM public.test_clock AS c'")
	return f
}

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return t.UTC()
}

func (f *fixture) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// set sets the clock of the schedule.
func (f *fixture) set(t testing.TB, now string) {
	t.Helper()
	f.exec(t, "UPDATE public.test_clock SET at = $1", at(now))
}

// advance moves the clock of the schedule on.
func (f *fixture) advance(t testing.TB, by time.Duration) {
	t.Helper()
	f.exec(t, "UPDATE public.test_clock SET at = at + $1::interval", by)
}

// query returns rows of one column of text.
func (f *fixture) query(t testing.TB, sql string, args ...any) []string {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	rows, _ := f.conn.Query(t.Context(), sql, args...) // its error comes with the rows
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return lines
}

// slots are those of the table, as "job day hour state".
func (f *fixture) slots(t testing.TB) []string {
	t.Helper()
	return f.query(t, "SELECT job || ' ' || to_char(slot AT TIME ZONE 'UTC', 'MM-DD HH24') || ' ' || state FROM job_slots ORDER BY job, slot")
}

// settled reports whether every slot is at its end and published.
func (f *fixture) settled(t testing.TB) bool {
	t.Helper()
	return f.query(t, "SELECT count(*)::text FROM job_slots WHERE finished_at IS NULL OR state = 'done' AND published_at IS NULL")[0] == "0"
}

// awaitSlots waits until the table has these slots, and all of them are at their end and published.
func (f *fixture) awaitSlots(t testing.TB, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if enginetest.Eventually(ctx, func() bool { return slices.Equal(f.slots(t), want) && f.settled(t) }) != nil {
		t.Fatalf("got slots %q\nwant %q, all published", f.slots(t), want)
	}
}

// published counts the events on the topic by id and type; the same id twice must be the same event.
func (f *fixture) published(t *testing.T) map[string]int {
	t.Helper()
	seen, data := map[string]int{}, map[string]string{}
	decoder, err := events.NewDecoder(f.prefix)
	if err != nil {
		t.Fatal(err)
	}
	f.log.ReadAll(t, f.log.Topic, func(r *events.Record) {
		e, err := decoder.Decode(r)
		if err != nil {
			t.Fatalf("offset %d: %v", r.Offset, err)
		}
		name := e.Type + " " + e.Time.Format("01-02 15")
		if before, again := data[e.ID]; again && before != string(e.Data) {
			t.Errorf("%s is two events: %s and %s", name, before, e.Data)
		}
		data[e.ID] = string(e.Data)
		seen[name]++
	})
	return seen
}

// A worker is what the jobs of a test do: it counts the runs of each slot, and sees that a job has one at a time.
type worker struct {
	mu     sync.Mutex
	runs   map[events.Slot]int
	atWork map[string]int
	most   int
	hold   func(ctx context.Context, slot events.Slot) error // within a run; nil: nothing
}

func newWorker() *worker { return &worker{runs: map[events.Slot]int{}, atWork: map[string]int{}} }

func (w *worker) job(name string, every jobs.Every, rule jobs.Catchup) jobs.Job {
	return jobs.Job{Name: name, Every: every, Catchup: rule, Run: func(ctx context.Context, at time.Time) (any, error) {
		slot := events.Slot{Job: name, At: at}
		w.mu.Lock()
		w.runs[slot]++
		w.atWork[name]++
		w.most = max(w.most, w.atWork[name])
		w.mu.Unlock()
		defer func() {
			w.mu.Lock()
			w.atWork[name]--
			w.mu.Unlock()
		}()
		if w.hold != nil {
			if err := w.hold(ctx, slot); err != nil {
				return nil, err
			}
		}
		return map[string]string{"slot": at.Format(time.RFC3339)}, ctx.Err()
	}}
}

func (w *worker) ran(job, slot string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs[events.Slot{Job: job, At: at(slot)}]
}

func (w *worker) total() (runs, most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.runs {
		runs += n
	}
	return runs, w.most
}

var errDead = errors.New("the process is dead")

// A process is one process with the part jobs. It may be killed: then nothing it does reaches a store or the log.
type process struct {
	store  *postgres.Store
	killAt string // a border between two steps, before or behind one: "before take"
	looks  chan struct{}

	mu       sync.Mutex
	dead     bool
	died     chan struct{}
	stopAll  context.CancelFunc
	ended    chan struct{}
	registry *prometheus.Registry
}

// border is called at each border. Its error means that the process is dead.
func (p *process) border(where string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dead && where == p.killAt {
		p.dead = true
		close(p.died)
		p.stopAll()
	}
	if p.dead {
		return errDead
	}
	return nil
}

// step does a step between two borders.
func step[T any](p *process, name string, does func(T) bool, do func() (T, error)) (T, error) {
	var none T
	if err := p.border("alive"); err != nil {
		return none, err
	}
	if p.killAt == "before "+name {
		// A step that finds nothing to do is no border.
		if err := p.border(p.killAt); err != nil {
			return none, err
		}
	}
	got, err := do()
	if err == nil && does(got) {
		if dead := p.border("after " + name); dead != nil {
			return none, dead
		}
	}
	return got, err
}

func anything[T any](T) bool { return true }

func (p *process) RegisterJobs(ctx context.Context, every map[string]string) error {
	if err := p.border("alive"); err != nil {
		return err
	}
	return p.store.RegisterJobs(ctx, every)
}

func (p *process) WatchJobs(ctx context.Context, names []string, lease time.Duration) ([]postgres.JobWatch, error) {
	select {
	case p.looks <- struct{}{}:
	default:
	}
	if err := p.border("alive"); err != nil {
		return nil, err
	}
	return p.store.WatchJobs(ctx, names, lease)
}

func (p *process) PlanJob(ctx context.Context, job string, decide func(postgres.JobState) postgres.JobPlan) (plan postgres.JobPlan, skipped int64, err error) {
	plan, err = step(p, "plan", func(plan postgres.JobPlan) bool { return !plan.To.IsZero() }, func() (plan postgres.JobPlan, err error) {
		plan, skipped, err = p.store.PlanJob(ctx, job, decide)
		return plan, err
	})
	return plan, skipped, err
}

func kinds(all []postgres.JobEvent) string {
	if len(all) > 0 && all[0].Done {
		return "done"
	}
	return "due"
}

func (p *process) JobEvents(ctx context.Context, names []string) ([]postgres.JobEvent, error) {
	if err := p.border("alive"); err != nil {
		return nil, err
	}
	all, err := p.store.JobEvents(ctx, names)
	if err == nil && len(all) > 0 {
		if dead := p.border("after claim of " + kinds(all)); dead != nil {
			return nil, dead
		}
	}
	return all, err
}

func (p *process) MarkJobEvents(ctx context.Context, published []postgres.JobEvent) error {
	_, err := step(p, "mark of "+kinds(published), anything, func() (bool, error) { return true, p.store.MarkJobEvents(ctx, published) })
	return err
}

func (p *process) QueueSlots(ctx context.Context, all []events.Slot) ([]events.Slot, error) {
	return step(p, "queue", anything, func() ([]events.Slot, error) { return p.store.QueueSlots(ctx, all) })
}

func (p *process) TakeSlot(ctx context.Context, job, owner string, lease time.Duration) (*postgres.JobAttempt, error) {
	return step(p, "take", func(a *postgres.JobAttempt) bool { return a != nil }, func() (*postgres.JobAttempt, error) { return p.store.TakeSlot(ctx, job, owner, lease) })
}

func (p *process) KeepSlot(ctx context.Context, a postgres.JobAttempt, lease time.Duration) (bool, error) {
	if err := p.border("alive"); err != nil {
		return false, err
	}
	return p.store.KeepSlot(ctx, a, lease)
}

func (p *process) EndSlot(ctx context.Context, a postgres.JobAttempt, result json.RawMessage) (bool, error) {
	return step(p, "end", anything, func() (bool, error) { return p.store.EndSlot(ctx, a, result) })
}

func (p *process) RetrySlot(ctx context.Context, a postgres.JobAttempt, why string, after time.Duration) (bool, error) {
	if err := p.border("alive"); err != nil {
		return false, err
	}
	return p.store.RetrySlot(ctx, a, why, after)
}

func (p *process) PostponeSlot(ctx context.Context, a postgres.JobAttempt, why string, until time.Time) (bool, error) {
	if err := p.border("alive"); err != nil {
		return false, err
	}
	return p.store.PostponeSlot(ctx, a, why, until)
}

func (p *process) ReleaseSlot(ctx context.Context, a postgres.JobAttempt) error {
	if err := p.border("alive"); err != nil {
		return err
	}
	return p.store.ReleaseSlot(ctx, a)
}

func (p *process) Jobs(ctx context.Context) ([]postgres.JobInfo, error) {
	if err := p.border("alive"); err != nil {
		return nil, err
	}
	return p.store.Jobs(ctx)
}

// borders are all of them, in the order in which a slot passes them.
func borders() []string {
	return []string{"before plan", "after plan", "after claim of due", "before publish of due", "after publish of due", "before mark of due", "after mark of due",
		"before queue", "after queue", "before take", "after take", "before end", "after end",
		"after claim of done", "before publish of done", "after publish of done", "before mark of done", "after mark of done"}
}

// start runs a process until the test ends, it is killed or stop is called.
func (f *fixture) start(t *testing.T, killAt string, all ...jobs.Job) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{killAt: killAt, looks: make(chan struct{}), died: make(chan struct{}), stopAll: cancel, ended: make(chan struct{}), registry: prometheus.NewRegistry()}
	var err error
	if p.store, err = postgres.Open(t.Context(), postgres.Config{DSN: f.dsn, Timeout: enginetest.Patience}); err != nil {
		t.Fatal(err)
	}
	decoder, err := events.NewDecoder(f.prefix)
	if err != nil {
		t.Fatal(err)
	}
	transport := &kafkago.Transport{}
	results := kafka.NewResults(&kafkago.Client{Addr: kafkago.TCP(f.log.Brokers), Transport: transport, Timeout: enginetest.Patience})
	publish := func(ctx context.Context, all []kafka.Result) error {
		kind := "due"
		if all[0].Event.Source == events.JobSource() {
			kind = "done"
		}
		_, err := step(p, "publish of "+kind, anything, func() (bool, error) { return true, results.Publish(ctx, all, func(error) {}) })
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("TENANTFLOW_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
	}
	schedule, err := jobs.New(jobs.Config{Jobs: all, Store: p, Publish: publish, TopicPrefix: f.prefix, Owner: fmt.Sprintf("%p", p), Poll: 20 * time.Millisecond,
		Metrics: jobs.NewMetrics(p.registry, names...), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	member := f.log.Join(t, consumers.NewJobs(consumers.JobsConfig{Store: p, Decoder: decoder, Queued: func(int) { schedule.Wake() }}))
	go func() {
		defer close(p.ended)
		defer p.store.Close()
		defer transport.CloseIdleConnections()
		defer func() { _ = results.Close() }()
		if err := schedule.Run(ctx); err != nil {
			t.Error(err)
		}
		_ = member.Stop()
	}()
	context.AfterFunc(ctx, member.Cancel)
	t.Cleanup(p.stop)
	return p
}

// stop ends a process as a signal would.
func (p *process) stop() {
	p.stopAll()
	<-p.ended
}

// looked waits until the process has looked at the schedule a few times.
func (p *process) looked(t *testing.T) {
	t.Helper()
	for range 3 {
		kafkatest.Await(t, "a look at the schedule", p.looks)
	}
}

// metric reads a counter or gauge of a job.
func (p *process) metric(t *testing.T, name, job string) float64 {
	t.Helper()
	all, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && m.GetLabel()[0].GetValue() == job {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("there is no %s of %s", name, job)
	return 0
}

// outcomes counts the attempts at slots of a job.
func (p *process) outcomes(t *testing.T, job string) map[string]float64 {
	t.Helper()
	all, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, family := range all {
		for _, m := range family.GetMetric() {
			if family.GetName() == "tenantflow_job_runs_total" && m.GetLabel()[0].GetValue() == job {
				counts[m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return counts
}
