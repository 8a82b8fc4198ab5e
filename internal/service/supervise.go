package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"tenantflow/internal/config"
	"tenantflow/internal/health"
	"tenantflow/internal/logs"
	"tenantflow/internal/retry"
)

// steady is how long a part has to run for its next failure to count as a first one.
const steady = time.Minute

// supervise runs a part until ctx ends, again after each failure: what one store refuses must not end the parts that don't use it, and
// a person who sets it right should not have to restart anything. So an order in which to start things does not matter either. Only a
// configuration that can't be right ends the part, and so the process.
func (s *Service) supervise(ctx context.Context, p Part) error {
	delays, failures := retry.New(), logs.NewTroubles(s.log)
	for {
		began := time.Now()
		r := &Running{Registerer: s.registry, Config: s.cfg, Log: s.log, service: s, part: p.Name}
		err := p.Run(ctx, r)
		r.unregister()
		var wrong config.Invalid
		var closed *unopened
		down := errors.As(err, &closed)
		switch {
		case ctx.Err() != nil && down:
			return nil // asked to stop before there was anything to stop
		case ctx.Err() != nil:
			return err
		case err == nil:
			return errors.New("it ended by itself")
		case errors.As(err, &wrong):
			return err
		}
		if time.Since(began) > steady {
			delays.Reset()
			failures.Forget(p.Name)
		}
		wait := delays.Next().Round(100 * time.Millisecond)
		s.health.Set(p.Name, health.Failing, fmt.Sprintf("%v (trying again)", err))
		if !down { // of a store that can't be opened, the state above is all there is to say
			failures.Say(ctx, logs.Trouble{Level: slog.LevelError, Message: "a part failed; it is started again, and the others go on", Of: p.Name, Err: err,
				Attrs: []slog.Attr{slog.String("part", p.Name), slog.Duration("again_in", wait)}})
		}
		if retry.Pause(ctx, wait) != nil {
			return nil //nolint:nilerr // asked to stop between two runs
		}
	}
}
