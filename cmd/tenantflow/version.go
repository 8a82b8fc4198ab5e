package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"tenantflow/internal/telemetry"
)

// Set by the linker, see the Makefile: -X main.version=... Empty in a binary built without it.
var version, commit, date string

// build says what this binary is. Without the linker's values it falls back on what the Go toolchain noted.
func build() telemetry.Build {
	b := telemetry.Build{
		Version: version, Commit: commit, Date: date,
		Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && b.Commit == "":
				b.Commit = s.Value
			case s.Key == "vcs.time" && b.Date == "":
				b.Date = s.Value
			}
		}
	}
	for _, field := range []*string{&b.Version, &b.Commit, &b.Date} {
		if *field == "" {
			*field = "unknown"
		}
	}
	return b
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print what this binary was built from",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := build()
			return a.show(cmd.OutOrStdout(), b, func() *table {
				return &table{rows: [][]string{
					{"version", b.Version}, {"commit", b.Commit}, {"date", b.Date}, {"go", b.Go + " " + b.OS + "/" + b.Arch},
				}}
			})
		},
	}
}
