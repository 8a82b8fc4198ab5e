package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"tenantflow/internal/config"
	"tenantflow/internal/telemetry"
)

// switchingLogger makes the logger of a service: SIGUSR1 makes it write debug lines, and the next one stops that. Only who may signal the
// process can, and it needs no port. The signal is taken until ctx ends.
func switchingLogger(ctx context.Context, cfg *config.Config, w io.Writer) *slog.Logger {
	level := &slog.LevelVar{}
	level.Set(cfg.LogLevel)
	log := telemetry.NewLogger(w, level, cfg.LogFormat)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		for {
			select {
			case <-signals:
			case <-ctx.Done():
				// It stays taken: without a handler the signal would end a process that is stopping in good order.
				return
			}
			before := level.Level()
			if level.Set(slog.LevelDebug); before == slog.LevelDebug {
				level.Set(max(cfg.LogLevel, slog.LevelInfo))
			}
			log.LogAttrs(ctx, max(before, level.Level()), "SIGUSR1: the log level is changed", slog.String("from", before.String()), slog.String("to", level.Level().String()))
		}
	}()
	return log
}
