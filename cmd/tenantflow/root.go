package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"tenantflow/internal/config"
	"tenantflow/internal/telemetry"
)

// The exit codes.
const (
	exitDone    = 0 // done, and everything as it should be
	exitFailed  = 1 // failed, or differences were found
	exitInvalid = 2 // the command line or the configuration is wrong; nothing was done
)

// An app is what all commands of one command line share.
type app struct {
	environ []string // NAME=value, as of os.Environ
	output  string   // the -o flag: outputTable or outputJSON
	running bool     // the command itself has started: from here on an error is not one of usage
}

// config reads the configuration and checks that the given stores have an address. The error is a config.Problems,
// which ends the process with exitInvalid.
func (a *app) config(stores ...config.Store) (*config.Config, error) {
	return config.Load(a.environ, stores...)
}

// logger makes the logger a command writes to w, usually its standard error.
func (a *app) logger(cfg *config.Config, w io.Writer) *slog.Logger {
	return telemetry.NewLogger(w, cfg.LogLevel, cfg.LogFormat)
}

// invalid makes an error that says what is wrong with the command line.
func invalid(format string, args ...any) error { return config.Invalidf(format, args...) }

func (a *app) exitCode(err error) int {
	var problems config.Problems
	var usage config.Invalid
	if !a.running || errors.As(err, &problems) || errors.As(err, &usage) {
		return exitInvalid
	}
	return exitFailed
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "tenantflow",
		Short: "Usage, subscription and company events from Kafka into the stores, each exactly once",
		Long: `tenantflow takes usage, subscription and company events from Kafka and gives each exactly one effect in every
store, whatever crashes in between.

It is configured by environment variables: "tenantflow config print" lists them with their values and where they
come from, "tenantflow config check" says everything that is wrong with them.

Exit codes: 0 done; 1 failed, or differences found; 2 the command line or the configuration is wrong.
SIGTERM or SIGINT ends a command in good order; a second one, at least a second later, ends it at once.`,
		Example: `  tenantflow migrate                  create the tables and topics that are missing
  tenantflow run --only usage         run the service
  tenantflow config check             say everything that is wrong with the configuration`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.output != outputTable && a.output != outputJSON {
				return invalid("-o %s: there is no such output; choose table or json", a.output)
			}
			redis.SetLogger(redisLog{slog.New(slog.DiscardHandler)}) // what matters comes back as errors; run has a log for the rest
			return nil
		},
	}
	root.PersistentFlags().StringVarP(&a.output, "output", "o", outputTable, "how to print results: table or json")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return invalid("%w (see %s --help)", err, cmd.CommandPath())
	})
	root.CompletionOptions.HiddenDefaultCmd = true

	const service, events, settings = "service", "events", "settings"
	root.AddGroup(
		&cobra.Group{ID: service, Title: "The service:"},
		&cobra.Group{ID: events, Title: "Events:"},
		&cobra.Group{ID: settings, Title: "Settings and version:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(service, newRunCommand(a), newMigrateCommand(a), newVerifyCommand(a), newQuotaCommand(a), newTenantCommand(a), newAnalyticsCommand(a), newBillingCommand(a), newJobsCommand(a))
	add(events, newGenerateCommand(a), newProduceCommand(a), newReplayCommand(a), newTaskCommand(a), newArchiveCommand(a), newDLQCommand(a), newUsageCommand(a))
	add(settings, newConfigCommand(a), newVersionCommand(a))
	root.SetHelpCommand(newHelpCommand(root))
	root.SetHelpCommandGroupID(settings)
	a.noteRunning(root)
	return root
}

// newHelpCommand is cobra's help command, but for the exit code of a command that does not exist.
func newHelpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about any command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return invalid("there is no command %q (see %s --help)", strings.Join(args, " "), root.CommandPath())
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// noteRunning wraps the work of every command, so that errors from before it (flags, arguments) count as usage.
func (a *app) noteRunning(cmd *cobra.Command) {
	if work := cmd.RunE; work != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.running = true
			return work(cmd, args)
		}
	}
	for _, child := range cmd.Commands() {
		a.noteRunning(child)
	}
}

// noArgs refuses arguments, and names the command that was probably meant.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	cmd.SuggestionsMinimumDistance = 2 // letters
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf("; did you mean %q?", near[0])
	}
	if cmd.HasSubCommands() {
		return invalid("there is no command %q%s (see %s --help)", args[0], hint, cmd.CommandPath())
	}
	return invalid("%s takes no arguments, but got %q (see %[1]s --help)", cmd.CommandPath(), args[0])
}
