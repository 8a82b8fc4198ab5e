package bench

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// machine says what the numbers belong to.
func machine(engines []string) []string {
	cpu := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	memory := "unknown memory"
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		memory = fmt.Sprintf("%.0f GiB of memory", float64(info.Totalram)*float64(info.Unit)/(1<<30))
	}
	var uts syscall.Utsname
	kernel := ""
	if syscall.Uname(&uts) == nil {
		for _, c := range uts.Release {
			if c == 0 {
				break
			}
			kernel += string(rune(byte(c)))
		}
	}
	return []string{
		fmt.Sprintf("Machine: %d x %s, %s, Linux %s", runtime.NumCPU(), cpu, memory, kernel),
		fmt.Sprintf("%s, %s; broker, stores, service and benchmark share the machine", strings.Join(engines, ", "), runtime.Version()),
	}
}

// report writes the measurements as Markdown, which is readable as it is.
func report(out io.Writer, about []string, all []Measurement) {
	by := map[string]*Measurement{}
	for i := range all {
		by[all[i].Name] = &all[i]
	}
	fmt.Fprintln(out)
	for _, line := range about {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintln(out)
	throughput(out, all)
	ratios(out, by)
	latencies(out, all)
	weights(out, all)
	takeovers(out, all)
	tenantCosts(out, all)
	blockedCosts(out, all)
	yearCosts(out, all)
}

func throughput(out io.Writer, all []Measurement) {
	t := table{heads: []string{"measurement", "what", "rows/s (median)", "min .. max", "CPU us a row: service", "ClickHouse", "Kafka", "Redis", "peak RSS MB", "allocs/1000 rows"}}
	for i := range all {
		m := &all[i]
		if m.Latency != nil || m.Weights != nil || m.Takeover != nil || m.Tenants != nil || m.Blocked != nil || m.Year != nil {
			continue
		}
		t.row(m.Name, m.What, thousands(m.RowsPerSecond), thousands(m.Min)+" .. "+thousands(m.Max), decimal(m.CPU.Tenantflow, 2),
			decimal(m.CPU.ClickHouse, 2), decimal(m.CPU.Kafka, 2), decimal(m.CPU.Redis, 2), decimal(m.PeakRSS, 0), decimal(m.Allocations, 1))
	}
	t.write(out)
}

// ratios compares runs of the same round, because these had the most in common.
func ratios(out io.Writer, by map[string]*Measurement) {
	t := table{heads: []string{"ratio", "median of rounds", "min .. max"}}
	compare := func(one string, others ...string) {
		for _, other := range others {
			a, b := by[one], by[other]
			if a == nil || b == nil {
				continue
			}
			all := make([]float64, 0, len(a.Runs))
			for i := range a.Runs {
				all = append(all, a.Runs[i].RowsPerSecond/b.Runs[i].RowsPerSecond)
			}
			slices.Sort(all)
			t.row(one+" / "+other, decimal(median(all), 2), decimal(all[0], 2)+" .. "+decimal(all[len(all)-1], 2))
		}
	}
	for _, one := range []string{Tenantflow, LargeBatches} {
		compare(one, KafkaEngine, InsertLimit, InsertLimitTwo, InsertLimitSorted, WithoutGuarantees)
	}
	compare(Quota, QuotaBaseline)
	compare(QuotaEach, QuotaEachBaseline)
	compare(UsageAndQuota, Tenantflow, Quota)
	t.write(out)
}

func latencies(out io.Writer, all []Measurement) {
	t := table{heads: []string{"latency, ms", "what", "p50", "p99", "longest", "probes", "peak RSS MB"}}
	for i := range all {
		if l := all[i].Latency; l != nil {
			t.row(all[i].Name, all[i].What, millis(l.P50), millis(l.P99), millis(l.Max), fmt.Sprint(l.Probes), decimal(all[i].PeakRSS, 0))
		}
	}
	t.write(out)
}

// millis writes milliseconds, few of them with a digit more.
func millis(v float64) string {
	if v < 20 {
		return decimal(v, 1)
	}
	return decimal(v, 0)
}

func weights(out io.Writer, all []Measurement) {
	t := table{heads: []string{"memory of Redis, bytes", "users", "partitions of each", "a user and day"}}
	for i := range all {
		for _, m := range all[i].Weights {
			t.row(all[i].Name, fmt.Sprint(m.Users), fmt.Sprint(m.Partitions), decimal(m.PerCounter, 0))
		}
	}
	t.write(out)
}

func takeovers(out io.Writer, all []Measurement) {
	t := table{heads: []string{"takeover", "partitions", "records in their filters", "s until all count", "records/s", "peak RSS MB"}}
	for i := range all {
		if m := all[i].Takeover; m != nil {
			t.row(all[i].Name, fmt.Sprint(m.Partitions), thousands(float64(m.Records)), decimal(m.Seconds, 1), thousands(float64(m.Records)/m.Seconds), decimal(all[i].PeakRSS, 0))
		}
	}
	t.write(out)
}

func tenantCosts(out io.Writer, all []Measurement) {
	for i := range all {
		c := all[i].Tenants
		if c == nil {
			continue
		}
		t := table{heads: []string{fmt.Sprintf("%s companies", thousands(float64(c.Companies))), ""}}
		t.row("one registration alone, at first and at last, median", fmt.Sprintf("%s ms, %s ms", decimal(c.First, 1), decimal(c.Last, 1)))
		t.row("registrations a second: first tenth, all, last tenth", fmt.Sprintf("%.0f, %.0f, %.0f", c.RegistrationsNew, c.Registrations, c.RegistrationsEnd))
		t.row("payments recorded a second", thousands(c.Payments))
		t.row("an upgrade: 1 user, "+thousands(manyUsers)+" users", fmt.Sprintf("%s ms, %s ms", millis(c.UpgradeOne), millis(c.UpgradeMany)))
		t.row("a downgrade that suspends "+thousands(manyUsers-1)+" users", millis(c.DowngradeMany)+" ms")
		t.row("a migration of all, killed and run again", fmt.Sprintf("%.1f s (killed after %s)", c.Migration, thousands(float64(c.MigratedFirst))))
		t.row("memory of a server process of its own, the largest; all", fmt.Sprintf("%.0f MB; %.0f MB in %d", c.BackendMB, c.BackendsMB, c.Backends))
		t.row("peak RSS of the service; size of the database", fmt.Sprintf("%.0f MB; %.0f MB", c.ServiceMB, c.DatabaseMB))
		t.write(out)
	}
}

func blockedCosts(out io.Writer, all []Measurement) {
	for i := range all {
		c := all[i].Blocked
		if c == nil {
			continue
		}
		t := table{heads: []string{"companies that can't go on", "neighbours' p50, ms", "p99", "longest", "p99 / p99 with none", "events"}}
		for _, l := range []struct {
			blocked int
			took    *Latency
		}{{0, c.None}, {1, c.One}, {blockedMost, c.Many}} {
			t.row(fmt.Sprint(l.blocked), millis(l.took.P50), millis(l.took.P99), millis(l.took.Max), decimal(l.took.P99/c.None.P99, 2), fmt.Sprint(l.took.Probes))
		}
		t.write(out)
		fmt.Fprintf(out, "%d companies have caught up, each in its order, %s s after their locks are gone.\n\n", blockedMost, decimal(c.CatchUp, 1))
	}
}

func yearCosts(out io.Writer, all []Measurement) {
	for i := range all {
		c := all[i].Year
		if c == nil {
			continue
		}
		t := table{heads: []string{"answers over HTTP, ms", "goal p95", "cold: p50", "p95", "longest", "warm: p50", "p95", "longest", "beside usage: p50", "p95", "longest", "asked"}}
		for _, a := range c.Asked {
			cells := []string{a.Name, decimal(a.Goal, 0)}
			var asked []string
			for _, times := range []*Times{a.Cold, a.Warm, a.Live} {
				if times == nil { // nothing was measured
					times = &Times{}
				}
				cells = append(cells, millis(times.P50), millis(times.P95), millis(times.Max))
				asked = append(asked, fmt.Sprint(times.Asked))
			}
			t.row(append(cells, strings.Join(asked, ", "))...)
		}
		t.write(out)
		fmt.Fprintf(out, "%s companies, %s users, %s rows of usage (loaded at %s a second), %s events of companies (%s a second). %s answers with %s members are all what the model says. Peak RSS of the service: %.0f MB.\n\n",
			thousands(float64(c.Companies)), thousands(float64(c.Users)), thousands(float64(c.Rows)), thousands(c.RowsPerSecond), thousands(float64(c.Events)), thousands(c.EventsPerSecond),
			thousands(float64(c.Answers)), thousands(float64(c.Members)), c.ServiceMB)
	}
}

// A table is written as Markdown with columns of even width.
type table struct {
	heads []string
	rows  [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(out io.Writer) {
	if len(t.rows) == 0 {
		return
	}
	widths := make([]int, len(t.heads))
	for _, cells := range append([][]string{t.heads}, t.rows...) {
		for i, c := range cells {
			widths[i] = max(widths[i], len(c))
		}
	}
	line := func(cells []string) {
		for i, c := range cells {
			fmt.Fprintf(out, "| %-*s ", widths[i], c)
		}
		fmt.Fprintln(out, "|")
	}
	line(t.heads)
	rule := make([]string, len(t.heads))
	for i := range rule {
		rule[i] = strings.Repeat("-", widths[i])
	}
	line(rule)
	for _, cells := range t.rows {
		line(cells)
	}
	fmt.Fprintln(out)
}

func decimal(v float64, digits int) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%.*f", digits, v)
}

// thousands writes 1234567 as 1,234,567.
func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
