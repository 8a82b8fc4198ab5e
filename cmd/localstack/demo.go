package main

import (
	"github.com/spf13/cobra"

	"tenantflow/internal/demo"
	"tenantflow/internal/engine"
)

func newDemoCommand() *cobra.Command {
	var c demo.Config
	var kafka string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Send a million usage events through a fresh stack, kill the service on the way, and check every total and quota",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Kafka, c.Out, c.Log = engine.KafkaKind(kafka), cmd.OutOrStdout(), cmd.ErrOrStderr()
			return demo.Run(cmd.Context(), c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&kafka, "kafka", kafkaKindFromEnvironment(), "broker: embedded, or apache for a real Apache Kafka; default from $KAFKA")
	f.IntVar(&c.Events, "events", 1_000_000, "messages to publish")
	f.Uint64Var(&c.Seed, "seed", 1, "which stream of events")
	f.StringVar(&c.Binary, "tenantflow", "", "binary of the service (default: bin/tenantflow, built from the sources)")
	return cmd
}
