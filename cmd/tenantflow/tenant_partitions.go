package main

import (
	"context"
	"fmt"
	"strconv"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/kafka"
	"tenantflow/internal/service"
	"tenantflow/sinks/postgres"
)

// A topicPartitions is a topic whose events are in order per company only as long as the number of its partitions stays.
type topicPartitions struct {
	Topic    string `json:"topic"`
	Accepted int    `json:"accepted"` // 0: it was never consumed
	Now      int    `json:"now"`
	Unread   int64  `json:"unread"` // events the group has not read
	State    string `json:"state"`  // ok, changed, accepted, not consumed yet
}

func newTenantPartitionsCommand(a *app) *cobra.Command {
	var accept bool
	cmd := &cobra.Command{
		Use:   "partitions [--accept]",
		Short: "Show whether the topics of companies have the partitions they were first consumed with; accept another number",
		Long: `With another number of partitions, the later events of a company are in another partition than its earlier ones, and
nothing keeps their order. So the consumers stop when the number of company.events or subscription.events changes.

To add partitions: stop the producers, wait until nothing is unread, add them, run this with --accept, restart the
service, start the producers. If events are unread when --accept is given, those of before and after the change may be
applied in another order than they were published in; which is why their number is shown.

Exit codes: 0 the numbers are as accepted; 1 one has changed and is not accepted.`,
		Example: `  tenantflow tenant partitions
  tenantflow tenant partitions --accept`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.config(config.Kafka, config.Postgres)
			if err != nil {
				return err
			}
			topics, err := tenantPartitions(cmd.Context(), a, cmd, cfg, accept)
			if err != nil {
				return err
			}
			err = a.show(cmd.OutOrStdout(), topics, func() *table {
				t := &table{head: []string{"topic", "accepted", "now", "unread", "state"}}
				for _, p := range topics {
					t.add(p.Topic, strconv.Itoa(p.Accepted), strconv.Itoa(p.Now), count(p.Unread), p.State)
				}
				return t
			})
			for _, p := range topics {
				if p.State == "changed" && err == nil {
					err = fmt.Errorf("the number of partitions of %s has changed; its consumer is stopped until it is accepted", p.Topic)
				}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&accept, "accept", false, "accept the numbers as they are now")
	return cmd
}

func tenantPartitions(ctx context.Context, a *app, cmd *cobra.Command, cfg *config.Config, accept bool) ([]topicPartitions, error) {
	client, done, err := cfg.KafkaClient()
	if err != nil {
		return nil, err
	}
	defer done()
	client.Timeout = tryTimeout
	store, err := service.OpenPostgres(ctx, cfg, 0, a.logger(cfg, cmd.ErrOrStderr()))
	if err != nil {
		return nil, err
	}
	defer store.Close()
	tenants := store.Tenants(postgres.TenantsConfig{})
	var all []topicPartitions
	for name, topic := range map[string]string{"company": events.TopicCompany, "subscription": events.TopicSubscription} {
		one := topicPartitions{Topic: cfg.TopicPrefix + topic}
		one.Now, one.Unread, err = unread(ctx, client, one.Topic, cfg.GroupPrefix+"."+name)
		if kafka.NoTopic(err) {
			return nil, fmt.Errorf(`topic %s does not exist; run "tenantflow migrate"`, one.Topic)
		}
		if err != nil {
			return nil, err
		}
		if one.Accepted, err = tenants.AcceptedPartitions(ctx, one.Topic); err != nil {
			return nil, err
		}
		switch {
		case one.Accepted == 0:
			one.State = "not consumed yet"
		case one.Accepted == one.Now:
			one.State = "ok"
		case !accept:
			one.State = "changed"
		default:
			if err := tenants.AcceptPartitions(ctx, one.Topic, one.Now); err != nil {
				return nil, err
			}
			one.Accepted, one.State = one.Now, "accepted"
		}
		all = append(all, one)
	}
	if len(all) == 2 && all[0].Topic > all[1].Topic {
		all[0], all[1] = all[1], all[0]
	}
	return all, nil
}

// unread counts the partitions of a topic, and the events in them that a group has not committed.
func unread(ctx context.Context, client *kafkago.Client, topic, group string) (partitions int, events int64, err error) {
	ends, err := kafka.Ends(ctx, client, topic)
	if err != nil {
		return 0, 0, err
	}
	each, err := kafka.Unread(ctx, client, group, topic, ends)
	if err != nil {
		return 0, 0, err
	}
	for _, n := range each {
		events += n
	}
	return len(ends), events, nil
}
