package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// kafkaOptions are the flags of the embedded broker.
type kafkaOptions struct {
	data, listen string
	sync         bool
	config       []string
	verbose      bool
}

func newKafkaCommand() *cobra.Command {
	var o kafkaOptions
	cmd := &cobra.Command{
		Use:   "kafka --data DIR --listen HOST:PORT",
		Short: "Run the embedded Kafka broker in this process",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runKafka(cmd, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.data, "data", "", "directory that keeps topics, records and offsets")
	f.StringVar(&o.listen, "listen", "127.0.0.1:9092", "host and port to listen on")
	f.BoolVar(&o.sync, "sync", true, "fsync every batch of records before it is acknowledged")
	f.StringArrayVar(&o.config, "config", nil, "broker setting NAME=VALUE by Kafka's own name (repeatable)")
	f.BoolVar(&o.verbose, "verbose", false, "log the broker's decisions")
	_ = cmd.MarkFlagRequired("data")
	return cmd
}

// runKafka serves until the command's context ends. It prints the line "ready" when it accepts connections.
func runKafka(cmd *cobra.Command, o kafkaOptions) error {
	host, portText, err := net.SplitHostPort(o.listen)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", o.listen, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", o.listen, err)
	}
	if host != "127.0.0.1" {
		return fmt.Errorf("listen on %q: the embedded broker has no access control and listens on 127.0.0.1 only", o.listen)
	}

	level := kfake.LogLevelWarn
	if o.verbose {
		level = kfake.LogLevelDebug
	}
	// The answer to DescribeTopicPartitions has a null where Kafka's own Java tools expect a list. Not offered, they
	// ask for Metadata instead.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.DescribeTopicPartitions), -1)

	opts := []kfake.Opt{
		kfake.MaxVersions(versions),
		kfake.NumBrokers(1),
		kfake.Ports(port),
		kfake.DefaultNumPartitions(1),
		kfake.DataDir(o.data),
		kfake.WithLogger(kfake.BasicLogger(cmd.ErrOrStderr(), level)),
	}
	if o.sync {
		opts = append(opts, kfake.SyncWrites())
	}
	settings, err := kafkaSettings(o.config)
	if err != nil {
		return err
	}
	cluster, err := kfake.NewCluster(append(opts, settings...)...)
	if err != nil {
		return fmt.Errorf("start the embedded broker on %s: %w", o.listen, err)
	}
	defer cluster.Close() // writes down what it keeps in memory
	go watchSessions(cluster, o.listen, cmd.ErrOrStderr()).run(cmd.Context())
	fmt.Fprintln(cmd.OutOrStdout(), "ready")
	<-cmd.Context().Done()
	if err := context.Cause(cmd.Context()); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// kafkaSettings turns Kafka's settings into options. A group's session may be as short as a second: tests wait for
// its end.
func kafkaSettings(config []string) ([]kfake.Opt, error) {
	minSession := time.Second
	broker := map[string]string{}
	for _, c := range config {
		name, value, ok := strings.Cut(c, "=")
		if !ok {
			return nil, fmt.Errorf("setting %q: want NAME=VALUE", c)
		}
		if name == "group.min.session.timeout.ms" {
			ms, err := strconv.Atoi(value)
			if err != nil {
				return nil, fmt.Errorf("setting %q: %w", c, err)
			}
			minSession = time.Duration(ms) * time.Millisecond
			continue
		}
		broker[name] = value
	}
	return []kfake.Opt{kfake.GroupMinSessionTimeout(minSession), kfake.BrokerConfigs(broker)}, nil
}
