package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tenantflow/internal/config"
)

func newConfigCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check, print and explain the settings",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheckCommand(a), newConfigPrintCommand(a), newConfigDocsCommand())
	return cmd
}

func newConfigPrintCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "print",
		Short: "Print every setting with its value and where it came from, without the secrets",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.config()
			if err != nil {
				return err
			}
			settings := cfg.Settings()
			return a.show(cmd.OutOrStdout(), settings, func() *table {
				t := &table{head: []string{"setting", "value", "source", "default", "unit or values", "meaning"}}
				for _, s := range settings {
					t.add(s.Name, dash(s.Value), s.Source, dash(s.Default), dash(s.Unit), s.Meaning)
				}
				return t
			})
		},
	}
}

func newConfigDocsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "docs",
		Short: "Print the reference of all settings as Markdown (docs/configuration.md)",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := config.WriteMarkdown(cmd.OutOrStdout()); err != nil {
				return fmt.Errorf("printing the reference: %w", err)
			}
			return nil
		},
	}
}

// dash makes an empty cell visible, and a value with line breaks fit into its row.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(s)
}
