package demo

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"tenantflow/internal/model"
)

// report prints what was found beside what was predicted.
func (r *result) report(out io.Writer) {
	want := r.expected
	t := newTable(out, "", "found", "predicted")
	t.line("messages published", r.published, want.Messages)
	t.line("rows in usage_tracking", r.rows.Rows, want.Tables.Rows)
	t.line("duplicates dropped", r.duplicates(), want.Duplicates)
	t.line("dead letters", r.letterTotal(), want.DeadLetterTotal())
	reasons := slices.Sorted(maps.Keys(want.DeadLetters))
	for reason := range r.letters {
		if _, predicted := want.DeadLetters[reason]; !predicted {
			reasons = append(reasons, reason)
		}
	}
	for _, reason := range reasons {
		t.line("  "+string(reason), r.letters[reason], want.DeadLetters[reason])
	}
	t.line("data points", r.views.Total.DataPoints, want.Tables.Total.DataPoints)
	t.amount("revenue", r.views.Total.Revenue, want.Tables.Total.Revenue)
	t.line("groups in usage_analytics_hourly", int64(len(r.views.Hourly)), int64(len(want.Tables.Hourly)))
	t.line("groups in usage_daily", int64(len(r.views.Daily)), int64(len(want.Tables.Daily)))
	t.line("groups in billing_monthly", int64(len(r.views.Monthly)), int64(len(want.Tables.Monthly)))
	t.text("fingerprint of all rows", fingerprint(r.rows), fingerprint(want.Tables))
	t.end()

	t = newTable(out, "usage_analytics_hourly", "requests", "predicted")
	for _, s := range r.hourly {
		t.line(strings.ReplaceAll(s.key, "|", "  "), s.got.Rows, s.want.Rows)
	}
	t.end()
	t = newTable(out, "billing_monthly", "revenue", "predicted")
	for _, s := range r.monthly {
		t.amount(strings.ReplaceAll(s.key, "|", "  "), s.got.Revenue, s.want.Revenue)
	}
	t.end()

	r.reportQuotas(out)
	r.reportCompanies(out)

	var killed []string
	for _, at := range r.killedAt {
		killed = append(killed, number(at.rows)+" rows and "+number(at.counted)+" counted")
	}
	fmt.Fprintf(out, "\nstored and counted in %s, two kills and their recovery included; %s while rows came in\nkilled at %s\ntenantflow verify: %s\n",
		seconds(r.consuming), rate(r.rows.Rows, r.atWork), strings.Join(killed, ", and at "), passed(r.verified))
	if len(r.differ) > 0 {
		fmt.Fprintf(out, "\nnot as predicted:\n%s", model.Describe(r.differ))
	}
	fmt.Fprintf(out, "\n%s\n", map[bool]string{true: "PASSED: every total, every quota and every result is the predicted one", false: "FAILED"}[r.passed()])
}

// reportQuotas prints what was counted, what was published about it, and what a caller of the service gets to know.
func (r *result) reportQuotas(out io.Writer) {
	q, got := r.quotas, &r.counted
	found, sum := totals(got.counters, got.at)
	predicted, want := totals(q.counters, got.at)
	t := newTable(out, "daily quotas, all users and all days kept", "found", "predicted")
	t.line("counters", found, predicted)
	t.line("calls", sum.calls, want.calls)
	t.line("data points", sum.points, want.points)
	t.line("keys without an expiry, of "+number(got.keys), int64(len(got.immortal)), 0)
	due := q.thresholds()
	for _, percent := range []int{80, 100} {
		of := func(all map[string]threshold) (n int64) {
			for _, e := range all {
				if e.percent == percent {
					n++
				}
			}
			return n
		}
		name, want := fmt.Sprintf("events of users at %d %% of their limit", percent), of(due)
		if q.newDay(got.at) {
			t.lines = append(t.lines, [4]string{name, number(of(got.events)), number(want), "at most: it is a new day"})
			continue
		}
		t.line(name, of(got.events), want)
	}
	t.end()
	fmt.Fprintf(out, "\nasked %d times for a quota while the service worked: %d answers, %d of them wrong; and at the end:\n",
		got.asked, got.answered, len(got.wrong))
	for _, one := range []struct {
		who string
		reply
	}{{"near", got.near}, {"over", got.over}} {
		if one.path == "" {
			fmt.Fprintf(out, "  no user is %s the limit\n", one.who)
			continue
		}
		fmt.Fprintf(out, "  %s the limit: GET %s\n    %d %s\n", one.who, one.path, one.code, one.body)
	}
	if r := got.reserving; r.user != "" {
		fmt.Fprintf(out, "  POST /v1/users/%s/reservations for the %d calls that are left: held until %s\n    one call more: %v\n", r.user, r.left, r.held.ExpiresAt.Format(time.TimeOnly), &r.refused)
	}
}

// reportCompanies prints what happened to the companies, and of one of them every result.
func (r *result) reportCompanies(out io.Writer) {
	got := &r.tenants
	types := map[string]int64{}
	for _, e := range got.results {
		types[e.Type]++
	}
	t := newTable(out, fmt.Sprintf("results of %d companies, each id once", storyCompanies), "found", "predicted")
	for _, name := range slices.Sorted(maps.Keys(got.expected)) {
		t.line(strings.TrimSuffix(name, ".v1"), types[name], int64(got.expected[name]))
	}
	t.text("billing transactions, minor units", got.books, books())
	t.end()
	fmt.Fprintf(out, "\nwhat the billing service sees of %s (time of the effect, start of the id):\n", storyCompany)
	for _, line := range got.lines() {
		fmt.Fprintln(out, "  "+line)
	}
	fmt.Fprintf(out, "  GET %s\n    %d %s\n  all that in %s, a kill included\n", got.quota.path, got.quota.code, got.quota.body, seconds(got.took))
	if v := r.voiding; v.command != "" {
		fmt.Fprintf(out, "\na usage event that was wrong: %s, counted %s today\n  %s\n    now %s, counted %s today; nothing is deleted\n",
			v.before, plural(v.counted, "call"), v.command, v.after, plural(v.quota.Usage, "call"))
	}
}

// fingerprint is short enough to compare by eye.
func fingerprint(t model.Tables) string {
	text, err := t.Contents.MarshalText()
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func passed(ok bool) string {
	if ok {
		return "passed"
	}
	return "FAILED"
}

// A table has a name, what was found, what was predicted and a remark in each line.
type table struct {
	out   io.Writer
	lines [][4]string
}

func newTable(out io.Writer, name, found, predicted string) *table {
	return &table{out: out, lines: [][4]string{{name, found, predicted, ""}}}
}

func (t *table) line(name string, got, want int64) { t.text(name, number(got), number(want)) }

func (t *table) amount(name string, got, want int64) { t.text(name, decimal(got), decimal(want)) }

func (t *table) text(name, got, want string) {
	remark := "="
	if got != want {
		remark = "DIFFERENT"
	}
	t.lines = append(t.lines, [4]string{name, got, want, remark})
}

// end prints the table, names to the left and numbers to the right.
func (t *table) end() {
	var width [3]int
	for _, line := range t.lines {
		for i := range width {
			width[i] = max(width[i], utf8.RuneCountInString(line[i]))
		}
	}
	fmt.Fprintln(t.out)
	for _, line := range t.lines {
		text := fmt.Sprintf("  %-*s   %*s   %*s   %s", width[0], line[0], width[1], line[1], width[2], line[2], line[3])
		fmt.Fprintln(t.out, strings.TrimRight(text, " "))
	}
}

// number writes 1234567 as 1,234,567.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// decimal writes millionths.
func decimal(millionths int64) string {
	return fmt.Sprintf("%s.%06d", number(millionths/1_000_000), millionths%1_000_000)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func rate(n int64, d time.Duration) string {
	return number(int64(float64(n)/max(d.Seconds(), 0.001))) + " events/s"
}
