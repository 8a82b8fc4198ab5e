package bench

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of the times in /proc/PID/stat: USER_HZ, 100 a second on every Linux there is.
const clockTick = 10 * time.Millisecond

// cpuTime is the user and system time a process has used, all its threads together.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the processor time of process %d: %w", pid, err)
	}
	// "pid (name) state ppid ...", where the name may hold anything; utime and stime are fields 14 and 15.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the processor time of process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// memory reads a line of /proc/PID/status, in MB: VmHWM is the largest resident set so far, VmRSS the one now.
func memory(pid int, line string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("read the memory of process %d: it has no %s", pid, line)
}

// heap is what the Go runtime of the service says about itself.
type heap struct{ objects, bytes, collections float64 }

// readHeap reads the service's metrics page.
func readHeap(ctx context.Context, addr string) (heap, error) {
	var h heap
	err := readMetrics(ctx, addr, func(name string, v float64) {
		switch name {
		case "go_memstats_mallocs_total":
			h.objects = v
		case "go_memstats_alloc_bytes_total":
			h.bytes = v
		case "go_gc_duration_seconds_count":
			h.collections = v
		}
	})
	return h, err
}

// readCounted reads from the service's metrics page how many events it has counted, or found to be counted.
func readCounted(ctx context.Context, addr string) (n float64, err error) {
	err = readMetrics(ctx, addr, func(name string, value float64) {
		switch name {
		case `tenantflow_quota_events_total{outcome="counted"}`, `tenantflow_quota_events_total{outcome="known"}`:
			n += value
		}
	})
	return n, err
}

// readMetrics calls each for every line of the service's metrics page.
func readMetrics(ctx context.Context, addr string, each func(name string, value float64)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("read metrics: %w", err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil { // else it is a comment
			each(name, v)
		}
	}
	return lines.Err()
}

// times are the processor times of all processes at one moment.
type times struct{ service, clickhouse, kafka, redis time.Duration }

// times reads them; pid is the service's, 0 where there is none.
func (w *world) times(pid int) (t times, err error) {
	if pid != 0 {
		if t.service, err = cpuTime(pid); err != nil {
			return t, err
		}
	}
	if w.clickhouse != nil {
		if t.clickhouse, err = cpuTime(w.clickhouse.Pid()); err != nil {
			return t, err
		}
	}
	if w.redis != nil {
		if t.redis, err = cpuTime(w.redis.Pid()); err != nil {
			return t, err
		}
	}
	t.kafka, err = cpuTime(w.kafka.Pid())
	return t, err
}

// perRow is the time between two moments, for each row.
func perRow(from, to times, rows int) CPU {
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(rows) }
	return CPU{Tenantflow: us(to.service - from.service), ClickHouse: us(to.clickhouse - from.clickhouse), Kafka: us(to.kafka - from.kafka),
		Redis: us(to.redis - from.redis)}
}
