package main

import (
	"fmt"
	"log/slog"
	"net"

	"github.com/spf13/cobra"

	"tenantflow/internal/chdb"
)

// newClickHouseCommand runs ClickHouse in this process until the command's context ends:
// one line, "ready", on standard output when it takes queries.
func newClickHouseCommand() *cobra.Command {
	var c chdb.Config
	cmd := &cobra.Command{
		Use:   "clickhouse",
		Short: "Run ClickHouse over HTTP in this process",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return chdb.Run(cmd.Context(), c, func(net.Addr) { fmt.Fprintln(cmd.OutOrStdout(), "ready") })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Library, "lib", "", "path of libchdb.so")
	flags.StringVar(&c.Dir, "data", "", "data directory, made when missing")
	flags.StringVar(&c.Listen, "listen", "127.0.0.1:8123", "address to listen on, host:port")
	flags.StringVar(&c.Config, "config", "", "configuration file of ClickHouse's own, by its absolute path")
	flags.Uint64Var(&c.Memory, "memory", 0, "memory limit of the engine in bytes (0: half of the machine's)")
	for _, required := range []string{"lib", "data"} {
		if err := cmd.MarkFlagRequired(required); err != nil {
			panic(err) // a flag that was not declared above: a mistake in this file
		}
	}
	return cmd
}
