package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// StartDragonfly runs a Dragonfly and returns when it answers PING. command is the path of the program, and flags that add to those given
// here, or replace them. It keeps snapshots under its default names, which carry a time, or nothing if it is Forgetful; it has
// nothing like AppendOnly.
func StartDragonfly(ctx context.Context, command []string, o Options) (*Redis, error) {
	if len(command) == 0 {
		return nil, fmt.Errorf("start dragonfly: no program is named")
	}
	if o.Persistence == AppendOnly {
		return nil, fmt.Errorf("start dragonfly: it has no append-only file")
	}
	e, err := open("dragonfly", o)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(e.dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		e.Release()
		return nil, fmt.Errorf("start dragonfly: %w", err)
	}
	r := &Redis{e}
	e.command = func() (*exec.Cmd, error) {
		args := []string{"--bind=127.0.0.1", "--port=" + strconv.Itoa(e.Port()), "--dir=" + data, "--logtostderr", "--version_check=false",
			"--proactor_threads=2", "--maxmemory=1gb", "--cluster_mode=emulated"}
		if o.Persistence == Forgetful {
			args = append(args, "--dbfilename=")
		}
		return exec.Command(command[0], append(args, command[1:]...)...), nil // the last of equal flags holds
	}
	e.probe = r.ping
	if err := e.begin(ctx); err != nil {
		return nil, err
	}
	return r, nil
}
