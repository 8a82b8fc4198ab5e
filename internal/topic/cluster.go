package topic

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/kafka"
	"tenantflow/internal/retry"
)

// A State is what was found or done for a topic.
type State string

// The states. Only Missing and Wrong need an operator to act.
const (
	Created State = "created"
	Exists  State = "exists"
	Missing State = "missing"
	Wrong   State = "wrong" // exists, and is set up so that events can be lost
)

// A Report describes one topic.
type Report struct {
	Topic       string   `json:"topic"`
	State       State    `json:"state"`
	Partitions  int      `json:"partitions"` // as it is; 0 when it is missing
	Replication int      `json:"replication"`
	Problems    []string `json:"problems,omitempty"` // must be put right by an operator
	Notes       []string `json:"notes,omitempty"`    // differs from what would be created, without harm
}

// settleTime is how long a new topic may take until the brokers show it.
const settleTime = 15 * time.Second

// Ensure creates the topics that are missing and returns a report on each, in the order given. Topics that exist are
// left as they are. Creating is repeatable, and two processes may do it at once.
func Ensure(ctx context.Context, client *kafkago.Client, topics []Topic) ([]Report, error) {
	reports, err := Inspect(ctx, client, topics)
	if err != nil {
		return nil, err
	}
	created := map[string]bool{}
	var missing []kafkago.TopicConfig
	for i, r := range reports {
		if r.State == Missing {
			missing = append(missing, request(topics[i]))
		}
	}
	if len(missing) == 0 {
		return reports, nil
	}
	answer, err := client.CreateTopics(ctx, &kafkago.CreateTopicsRequest{Topics: missing})
	if err != nil {
		return nil, fmt.Errorf("create %d topics: %w", len(missing), err)
	}
	for _, t := range missing {
		switch err := answer.Errors[t.Topic]; {
		case err == nil:
			created[t.Topic] = true
		case errors.Is(err, kafkago.TopicAlreadyExists): // another process was faster
		default:
			return nil, fmt.Errorf("create topic %s: %w", t.Topic, err)
		}
	}

	reports, err = awaitAll(ctx, client, topics)
	for i := range reports {
		if created[reports[i].Topic] && reports[i].State == Exists {
			reports[i].State = Created
		}
	}
	return reports, err
}

func request(t Topic) kafkago.TopicConfig {
	config := kafkago.TopicConfig{Topic: t.Name, NumPartitions: t.Partitions, ReplicationFactor: t.Replication}
	for _, name := range sortedKeys(t.Config) {
		config.ConfigEntries = append(config.ConfigEntries, kafkago.ConfigEntry{ConfigName: name, ConfigValue: t.Config[name]})
	}
	return config
}

// awaitAll looks until no topic is missing: brokers learn of a new topic a little after the controller.
func awaitAll(ctx context.Context, client *kafkago.Client, topics []Topic) ([]Report, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		reports, err := Inspect(ctx, client, topics)
		if err != nil {
			return nil, err
		}
		late := ""
		for _, r := range reports {
			if r.State == Missing {
				late = r.Topic
			}
		}
		if late == "" {
			return reports, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return reports, fmt.Errorf("wait for new topic %s to appear: %w", late, context.Cause(ctx))
		}
	}
}

// Inspect reports on the topics without creating any.
func Inspect(ctx context.Context, client *kafkago.Client, topics []Topic) ([]Report, error) {
	metadata, err := client.Metadata(ctx, &kafkago.MetadataRequest{Topics: names(topics)})
	if err != nil {
		return nil, fmt.Errorf("read the metadata of %d topics: %w", len(topics), err)
	}
	found := map[string]kafkago.Topic{}
	var present []string
	for _, t := range metadata.Topics {
		switch {
		case t.Error == nil && allLed(t):
			found[t.Name] = t
			present = append(present, t.Name)
		case t.Error != nil && !errors.Is(t.Error, kafkago.UnknownTopicOrPartition) && !errors.Is(t.Error, kafkago.LeaderNotAvailable):
			return nil, fmt.Errorf("read the metadata of topic %s: %w", t.Name, t.Error)
		}
	}
	configs, err := describe(ctx, client, present)
	if err != nil {
		return nil, err
	}

	reports := make([]Report, len(topics))
	for i, t := range topics {
		actual, ok := found[t.Name]
		config, described := configs[t.Name]
		if !ok || !described {
			reports[i] = Report{Topic: t.Name, State: Missing}
			continue
		}
		reports[i] = t.compare(actual, config, configs[t.DeadLetters])
	}
	return reports, nil
}

func allLed(t kafkago.Topic) bool {
	for _, p := range t.Partitions {
		if p.Leader.Port == 0 { // it has no leader yet
			return false
		}
	}
	return len(t.Partitions) > 0
}

// describeWait is how long describe waits for the client to know the brokers.
const describeWait = 10 * time.Second

// describe returns the settings of the topics that exist, by topic and setting.
func describe(ctx context.Context, client *kafkago.Client, topics []string) (map[string]map[string]string, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	request := &kafkago.DescribeConfigsRequest{}
	for _, name := range topics {
		request.Resources = append(request.Resources, kafkago.DescribeConfigRequestResource{
			ResourceType: kafkago.ResourceTypeTopic,
			ResourceName: name,
			ConfigNames:  configNames(),
		})
	}
	var answer *kafkago.DescribeConfigsResponse
	trying, cancel := context.WithTimeout(ctx, describeWait)
	defer cancel()
	err := retry.Do(trying, func() (err error) {
		answer, err = client.DescribeConfigs(ctx, request)
		return err
	}, func(err error) error {
		if errors.Is(err, kafkago.BrokerNotAvailable) || kafka.ConnectionClosed(err) {
			return nil // the client has not learned yet which brokers there are, or that one has been restarted
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the settings of %d topics: %w", len(topics), err)
	}
	configs := make(map[string]map[string]string, len(topics))
	for _, r := range answer.Resources {
		switch {
		case errors.Is(r.Error, kafkago.UnknownTopicOrPartition):
			continue
		case r.Error != nil:
			return nil, fmt.Errorf("read the settings of topic %s: %w", r.ResourceName, r.Error)
		}
		config := make(map[string]string, len(r.ConfigEntries))
		for _, entry := range r.ConfigEntries {
			config[entry.ConfigName] = entry.ConfigValue
		}
		configs[r.ResourceName] = config
	}
	return configs, nil
}

// MaxMessageBytes returns the largest record batch each of the topics takes now, in bytes. A topic that does not exist
// is an error that wraps kafkago.UnknownTopicOrPartition.
func MaxMessageBytes(ctx context.Context, client *kafkago.Client, topics ...string) (map[string]int, error) {
	configs, err := describe(ctx, client, topics)
	if err != nil {
		return nil, err
	}
	limits := make(map[string]int, len(topics))
	for _, name := range topics {
		config, ok := configs[name]
		if !ok {
			return nil, fmt.Errorf("read the settings of topic %s: %w", name, kafkago.UnknownTopicOrPartition)
		}
		n, err := strconv.Atoi(config[maxMessageBytes])
		if err != nil {
			return nil, fmt.Errorf("read %s of topic %s: %w", maxMessageBytes, name, err)
		}
		limits[name] = n
	}
	return limits, nil
}

// Retention is how long a topic keeps its records now; 0: without a limit. A topic that does not exist is an error that wraps
// kafkago.UnknownTopicOrPartition.
func Retention(ctx context.Context, client *kafkago.Client, name string) (time.Duration, error) {
	configs, err := describe(ctx, client, []string{name})
	if err != nil {
		return 0, err
	}
	config, ok := configs[name]
	if !ok {
		return 0, fmt.Errorf("read the settings of topic %s: %w", name, kafkago.UnknownTopicOrPartition)
	}
	return time.Duration(max(0, number(config[retention]))) * time.Millisecond, nil
}
