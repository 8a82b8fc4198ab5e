package engine

import (
	"bytes"
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
	controller *port // Apache Kafka's second listener
}

// StartKafka runs a broker of the kind the options say, installing Apache Kafka when it is missing, and returns when
// it tells its metadata and finds the coordinator of a group.
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
}

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
	found, err := client.FindCoordinator(ctx, &kafka.FindCoordinatorRequest{Key: "tenantflow.probe", KeyType: kafka.CoordinatorKeyTypeConsumer})
	if err != nil {
		return err
	}
	return found.Error
}

// Tool runs one of Kafka's own command line tools against the broker, by its Java class, and returns what it printed.
// The address is passed as --bootstrap-server. Apache Kafka is installed when it is missing.
//
//	k.Tool(ctx, "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
//		"--group", "tenantflow.usage", "--topic", "usage.events", "--reset-offsets", "--to-earliest", "--execute")
func (k *Kafka) Tool(ctx context.Context, class string, args ...string) ([]byte, error) {
	java, libs, err := apacheKafka(ctx, Options{}.log())
	if err != nil {
		return nil, fmt.Errorf("run kafka tool %s: %w", class, err)
	}
	jvm := []string{"-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
		"-cp", filepath.Join(libs, "*"), class, "--bootstrap-server", k.Addr()}
	cmd := exec.Command(java, append(jvm, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	run, err := spawn(cmd)
	if err != nil {
		return nil, fmt.Errorf("run kafka tool %s: %w", class, err)
	}
	select {
	case <-run.exited:
	case <-ctx.Done():
		run.kill()
		return nil, fmt.Errorf("run kafka tool %s: %w", class, ctx.Err())
	}
	if run.err != nil {
		return nil, fmt.Errorf("run kafka tool %s: %w\n%s", class, run.err, out.Bytes())
	}
	return out.Bytes(), nil
}
