package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"tenantflow/internal/engine"
)

// A service is the tenantflow binary with the settings of this demo.
type service struct {
	binary  string
	dir     string
	environ []string
	process *engine.Process // nil while it does not run
	logged  int64           // bytes in the log before it was started
	http    string          // address; empty: not known yet
}

// command runs one command of tenantflow to its end. What it printed is in the error when it fails.
func (s *service) command(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Env, cmd.Dir = s.environ, s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("tenantflow %s: %w\n%s", args[0], err, tail(out))
	}
	return nil
}

func (s *service) logPath() string { return filepath.Join(s.dir, "tenantflow.log") }

// start runs all consumers and the HTTP interface in one process. Its log lines go to a file, behind those
// of the runs before.
func (s *service) start() error {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start tenantflow run: %w", err)
	}
	defer log.Close()
	if s.logged, err = log.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("start tenantflow run: %w", err)
	}
	s.http = ""
	cmd := exec.Command(s.binary, "run", "--only", "usage,quota,subscription,company,api") //nolint:noctx // it outlives this call, and is killed with this process
	cmd.Env, cmd.Dir = s.environ, s.dir
	cmd.Stdout, cmd.Stderr = log, log
	s.process, err = engine.Run(cmd)
	if err != nil {
		return fmt.Errorf("start tenantflow run: %w", err)
	}
	return nil
}

// address is where the service listens for HTTP, read from its log.
func (s *service) address() (string, error) {
	if s.http != "" {
		return s.http, nil
	}
	log, err := os.ReadFile(s.logPath())
	if err != nil {
		return "", fmt.Errorf("find the address of tenantflow run: %w", err)
	}
	for line := range bytes.Lines(log[min(s.logged, int64(len(log))):]) {
		var entry struct {
			Msg  string `json:"msg"`
			HTTP string `json:"http"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "service started" {
			s.http = entry.HTTP
			return s.http, nil
		}
	}
	return "", errors.New("tenantflow run does not listen yet")
}

// kill ends the service as a crash would.
func (s *service) kill() error {
	if s.process == nil {
		return nil
	}
	err := s.process.Kill()
	s.process = nil
	return err
}

// stop ends the service as an operator does.
func (s *service) stop() error {
	err := s.process.Stop(stopLimit)
	if err == nil {
		err = s.process.Err()
	}
	s.process = nil
	if err != nil {
		return fmt.Errorf("stop tenantflow run: %w; its log ends:\n%s", err, s.logTail())
	}
	return nil
}

// died returns an error if the service has ended without being stopped.
func (s *service) died() error {
	select {
	case <-s.process.Exited():
		return fmt.Errorf("tenantflow run ended by itself: %w; its log ends:\n%s", errors.Join(s.process.Err(), os.ErrProcessDone), s.logTail())
	default:
		return nil
	}
}

func (s *service) logTail() []byte {
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		return []byte(err.Error())
	}
	return tail(b)
}

// tail keeps the last few lines.
func tail(b []byte) []byte {
	lines := bytes.SplitAfter(bytes.TrimSpace(b), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-10):], nil)
}
