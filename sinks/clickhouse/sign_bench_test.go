package clickhouse

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"golang.org/x/sys/unix"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/migrations"
)

// signCost compares what the engine spends on the same rows with and without the columns of voids, in turns, so that what else the machine
// does falls on both. The tables without them feed the totals by count() and plain sums, as they did before voids.
//
//	go test ./sinks/clickhouse -run '^$' -bench BenchmarkSign -benchtime 400x
type signCost struct {
	*engine.ClickHouse
	files map[string]string // by database
}

const withSign, withoutSign = "with_sign", "without_sign"

// voidColumns are what voids need.
const voidColumns = "sign, voids_source, voids_id"

func newSignCost(b *testing.B) *signCost {
	b.Helper()
	c := &signCost{enginetest.ClickHouse(b), map[string]string{}}
	for _, database := range []string{withSign, withoutSign} {
		options, err := chgo.ParseDSN(c.DSNOf(database))
		if err != nil {
			b.Fatal(err)
		}
		m, err := migrations.OpenClickHouse(b.Context(), options, true)
		if err != nil {
			b.Fatal(err)
		}
		_, err = m.Up(b.Context())
		_ = m.Close()
		if err != nil {
			b.Fatal(err)
		}
		if database == withoutSign {
			c.takeOut(b)
		}
		for _, table := range tablesOfRows {
			c.query(b, "SYSTEM STOP MERGES "+database+"."+table) // measured apart
		}
	}
	c.write(b)
	return c
}

func (c *signCost) query(b *testing.B, text string) {
	b.Helper()
	if _, err := c.Query(b.Context(), text); err != nil {
		b.Fatalf("%s: %v", text, err)
	}
}

// takeOut makes the tables those of before the sign.
func (c *signCost) takeOut(b *testing.B) {
	b.Helper()
	feed := regexp.MustCompile(`(?s)CREATE MATERIALIZED VIEW IF NOT EXISTS (\w+) TO \w+ AS\n(SELECT.*?);`)
	files, err := filepath.Glob("../../migrations/clickhouse/0000[234]_*.sql")
	if err != nil || len(files) != 3 {
		b.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		found := feed.FindStringSubmatch(string(text))
		if found == nil {
			b.Fatalf("%s has no feed", file)
		}
		query := strings.Replace(found[2], "FROM usage_tracking", "FROM "+withoutSign+".usage_tracking", 1)
		c.query(b, "ALTER TABLE "+withoutSign+"."+found[1]+" MODIFY QUERY "+query)
	}
	for column := range strings.SplitSeq(voidColumns, ", ") {
		c.query(b, "ALTER TABLE "+withoutSign+".usage_tracking DROP COLUMN "+column)
	}
}

// write writes the rows of a full batch to a file for each, one block in the table's order.
func (c *signCost) write(b *testing.B) {
	b.Helper()
	options, err := chgo.ParseDSN(c.DSNOf(withSign))
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), Config{Options: options, InsertTimeout: enginetest.Patience})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	block := NewBlock()
	fill(block, traffic(benchRows))
	in := s.intent(block)
	if err := s.Insert(b.Context(), in, block, 0, block.Len()); err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	for database, columns := range map[string]string{withSign: "*", withoutSign: "* EXCEPT (" + voidColumns + ")"} {
		c.files[database] = filepath.Join(dir, database+".native")
		c.query(b, fmt.Sprintf("INSERT INTO FUNCTION file('%s', 'Native') SELECT %s REPLACE (now64(3, 'UTC') + INTERVAL 1 DAY AS _insert_by) FROM %s.usage_tracking "+
			"ORDER BY company_id, user_id, timestamp, event_id SETTINGS max_block_size = %d, min_insert_block_size_rows = %d", c.files[database], columns, withSign, benchRows, benchRows))
	}
}

// spent is the processor time the engine has used, of all its threads.
func (c *signCost) spent(b *testing.B) time.Duration {
	b.Helper()
	var now unix.Timespec
	// The clock of another process's processor time, as clock_getcpuclockid(3) makes it.
	if err := unix.ClockGettime(int32(^c.Pid()<<3|2), &now); err != nil {
		b.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// asSent are the settings that the service sends with an insert. Without a token the engine would hash every value of the block, which costs as
// much again as the insert, and more for each column.
func asSent(token string) string {
	var list []string
	for name, value := range oneBlock(token, int(enginetest.Patience.Seconds())) {
		list = append(list, fmt.Sprintf("%s = '%v'", name, value))
	}
	return strings.Join(list, ", ")
}

// An operation is a full batch, inserted once with the sign and once without.
func BenchmarkSign(b *testing.B) {
	c := newSignCost(b)
	inserts := 0
	insert := func(database string) time.Duration {
		inserts++
		before := c.spent(b)
		c.query(b, fmt.Sprintf("INSERT INTO %s.usage_tracking FROM INFILE '%s' SETTINGS %s FORMAT Native", database, c.files[database], asSent(fmt.Sprint(database, inserts))))
		return c.spent(b) - before
	}
	for range 2 {
		insert(withSign)
		insert(withoutSign)
	}
	spent := map[string]time.Duration{}
	var shares []float64
	rows := 0
	for b.Loop() {
		order := []string{withSign, withoutSign}
		if len(shares)%2 == 1 {
			order[0], order[1] = order[1], order[0]
		}
		pair := map[string]time.Duration{}
		for _, database := range order {
			pair[database] = insert(database)
			spent[database] += pair[database]
		}
		if len(shares)%50 == 49 { // an insert gets slower with the parts there are
			for _, database := range order {
				for _, table := range tablesOfRows {
					c.query(b, "TRUNCATE TABLE "+database+"."+table)
				}
			}
		}
		shares = append(shares, float64(pair[withSign])/float64(pair[withoutSign]))
		rows += benchRows
	}
	for _, database := range []string{withSign, withoutSign} {
		b.ReportMetric(float64(spent[database].Nanoseconds())/float64(rows), database+"-ns/row")
	}
	// The median of the pairs: what the machine does to one insert (a neighbour, a slow page) is in a sum, and not in it.
	slices.Sort(shares)
	b.ReportMetric(100*(shares[len(shares)/2]-1), "insert-%")
	merge := func(database string) (total time.Duration) {
		for _, table := range tablesOfRows {
			c.query(b, "SYSTEM START MERGES "+database+"."+table)
			before := c.spent(b)
			c.query(b, "OPTIMIZE TABLE "+database+"."+table+" FINAL")
			total += c.spent(b) - before
		}
		return total
	}
	with, without := merge(withSign), merge(withoutSign)
	b.ReportMetric(100*(float64(with)/float64(without)-1), "merge-%")
	b.ReportMetric(100*(float64(spent[withSign]+with)/float64(spent[withoutSign]+without)-1), "both-%")
}

// What the columns cost before a block is sent: an operation is a full batch without voids.
func BenchmarkSignEncode(b *testing.B) {
	block := NewBlock()
	fill(block, traffic(benchRows))
	rows := block.parts(0, block.Len())[0].rows
	var buf proto.Buffer
	perRow(b)
	for b.Loop() {
		buf.Reset()
		encodeSigns(&buf, block, rows)
		encodeVoids(&buf, block, rows)
	}
}
