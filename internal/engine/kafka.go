package engine

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/segmentio/kafka-go"
)

// Kafka is a broker: the embedded one or Apache Kafka, one node. Topics are never created by being mentioned.
type Kafka struct {
	*instance
	kind       KafkaKind
	controller *port            // Apache Kafka's second listener
	listeners  map[string]*port // and those that the options want, by name
}

// StartKafka runs a broker of the kind the options say, installing Apache Kafka when it is missing, and returns when
// it serves its metadata and finds the coordinator of a group.
func StartKafka(ctx context.Context, o Options) (*Kafka, error) {
	switch o.Kind {
	case Embedded, "":
		return startEmbedded(ctx, o)
	case Apache:
		return startApache(ctx, o)
	}
	return nil, fmt.Errorf("start kafka: unknown kind %q: want %s or %s", o.Kind, Embedded, Apache)
}

func startEmbedded(ctx context.Context, o Options) (*Kafka, error) {
	binary, err := localstack(ctx)
	if err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	e, err := open("kafka", o)
	if err != nil {
		return nil, err
	}
	k := &Kafka{instance: e, kind: Embedded}
	e.command = func() (*exec.Cmd, error) {
		args := []string{"kafka", "--data", filepath.Join(e.dir, "data"), "--listen", e.Addr()}
		if o.Unsynced {
			args = append(args, "--sync=false")
		}
		for name, value := range o.KafkaConfig {
			args = append(args, "--config", name+"="+value)
		}
		return exec.Command(binary, args...), nil
	}
	e.probe = k.answers
	if err := e.begin(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// Kind says which broker it is.
func (k *Kafka) Kind() KafkaKind { return k.kind }

// Release gives the engine's reserved ports back. It can't be started after that.
func (k *Kafka) Release() {
	k.instance.Release()
	if k.controller != nil {
		k.controller.release()
	}
	for _, p := range k.listeners {
		p.release()
	}
}

// Listener is the HOST:PORT of a listener that the options want.
func (k *Kafka) Listener(name string) string { return k.listeners[name].addr() }

// probeGroup is a group without members.
const probeGroup = "localstack.probe"

// answers asks for the cluster's brokers and for a group's coordinator: Apache Kafka is ready for consumers only a
// while after it is ready for everything else.
func (k *Kafka) answers(ctx context.Context) error {
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(k.Addr()), Transport: transport}
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return err
	}
	if len(meta.Brokers) == 0 {
		return fmt.Errorf("no broker is registered yet")
	}
	found, err := client.FindCoordinator(ctx, &kafka.FindCoordinatorRequest{Key: probeGroup, KeyType: kafka.CoordinatorKeyTypeConsumer})
	if err != nil {
		return err
	}
	if found.Error != nil || k.kind == Embedded {
		return found.Error
	}
	// Apache Kafka's coordinator may still be loading. There is one partition of offsets, so what holds for this group
	// holds for all. The embedded broker has loaded everything before it listens.
	offsets, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: probeGroup})
	if err != nil {
		return err
	}
	return offsets.Error
}
