package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A cluster id is any 16 bytes in URL-safe base64; one broker is a cluster of its own, so it may be always the same.
const apacheClusterID = "dGVuYW50Zmxvdy1sb2NhbA"

// startApache runs Apache Kafka: one node that is broker and controller, with little memory and small internal topics,
// so that it is up soon.
func startApache(ctx context.Context, o Options) (*Kafka, error) {
	java, libs, err := apacheKafka(ctx, o.log())
	if err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	e, err := open("kafka", o)
	if err != nil {
		return nil, err
	}
	controller, err := reserve(0)
	if err != nil {
		e.Release()
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	k := &Kafka{instance: e, kind: Apache, controller: controller, listeners: map[string]*port{}}
	for _, name := range o.Listeners {
		if k.listeners[name], err = reserve(0); err != nil {
			delete(k.listeners, name)
			k.Release()
			return nil, fmt.Errorf("start kafka: %w", err)
		}
	}
	data, config := filepath.Join(e.dir, "data"), filepath.Join(e.dir, "server.properties")

	e.command = func() (*exec.Cmd, error) {
		return exec.Command(java, "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-Djava.awt.headless=true",
			"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
			"-cp", filepath.Join(libs, "*"), "kafka.Kafka", config), nil
	}
	e.probe = k.answers

	err = os.WriteFile(config, []byte(k.properties(data, o)), 0o644)
	if err == nil {
		err = format(ctx, java, libs, data, config)
	}
	if err != nil {
		k.Release()
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	if err := e.begin(ctx); err != nil {
		k.Release()
		return nil, err
	}
	return k, nil
}

// properties is the broker's configuration file.
func (k *Kafka) properties(data string, o Options) string {
	advertise := k.Addr()
	if o.Advertise != nil {
		advertise = o.Advertise(advertise)
	}
	more := ""
	for _, name := range slices.Sorted(maps.Keys(k.listeners)) {
		more += "," + name + "://" + k.Listener(name)
	}
	p := map[string]string{
		"process.roles":             "broker,controller",
		"node.id":                   "1",
		"controller.quorum.voters":  "1@" + k.controller.addr(),
		"listeners":                 "PLAINTEXT://" + k.Addr() + ",CONTROLLER://" + k.controller.addr() + more,
		"advertised.listeners":      "PLAINTEXT://" + advertise + more,
		"controller.listener.names": "CONTROLLER",
		"log.dirs":                  data,

		"auto.create.topics.enable":        "false",
		"group.initial.rebalance.delay.ms": "0",
		"group.min.session.timeout.ms":     "1000",

		// A broker that was killed is let in again only when the session of its former life has ended, 9 s by default.
		// With a session of 2 or 3 s a machine under load takes its live broker for dead.
		"broker.session.timeout.ms":    "6000",
		"broker.heartbeat.interval.ms": "500",

		"offsets.topic.replication.factor":                 "1",
		"offsets.topic.num.partitions":                     "1",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"transaction.state.log.num.partitions":             "1",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"share.coordinator.state.topic.num.partitions":     "1",

		// The cleaner's buffer is 128 MiB by default, a quarter of the heap.
		"log.cleaner.dedupe.buffer.size": "8388608",
	}
	maps.Copy(p, o.KafkaConfig)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", name, p[name])
	}
	return b.String()
}

// format makes the data directory of a new broker.
func format(ctx context.Context, java, libs, data, config string) error {
	if _, err := os.Stat(filepath.Join(data, "meta.properties")); err == nil {
		return nil
	}
	if err := os.RemoveAll(data); err != nil { // of a format that did not get to its end
		return err
	}
	cmd := exec.Command(java, "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", filepath.Join(libs, "*"),
		"kafka.tools.StorageTool", "format", "--cluster-id", apacheClusterID, "--config", config)
	var out limitedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	run, err := spawn(cmd)
	if err != nil {
		return err
	}
	select {
	case <-run.exited:
	case <-ctx.Done():
		return errors.Join(ctx.Err(), run.kill())
	}
	if run.err != nil {
		return fmt.Errorf("format the data directory: %w\n%s", run.err, out.b)
	}
	return nil
}
