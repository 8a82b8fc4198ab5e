// Command localstack runs the stores and brokers that tenantflow needs as child processes, for people and tests without
// Docker. It is also those children's own program where an engine has none: ClickHouse and the embedded broker.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once: its children die with it.
	context.AfterFunc(ctx, stop)

	root := &cobra.Command{
		Use:           "localstack",
		Short:         "Run ClickHouse, Kafka, PostgreSQL and Redis on this machine, without Docker",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newUpCommand(), newDemoCommand(), newBenchCommand(), newInstallCommand(), newKafkaCommand(), newClickHouseCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "localstack:", err)
		stop()
		os.Exit(1)
	}
}
