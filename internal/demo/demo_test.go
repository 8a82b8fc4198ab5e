package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/model"
)

// A real Prometheus scrapes the service, killed and started again, and every query of every panel of the dashboard has data.
func TestASmallDemoPassesAndEveryPanelOfTheDashboardHasData(t *testing.T) {
	t.Parallel()
	var out, log bytes.Buffer
	dir := t.TempDir()
	began := time.Now()
	p := startPrometheus(t, dir)
	c := Config{Events: 40_000, Seed: 7, Dir: filepath.Join(dir, "demo"), Build: filepath.Join(dir, "tenantflow"), Out: &out, Log: &log}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	followed := make(chan error, 1)
	go func() { followed <- p.follow(ctx, filepath.Join(c.Dir, "tenantflow.log")) }()
	err := Run(t.Context(), c)
	stop()
	if err := errors.Join(err, <-followed); err != nil {
		t.Fatalf("%v\n%s%s", err, &log, &out)
	}
	for _, want := range []string{"40,000", "dead letters", "counters", "near the limit: GET /v1/users/c0", `"exceeded":true`, "/reservations for the", "429 quota_exceeded", "change ended", "now 2 rows, 0 calls, 0 data points", "verify: passed", "PASSED"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, &out)
		}
	}
	p.checkPanels(t, began)
}

func TestTheReportNamesWhatIsNotAsPredicted(t *testing.T) {
	t.Parallel()
	sums := func(n int64) model.Tables {
		return model.Tables{Rows: n, Total: model.Sums{Rows: n, Revenue: n * 1_500_000}, Hourly: map[string]model.Sums{"acme|pro|api|2026-11-23T16": {Rows: n}}}
	}
	r := result{
		expected:  model.Expected{Messages: 1300, Duplicates: 40, DeadLetters: map[events.Reason]int64{events.Conflict: 26}, Tables: sums(1234)},
		published: 1300, logged: 1300, killedAt: []kill{{300, 500}, {800, 1000}}, verified: true, quotas: &quotas{},
		views: sums(1233), rows: sums(1234), letters: map[events.Reason]int64{events.Conflict: 26},
	}
	r.compare()
	if r.passed() {
		t.Error("a view that lacks a row passed")
	}
	var out bytes.Buffer
	r.report(&out)
	text := strings.Join(strings.Fields(out.String()), " ") // the columns' widths are of no interest
	for _, want := range []string{
		"revenue 1,849.500000 1,851.000000 DIFFERENT",
		"duplicates dropped 40 40 =",
		"acme pro api 2026-11-23T16 1,233 1,234 DIFFERENT",
		"hourly acme|pro|api|2026-11-23T16: got rows 1233",
		"FAILED",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q:\n%s", want, &out)
		}
	}
}

func TestNumbersAreWrittenWithSeparators(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -999: "-999"} {
		if got := number(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
	if got := decimal(1_234_000_001); got != "1,234.000001" {
		t.Errorf("got %s", got)
	}
}

func TestASecondDemoLeavesTheFirstAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "demo")
	first := &demo{Config: Config{Dir: dir}}
	unlock, err := first.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	kept := filepath.Join(dir, "kept")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(kept, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), Config{Dir: dir}); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("a second demo in the same directory: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}
