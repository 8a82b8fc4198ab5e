// Package totals compares the hourly, daily and monthly totals with the rows they come from, and corrects those that
// are not what the rows add up to.
//
// A total is a sum that the views add to, block by block, after the rows have landed. So three questions decide whether
// a difference is one, and what may be done about it:
//
//   - Is anything under way in it (judge.go)? A look counts only when no insert ran during it. A difference is judged
//     when three such looks, further apart than the longest insert, see the same one, and no insert that was pending in
//     the group's metadata at the first of them is still pending at the last. Traffic in a key does not matter then.
//   - May it be lowered (lower.go)? A total may be right and its rows may be missing. Raising needs no reason; lowering does.
//   - Can a correction land beside another one (claim.go)? Each is announced by a claim in usage_corrections, and the
//     server takes a correction only while its claim is the newest of its key and its deadline has not passed.
//
// `tenantflow verify` compares everything ([Checker.Compare]), the service the keys of inserts whose outcome was unknown
// ([Watcher]).
package totals

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/segmentio/kafka-go"

	"tenantflow/sinks/clickhouse"
)

// Config is what a Checker needs.
type Config struct {
	// Client reaches the brokers, for the positions of the group.
	Client *kafka.Client

	// ClickHouse are the options of the connection. The protocol must be HTTP.
	ClickHouse *chgo.Options

	// Topic is the topic of usage events, with its prefix, and Group the consumer group that writes their rows.
	Topic, Group string

	// InsertTimeout is the service's own setting: how long an insert may take. The first and the last look at a difference
	// lie further apart than this, and a correction must arrive within it, or within 5s if that is more. Default: that of the sink.
	InsertTimeout time.Duration

	// By names this process in usage_corrections. Default: host name and process id.
	By string

	// Progress, if set, is called now and then with how far a comparison is: a stage and its steps.
	Progress func(stage string, done, total int64)

	Logger *slog.Logger
}

// A Checker compares totals with rows and corrects them. It may be used by several goroutines at once.
type Checker struct {
	cfg  Config
	conn driver.Conn
	log  *slog.Logger
}

// Open makes a Checker. It does not connect yet.
func Open(cfg Config) (*Checker, error) {
	cfg.InsertTimeout = cmp.Or(cfg.InsertTimeout, clickhouse.DefaultInsertTimeout)
	if cfg.By == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown host"
		}
		cfg.By = fmt.Sprintf("%s %d", host, os.Getpid())
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string, int64, int64) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	conn, err := clickhouse.Connect(Pinned(cfg.ClickHouse))
	if err != nil {
		return nil, err
	}
	return &Checker{cfg: cfg, conn: conn, log: cfg.Logger}, nil
}

// Close closes the connections to ClickHouse. The Kafka client is the caller's.
func (c *Checker) Close() error { return c.conn.Close() }

// An Aggregate is what was found out about the totals of one view.
type Aggregate struct {
	View      string `json:"view"`
	Keys      int64  `json:"keys"`      // compared
	Different int64  `json:"different"` // the same difference in three looks, with nothing under way in it
	Busy      int64  `json:"busy"`      // differ and could not be judged: inserts were under way in every look, or one is pending
	Expired   int64  `json:"expired"`   // differ, and rows may have left by their age: not judged
}

// A Comparison is the result of comparing all totals with the rows.
type Comparison struct {
	Aggregates []Aggregate // hourly, daily, monthly
	Wrong      []Total     // totals that differ; of very many, the first 20,000 of a view and month
}

// Compare compares all totals with the rows. It waits longer than the insert timeout if, and only if, something seems
// to differ.
func (c *Checker) Compare(ctx context.Context) (*Comparison, error) {
	border, err := c.border(ctx)
	if err != nil {
		return nil, err
	}
	all := aggregates()
	result := &Comparison{Aggregates: make([]Aggregate, len(all))}
	var suspects []*suspects
	for i := range all {
		result.Aggregates[i].View = all[i].view
		chunks, err := c.chunks(ctx, &all[i], border)
		if err != nil {
			return nil, err
		}
		for n, part := range chunks {
			c.cfg.Progress(all[i].view, int64(n), int64(len(chunks)))
			s, keys, err := c.firstLook(ctx, part, part.everything(border))
			if err != nil {
				return nil, err
			}
			result.Aggregates[i].Keys += keys
			if s != nil {
				suspects = append(suspects, s)
			}
		}
	}
	return result, c.conclude(ctx, result, suspects, border)
}

// CompareOf compares the totals that the rows of some ranges of offsets are part of, each as a whole. It waits as Compare does.
func (c *Checker) CompareOf(ctx context.Context, ranges []clickhouse.Recheck) (*Comparison, error) {
	border, err := c.border(ctx)
	if err != nil {
		return nil, err
	}
	result := &Comparison{}
	for _, a := range aggregates() {
		result.Aggregates = append(result.Aggregates, Aggregate{View: a.view})
	}
	if len(ranges) == 0 {
		return result, nil
	}
	suspects, looked, err := c.touched(ctx, ranges)
	if err != nil {
		return nil, err
	}
	for view, keys := range looked {
		result.aggregate(view).Keys = keys
	}
	return result, c.conclude(ctx, result, suspects, border)
}

// conclude judges suspects, and counts what they came to.
func (c *Checker) conclude(ctx context.Context, result *Comparison, suspects []*suspects, border string) error {
	if err := c.judge(ctx, suspects, border); err != nil {
		return err
	}
	for _, s := range suspects {
		a := result.aggregate(s.of.view)
		a.Different += int64(len(s.wrong))
		a.Busy += int64(len(s.cases))
		a.Expired += s.expired
		// They differed at first sight, and were not looked at one by one.
		if len(s.wrong) > 0 {
			a.Different += s.unlisted
		} else {
			a.Busy += s.unlisted
		}
		result.Wrong = append(result.Wrong, s.wrong...)
	}
	return nil
}

func (r *Comparison) aggregate(view string) *Aggregate {
	for i := range r.Aggregates {
		if r.Aggregates[i].View == view {
			return &r.Aggregates[i]
		}
	}
	return nil // there is one for every view
}

// Listed is how many of the wrong totals of a view are in Wrong.
func (r *Comparison) Listed(view string) int64 {
	n := int64(0)
	for i := range r.Wrong {
		if r.Wrong[i].of.view == view {
			n++
		}
	}
	return n
}

// border is the first day that is compared with rows, as YYYY-MM-DD: a day short of what the table may have dropped.
func (c *Checker) border(ctx context.Context) (string, error) {
	var border string
	if err := c.conn.QueryRow(ctx, "SELECT toString(toDate(now('UTC') - INTERVAL 2 YEAR) + 2)").Scan(&border); err != nil {
		return "", fmt.Errorf("read ClickHouse's clock: %w", err)
	}
	return border, nil
}

// chunks lists what an aggregate is compared in: months, where store and rows have them.
func (c *Checker) chunks(ctx context.Context, a *aggregate, border string) ([]chunk, error) {
	if a.month == "" {
		return []chunk{{of: a}}, nil
	}
	return c.months(ctx, a, statement("months", struct{ Month, Store string }{a.month, a.store}), border)
}

// months makes chunks of the months that a query gives.
func (c *Checker) months(ctx context.Context, a *aggregate, query string, args ...any) ([]chunk, error) {
	answer, err := Ask(ctx, c.conn, query, End{Row: "toUInt32(0)", Order: "month"}, args...)
	if err != nil {
		return nil, fmt.Errorf("list the months of %s: %w", a.view, err)
	}
	var chunks []chunk
	var month uint32
	for answer.Next(&month) {
		chunks = append(chunks, chunk{of: a, month: int(month)})
	}
	if err := answer.Close(); err != nil {
		return nil, fmt.Errorf("list the months of %s: %w", a.view, err)
	}
	return chunks, nil
}

// ErrNotThere is returned when the topic does not exist. Running the migrations is what helps.
var ErrNotThere = errors.New("it does not exist")
