package service

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/config"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/telemetry"
)

// testService makes a service of the given parts with a free port.
func testService(t *testing.T, environ []string, parts ...Part) *Service {
	t.Helper()
	cfg, err := config.Load(append(environ, "TENANTFLOW_HTTP_ADDR=127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, slog.New(slog.DiscardHandler), telemetry.Build{}, parts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func untilStopped(ctx context.Context, _ *Running) error {
	<-ctx.Done()
	return nil
}

func TestRun_APartThatFailsIsStartedAgainAlone(t *testing.T) {
	t.Parallel()
	interrupted := false
	seen, mended := make(chan struct{}), make(chan struct{})
	s := testService(t, nil,
		Part{Name: "broken", Run: func(ctx context.Context, r *Running) error {
			r.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "of_the_part", Help: "Of this run."}))
			select {
			case <-seen:
			default:
				return errors.New("the schema is wrong")
			}
			r.Ready()
			close(mended)
			<-ctx.Done()
			return nil
		}},
		Part{Name: "sound", Run: func(ctx context.Context, r *Running) error {
			r.Ready()
			<-ctx.Done()
			select {
			case <-mended:
			default:
				interrupted = true
			}
			return nil
		}},
	)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	eventually(t, func() bool {
		failing := s.health.Readiness().Failing
		return len(failing) == 1 && failing[0].Part == "broken" && failing[0].State == health.Failing && strings.Contains(failing[0].Reason, "the schema is wrong")
	})
	close(seen)
	<-mended
	eventually(t, func() bool { return s.health.Readiness().Ready })
	stop()
	if err := <-ended; err != nil || interrupted {
		t.Errorf("got %v; the other part was interrupted: %v", err, interrupted)
	}
}

func TestRun_AWrongConfigurationEndsTheProcess(t *testing.T) {
	t.Parallel()
	s := testService(t, nil,
		Part{Name: "broken", Run: func(context.Context, *Running) error {
			return config.Invalidf("TENANTFLOW_X: it is wrong")
		}},
		Part{Name: "sound", Run: untilStopped},
	)
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "running broken: TENANTFLOW_X: it is wrong") {
		t.Errorf("got %v", err)
	}
}

// A stop while a store is down is a stop in good order; a part that fails while it stops has failed.
func TestRun_AStopWhileAStoreIsDownIsNoFailure(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   error
		fails bool
	}{{&unopened{errors.New("connection refused")}, false}, {errors.New("the last batch is lost"), true}} {
		ctx, stop := context.WithCancel(t.Context())
		s := testService(t, nil, Part{Name: "waiting", Run: func(context.Context, *Running) error {
			stop()
			<-ctx.Done()
			return c.err
		}})
		if err := s.Run(ctx); (err != nil) != c.fails {
			t.Errorf("%v: got %v", c.err, err)
		}
	}
}

func TestAPartThatEndsByItselfIsAnError(t *testing.T) {
	t.Parallel()
	s := testService(t, nil,
		Part{Name: "lazy", Run: func(context.Context, *Running) error { return nil }},
		Part{Name: "sound", Run: untilStopped},
	)
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "running lazy: it ended by itself") {
		t.Errorf("got %v", err)
	}
}

func TestAStopThatTakesTooLongIsAnError(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// On a machine that stands still the time may be over before the sound part has ended, too.
	enginetest.Await(t, "a stop that only the slow part holds up", func() bool {
		s := testService(t, []string{"TENANTFLOW_USAGE_INSERT_TIMEOUT=1s", "TENANTFLOW_SHUTDOWN_TIMEOUT=1100ms"},
			Part{Name: "slow", Run: func(context.Context, *Running) error { <-release; return nil }},
			Part{Name: "sound", Run: untilStopped},
		)
		err := s.Run(ctx)
		if err == nil || !strings.Contains(err.Error(), "longer than 1.1s with ") {
			t.Fatalf("got %v", err)
		}
		return strings.Contains(err.Error(), " with 1 parts still at work")
	})
}

func TestPartsAreChosenByNameAndAllThatAreThereWithoutOne(t *testing.T) {
	t.Parallel()
	all := []Part{{Name: "a", Run: untilStopped}, {Name: "b"}, {Name: "c", Run: untilStopped}}
	for _, c := range []struct{ only, chosen, missing, fails string }{
		{"", "a c", "b", ""},
		{"c", "c", "", ""},
		{"c, a,c", "a c", "", ""},
		{"b", "", "", "not there yet"},
		{"d", "", "", "no such part"},
	} {
		var only []string
		if c.only != "" {
			only = strings.Split(c.only, ",")
		}
		chosen, missing, err := Choose(all, only)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("--only %s: %v", c.only, err)
			}
			continue
		}
		var names []string
		for _, p := range chosen {
			names = append(names, p.Name)
		}
		if err != nil || strings.Join(names, " ") != c.chosen || strings.Join(missing, " ") != c.missing {
			t.Errorf("--only %s: %v, missing %v, %v", c.only, names, missing, err)
		}
	}
}

// eventually waits until the condition holds.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	enginetest.Await(t, "what is expected", condition)
}
