package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"tenantflow/events"
)

// How companies that can't go on are measured.
const (
	blockedFirst      = 1_000_000                                                         // number of the first company: those of other measurements stand in the same database
	blockedNeighbours = 200                                                               // companies whose results are timed
	blockedMost       = 100                                                               // companies that can't go on
	blockedRate       = 60                                                                // events a second, of all companies in turn
	blockedRound      = 3 * (blockedNeighbours + blockedMost) * time.Second / blockedRate // three events of each company
)

// A BlockedCost is what companies that can't go on cost the others: how long these wait for the results of their events. All phases have
// the same load, of all companies.
type BlockedCost struct {
	Events  int      `json:"events"`   // timed
	None    *Latency `json:"none_ms"`  // no company is blocked
	One     *Latency `json:"one_ms"`   // one is, from before the phase to its end
	Many    *Latency `json:"many_ms"`  // a hundred are
	CatchUp float64  `json:"catch_up"` // seconds from the end of the locks of a hundred to their last result, at most
}

// A blockedLoad is a steady load of events of companies, whose results are timed.
type blockedLoad struct {
	*tenantBench
	users map[int]int // how many users a company has had

	mu      sync.Mutex
	sent    map[int]sentEvent // by the number of the event, those without a result
	took    []time.Duration   // of the neighbours' events
	last    map[string]int    // by topic and company, the number of the event whose result came last
	problem error             // a result out of order
}

type sentEvent struct {
	company int
	at      time.Time
}

// tenantsBlocked measures companies while none of their neighbours is blocked, one is, and a hundred are, in turns.
func (w *world) tenantsBlocked(ctx context.Context) (*BlockedCost, error) {
	c := &BlockedCost{}
	return c, w.withTenants(ctx, TenantsBlocked, func(ctx context.Context, b *tenantBench) error {
		l := &blockedLoad{tenantBench: b, users: map[int]int{}, sent: map[int]sentEvent{}, last: map[string]int{}}
		var backlog []event
		for n := range blockedNeighbours + blockedMost {
			backlog = append(backlog, registered(blockedFirst+n))
		}
		if _, err := l.all(ctx, events.TopicCompany, events.TopicCompanyResults, backlog); err != nil {
			return fmt.Errorf("register companies: %w", err)
		}
		return l.read(ctx, func(ctx context.Context) error { return l.phases(ctx, c) })
	})
}

func (l *blockedLoad) phases(ctx context.Context, c *BlockedCost) error {
	took := map[int][]time.Duration{}
	rounds := max(1, int(l.BlockedFor/blockedRound))
	if _, err := l.phase(ctx, 0, 2); err != nil { // to warm up
		return err
	}
	for n := range l.Runs {
		for _, blocked := range []int{0, 1, blockedMost} {
			l.took = nil
			caughtUp, err := l.phase(ctx, blocked, rounds)
			if err != nil {
				return fmt.Errorf("with %d blocked: %w", blocked, err)
			}
			one := latencyOf(slices.Clone(l.took))
			l.say("%s, run %d: %d of %d blocked: p50 %s ms, p99 %s ms, longest %s ms of %d", TenantsBlocked, n+1, blocked,
				blockedNeighbours+blockedMost, millis(one.P50), millis(one.P99), millis(one.Max), one.Probes)
			took[blocked] = append(took[blocked], l.took...)
			c.Events += len(l.took)
			c.CatchUp = max(c.CatchUp, caughtUp.Seconds())
		}
	}
	c.None, c.One, c.Many = latencyOf(took[0]), latencyOf(took[1]), latencyOf(took[blockedMost])
	return nil
}

// phase sends the load of some rounds while some companies are blocked, and returns how long these took to catch up.
func (l *blockedLoad) phase(ctx context.Context, blocked, rounds int) (time.Duration, error) {
	var locks []io.Closer
	unlock := func() (err error) {
		for _, lock := range locks {
			err = errors.Join(err, lock.Close())
		}
		locks = nil
		return err
	}
	defer func() { _ = unlock() }() // an earlier error says more
	for n := range blocked {
		lock, err := l.lock(ctx, n)
		if err != nil {
			return 0, fmt.Errorf("lock a company: %w", err)
		}
		locks = append(locks, lock)
	}
	if err := l.send(ctx, rounds); err != nil {
		return 0, err
	}
	missing := func(from int) func() (bool, error) {
		return func() (bool, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, e := range l.sent {
				if e.company >= from {
					return false, errors.Join(l.problem, l.running.alive())
				}
			}
			return true, l.problem
		}
	}
	if err := l.await(ctx, "the neighbours' results", time.Minute, 10*time.Millisecond, missing(blocked)); err != nil {
		return 0, err
	}
	var noted int
	if err := l.conn.QueryRow(ctx, "SELECT count(*) FROM public.company_blocks").Scan(&noted); err != nil {
		return 0, err
	}
	if noted != blocked {
		return 0, fmt.Errorf("%d companies are noted as blocked, want %d", noted, blocked)
	}
	began := time.Now()
	if err := unlock(); err != nil {
		return 0, err
	}
	err := l.await(ctx, "the others to catch up", 5*time.Minute, 10*time.Millisecond, missing(0))
	return time.Since(began), err
}

// A lock is an open transaction of a company's own login.
type lock struct {
	owner *pgx.Conn // who made the login
	conn  *pgx.Conn
	login string
}

// Close ends the transaction.
func (k lock) Close() error {
	err := k.conn.Close(context.Background())
	_, dropped := k.owner.Exec(context.Background(), "DROP ROLE "+k.login)
	return errors.Join(err, dropped)
}

// lock begins a transaction of a company's own login in which its users get accounts: none of them can be removed until it ends.
func (l *blockedLoad) lock(ctx context.Context, n int) (io.Closer, error) {
	schema := pgx.Identifier{"tenant_" + companyID(blockedFirst+n)}.Sanitize()
	k := lock{owner: l.conn, login: "login_" + strconv.Itoa(n)}
	if _, err := l.conn.Exec(ctx, "CREATE ROLE "+k.login+" LOGIN IN ROLE "+schema); err != nil {
		return nil, err
	}
	address, err := url.Parse(l.postgres.DSN())
	if err != nil {
		return nil, err
	}
	address.User = url.User(k.login)
	if k.conn, err = pgx.Connect(ctx, address.String()); err != nil {
		return nil, err
	}
	if _, err := k.conn.Exec(ctx, "BEGIN"); err != nil {
		return nil, errors.Join(err, k.Close()) //nolint:contextcheck // it ends also when the measurement was cut off
	}
	tag, err := k.conn.Exec(ctx, fmt.Sprintf("INSERT INTO %s.mt5_accounts (account_id, user_id, account_number) SELECT row_number() OVER (), user_id, 'n' FROM %[1]s.users", schema))
	if err == nil && tag.RowsAffected() == 0 {
		err = fmt.Errorf("%s has no users", schema)
	}
	if err != nil {
		return nil, errors.Join(err, k.Close()) //nolint:contextcheck // it ends also when the measurement was cut off
	}
	return k, nil
}

// send publishes the events of some rounds at a steady rate: each company's user leaves, another one comes, and a payment is made.
func (l *blockedLoad) send(ctx context.Context, rounds int) error {
	var writes errgroup.Group
	tick := time.NewTicker(time.Second / blockedRate)
	defer tick.Stop()
	for range rounds {
		for step := range 3 {
			for n := range blockedNeighbours + blockedMost {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return errors.Join(context.Cause(ctx), writes.Wait())
				}
				topic, e := l.next(n, step)
				m, err := l.message(topic, e)
				if err != nil {
					return errors.Join(err, writes.Wait())
				}
				l.mu.Lock()
				l.sent[l.published] = sentEvent{n, time.Now()}
				l.mu.Unlock()
				writes.Go(func() error { return l.writer.WriteMessages(ctx, m) })
			}
		}
	}
	return writes.Wait()
}

// next is one of the events of a company's turn.
func (l *blockedLoad) next(n, step int) (topic string, e event) {
	id := companyID(blockedFirst + n)
	user := func() string {
		if l.users[n] == 0 {
			return id + "-u"
		}
		return fmt.Sprintf("%s-u%d", id, l.users[n])
	}
	switch step {
	case 0:
		return events.TopicCompany, event{company: id, kind: events.TypeUserRemoved, data: map[string]any{"user_id": user()}}
	case 1:
		l.users[n]++
		return events.TopicCompany, event{company: id, kind: events.TypeUserAdded, data: map[string]any{"user_id": user(), "email": user() + "@x.example"}}
	default:
		return events.TopicSubscription, event{company: id, kind: events.TypePaymentReceived, data: map[string]any{"payment_id": fmt.Sprintf("blocked-%d", l.published),
			"amount_minor": 4900, "currency": "USD", "paid_at": time.Now().UTC().Format(time.RFC3339)}}
	}
}

// read reads the results that come while do runs.
func (l *blockedLoad) read(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var readers errgroup.Group
	defer func() { _ = readers.Wait() }() // the errors are those of the end
	defer cancel()
	for _, topic := range []string{events.TopicCompanyResults, events.TopicSubscriptionResults} {
		for p := range l.Partitions {
			name := l.prefix + topic
			ends, err := l.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{name: {kafka.LastOffsetOf(p)}}})
			if err != nil {
				return fmt.Errorf("read the end of %s/%d: %w", name, p, err)
			}
			r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{l.client.Addr.String()}, Topic: name, Partition: p, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
			if err := r.SetOffset(ends.Topics[name][0].LastOffset); err != nil {
				return errors.Join(err, r.Close())
			}
			readers.Go(func() error {
				for {
					m, err := r.ReadMessage(ctx)
					if err != nil {
						return errors.Join(err, r.Close())
					}
					l.take(topic, m)
				}
			})
		}
	}
	return do(ctx)
}

// take takes in a result.
func (l *blockedLoad) take(topic string, m kafka.Message) {
	now := time.Now()
	i := slices.IndexFunc(m.Headers, func(h kafka.Header) bool { return strings.EqualFold(h.Key, "ce_causationid") })
	if i < 0 {
		return
	}
	n, err := strconv.Atoi(string(m.Headers[i].Value))
	l.mu.Lock()
	defer l.mu.Unlock()
	e, waits := l.sent[n]
	if err != nil || !waits {
		return
	}
	delete(l.sent, n)
	if key := topic + " " + string(m.Key); n < l.last[key] {
		l.problem = fmt.Errorf("%s: the result of event %d came after that of event %d", key, n, l.last[key])
	} else {
		l.last[key] = n
	}
	if e.company >= blockedMost {
		l.took = append(l.took, now.Sub(e.at))
	}
}
