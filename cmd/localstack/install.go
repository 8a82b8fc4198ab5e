package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"tenantflow/internal/engine"
)

func newInstallCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install",
		Short: "Install every engine that is missing (apt-get, npm, mvn), so that later runs need no network",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := engine.Install(cmd.Context(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "all engines are installed")
			return nil
		},
	}
}
