package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel"

	"tenantflow/internal/config"
	"tenantflow/internal/logs"
	"tenantflow/internal/service"
	"tenantflow/internal/trace"
)

func newRunCommand(a *app) *cobra.Command {
	var only []string
	names := partNames()
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the service until SIGTERM",
		Long: `Run consumes events until it gets SIGTERM or SIGINT. Then it stops taking events, finishes and commits what is under
way within TENANTFLOW_SHUTDOWN_TIMEOUT, leaves its consumer groups and exits 0. A second signal, at least a second later, ends it at once (exit 1);
nothing is lost then either, it is done after the next start. SIGUSR1 makes the log level debug, and the next SIGUSR1 what it was.

Its parts: ` + strings.Join(names, ", ") + `. Without --only it runs all there are. Each needs the addresses of
its own stores only.`,
		Example: `  tenantflow run
  tenantflow run --only usage`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			chosen, missing, err := service.Choose(service.Parts(), only)
			if err != nil {
				return err
			}
			cfg, err := a.config(service.Stores(chosen)...)
			if err != nil {
				return err
			}
			log := switchingLogger(cmd.Context(), cfg, cmd.ErrOrStderr())
			if len(missing) > 0 {
				log.Info("these parts are not there yet and do not run", "parts", strings.Join(missing, ", "))
			}
			otel.SetErrorHandler(otelLog{logs.NewTroubles(log)})
			tracer, err := trace.FromEnvironment(cmd.Context(), log, build().Version)
			if err != nil {
				return config.Invalidf("%w", err)
			}
			log = slog.New(tracer.LogHandler(log.Handler()))
			redis.SetLogger(redisLog{log})
			s, err := service.New(cfg, log, build(), chosen, service.Traced(tracer))
			if err != nil {
				return err
			}
			return s.Run(cmd.Context())
		},
	}
	cmd.Flags().StringSliceVar(&only, "only", nil, "run only these parts, comma-separated: "+strings.Join(names, ", "))
	return cmd
}

// partNames are the names that --only takes.
func partNames() []string {
	var names []string
	for _, p := range service.Parts() {
		names = append(names, p.Name)
	}
	return names
}

// redisLog takes what go-redis has to say, which otherwise goes to standard error as it is. What matters of it comes back as
// errors as well.
type redisLog struct{ log *slog.Logger }

// Printf implements go-redis's logging.
func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "go-redis", slog.String("says", fmt.Sprintf(format, v...)))
}

// otelLog takes what OpenTelemetry has to say beside the errors that the tracer logs itself, such as a bad value of OTEL_TRACES_SAMPLER. Otherwise it
// goes to standard error as it is.
type otelLog struct{ troubles *logs.Troubles }

// Handle implements otel.ErrorHandler.
func (l otelLog) Handle(err error) {
	l.troubles.Say(context.Background(), logs.Trouble{Level: slog.LevelWarn, Message: "OpenTelemetry reports an error", Err: err})
}
