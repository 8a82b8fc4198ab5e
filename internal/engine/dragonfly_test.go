package engine_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
)

// standIn writes a program that takes the flags of a Dragonfly, fails if one is missing, and runs a Redis: what is tested is how
// the program is run, not what it does.
func standIn(t *testing.T) string {
	t.Helper()
	enginetest.Redis(t) // installs it
	server, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dragonfly")
	script := fmt.Sprintf(`#!/bin/sh
save="3600 1"
for flag in "$@"; do
  case "$flag" in
  --port=*) port="${flag#*=}" ;;
  --dir=*) dir="${flag#*=}" ;;
  --bind=*) bind="${flag#*=}" ;;
  --proactor_threads=*) threads="${flag#*=}" ;;
  --dbfilename=) save="" ;;
  esac
done
echo "threads $threads"
exec %q --port "$port" --dir "$dir" --bind "$bind" --save "$save" --daemonize no
`, server)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDragonfly_IsRunAsAProgram(t *testing.T) {
	t.Parallel()
	program := standIn(t)
	for persistence, want := range map[engine.Persistence]string{"": "saved", engine.Snapshot: "saved", engine.Forgetful: ""} {
		d, err := engine.StartDragonfly(t.Context(), []string{program, "--proactor_threads=3"}, engine.Options{Dir: t.TempDir(), Persistence: persistence})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = d.Kill()
			d.Release()
		})
		if host, _, err := net.SplitHostPort(d.Addr()); err != nil || host != "127.0.0.1" {
			t.Errorf("it listens on %s", d.Addr())
		}
		client := redis.NewClient(enginetest.RedisOptions(t, "redis://"+d.Addr()))
		defer client.Close()
		client.Set(t.Context(), "k", "saved", 0)
		if persistence != engine.Forgetful {
			client.Save(t.Context())
			client.Set(t.Context(), "k", "not saved", 0)
		}
		if err := d.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := d.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := client.Get(t.Context(), "k").Val(); got != want {
			t.Errorf("%q: it holds %q after a restart, want %q", persistence, got, want)
		}
		if log, err := os.ReadFile(d.LogPath()); err != nil || string(log[:10]) != "threads 3\n" {
			t.Errorf("flags are not added: %v, %.100s", err, log)
		}
	}
	if _, err := engine.StartDragonfly(t.Context(), []string{program}, engine.Options{Dir: t.TempDir(), Persistence: engine.AppendOnly}); err == nil {
		t.Error("it has an append-only file")
	}
	if _, err := engine.StartDragonfly(t.Context(), nil, engine.Options{Dir: t.TempDir()}); err == nil {
		t.Error("no program was started")
	}
}
