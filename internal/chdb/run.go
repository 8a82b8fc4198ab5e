package chdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Config is what a ClickHouse process needs.
type Config struct {
	Options
	// Listen is the address, host:port; port 0 picks a free one.
	Listen string
	// Scratch is a directory in memory for the bodies of inserts. Default /dev/shm.
	Scratch string
	Log     *slog.Logger
}

// stopLimit bounds a clean stop: running statements get half of it before they are killed.
const stopLimit = 6 * time.Second

// leaveFiles makes an empty directory the working directory: the database "default" of the engine library shows files
// of the working directory as tables, so that a query of a table that is not there could read a file of that name.
func (c *Config) leaveFiles() error {
	var err error
	for _, path := range []*string{&c.Library, &c.Dir, &c.Scratch} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return fmt.Errorf("find %s: %w", *path, err)
		}
	}
	empty := filepath.Join(c.Dir, "empty")
	if err := os.MkdirAll(empty, 0o750); err != nil {
		return fmt.Errorf("make the working directory of ClickHouse: %w", err)
	}
	if err := os.Chdir(empty); err != nil {
		return fmt.Errorf("change to the working directory of ClickHouse: %w", err)
	}
	return nil
}

// Run opens the engine, serves it and calls ready when it takes queries. When ctx ends it stops:
// no new requests, running statements end or are killed, the engine writes down what it holds.
// An engine that can't be stopped in time is left as it is; the directory survives that. Run is a process's main part:
// it changes the working directory.
func Run(ctx context.Context, c Config, ready func(addr net.Addr)) error {
	// First the address, which is the likelier one to be taken: a started engine would have to be stopped again.
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen for queries: %w", err)
	}
	defer listener.Close()
	if err := c.leaveFiles(); err != nil {
		return err
	}
	engine, err := Open(c.Options)
	if err != nil {
		return err
	}
	server, err := NewServer(engine, first(c.Scratch, "/dev/shm"), c.Log)
	if err != nil {
		return err
	}
	web := &http.Server{
		Handler:           server,
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(listener) }()
	ready(listener.Addr())

	select {
	case err := <-failed:
		return fmt.Errorf("serve queries: %w", err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	gentle, cancelGentle := context.WithTimeout(stopping, stopLimit/2)
	defer cancelGentle()
	if web.Shutdown(gentle) != nil {
		server.kill("1")
		if err := web.Close(); err != nil {
			c.Log.Error("close connections", "error", err)
		}
	}
	if err := server.Close(stopping); err != nil {
		return fmt.Errorf("stop ClickHouse: %w", err)
	}
	stopped := make(chan struct{})
	go func() {
		engine.Close()
		close(stopped)
	}()
	select {
	case <-stopped:
		return nil
	case <-stopping.Done():
		return errors.New("stop ClickHouse: the engine takes too long")
	}
}
